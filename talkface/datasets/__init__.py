"""Packs to shards to batches."""
