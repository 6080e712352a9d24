"""A local web page to look into a dataset: search, play, compare, mark."""
