"""How loud the sound of a dataset's clips is."""

import numpy as np

from talkface.datasets.reader import Dataset


def sound_of(dataset: Dataset, key: str) -> np.ndarray:
    """Samples of a whole clip."""
    return np.asarray(dataset.span(key, 0, dataset.duration_ns(key), ["pts"], sound=True)["sound"], float)


def rms(sound: np.ndarray) -> float:
    """Its level; of silence 0."""
    return float(np.sqrt((sound**2).mean()))
