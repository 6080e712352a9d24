"""What a dataset is on disk: tables, shards, sidecars."""
