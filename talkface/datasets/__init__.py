"""Packs to shards to batches."""

from talkface.datasets.open import open_dataset
from talkface.datasets.reader import Dataset

__all__ = ["Dataset", "open_dataset"]
