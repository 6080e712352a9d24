"""Model files as the public functions are given them."""

from pathlib import Path

from talkface.weights import Models


def store_of(models: str | Path | Models | None, offline: bool) -> Models:
    """Model files: a folder that is looked at first, a store that is there already, or None."""
    return models if isinstance(models, Models) else Models(models, offline=offline)
