"""How loud and how high the sound of a dataset's clips is."""

import numpy as np

from talkface.datasets.reader import Dataset


def sound_of(dataset: Dataset, key: str) -> np.ndarray:
    """Samples of a whole clip."""
    return np.asarray(dataset.span(key, 0, dataset.duration_ns(key), ["pts"], sound=True)["sound"], float)


def rms(sound: np.ndarray) -> float:
    """Its level; of silence 0."""
    return float(np.sqrt((sound**2).mean()))


def pitch(sound: np.ndarray) -> float:
    """Median frequency in Hz of a voice at 16 kHz, of its loud and voiced moments: the strongest period in 64 ms."""
    found = []
    for i in range(0, len(sound) - 1024, 320):
        piece = sound[i : i + 1024] * np.hanning(1024)
        echo = np.fft.irfft(np.abs(np.fft.rfft(piece, 2048)) ** 2)[: 16_000 // 70]
        period = 16_000 // 400 + int(echo[16_000 // 400 :].argmax())
        if rms(piece) > rms(sound) / 2 and echo[period] > echo[0] / 2:
            found.append(16_000 / period)
    return float(np.median(found))
