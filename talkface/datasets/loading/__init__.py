"""Windows of clips as shuffled batches."""
