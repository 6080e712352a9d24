"""Raw files to packs of annotated clips."""
