"""``talkface.open_dataset`` and ``talkface.export``."""

from talkface.datasets import export as forms
from talkface.datasets.open import open_dataset
from talkface.datasets.reader import Dataset

__all__ = ["export", "open_dataset"]


def export(data: str | Dataset, out: str, form: str = "parquet", *, split: str | None = None) -> int:
    """Write a dataset as ``parquet``, ``livelink`` or ``folders``; returns how many clips were written.

    ``split`` is train, val or test; None writes them all. Raises ConfigError for an unknown form, a column that it
    needs and the dataset lacks, and a folder that holds something else.
    """
    opened = open_dataset(data, split=split) if isinstance(data, str) else data
    return forms.export(opened, out, form)
