"""Pictures and sound to named columns: one file an annotator."""
