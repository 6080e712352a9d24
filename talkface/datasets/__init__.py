"""Packs to shards to batches."""

from talkface.datasets.reader import Dataset, open_dataset

__all__ = ["Dataset", "open_dataset"]
