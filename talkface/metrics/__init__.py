"""Numbers about generated faces: one file a metric, found by its name."""
