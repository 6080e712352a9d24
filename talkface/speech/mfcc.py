"""Mel cepstra as SyncNet and Light-ASD were trained on: those of the package python_speech_features, in float64.

25 ms without a window every 10 ms, pre-emphasis 0.97 over the 16-bit samples, 512-point power spectrum, 26 triangles
from 0 to 8 kHz on O'Shaughnessy's mel scale, 13 coefficients of the orthonormal cosine transform, liftered by 22; the
first is the log of the window's energy.
"""

from functools import cache

import numpy as np
import scipy.fft
from jaxtyping import Float, Int16

from talkface.vocab import SAMPLE_RATE

WINDOW, HOP, POINTS = 400, 160, 512
FILTERS, CEPSTRA, LIFTER = 26, 13, 22
PREEMPHASIS = 0.97
SMALLEST = np.finfo(float).eps
"""Stands for an energy of zero."""


def mfcc(sound: Int16[np.ndarray, " samples"]) -> Float[np.ndarray, "rows 13"]:
    """One row for each 10 ms; row i sees samples 160 i to 160 i + 400, zeros beyond the end. One row at least."""
    x = sound.astype(np.float64)
    x = np.concatenate([x[:1], x[1:] - PREEMPHASIS * x[:-1]])
    n_rows = 1 + max(0, -(-(len(x) - WINDOW) // HOP))
    padded = np.pad(x, (0, (n_rows - 1) * HOP + WINDOW - len(x)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    power = np.abs(scipy.fft.rfft(frames, POINTS, axis=1)) ** 2 / POINTS
    energy, bands = _not_zero(power.sum(axis=1)), _not_zero(power @ filters().T)
    cepstra = scipy.fft.dct(np.log(bands), axis=1, norm="ortho")[:, :CEPSTRA]
    cepstra *= 1 + LIFTER / 2 * np.sin(np.pi * np.arange(CEPSTRA) / LIFTER)
    cepstra[:, 0] = np.log(energy)
    return np.asarray(cepstra)


@cache
def filters() -> Float[np.ndarray, "26 257"]:
    """Triangles whose corners are whole bins of the spectrum."""
    highest = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    hz = 700 * (10 ** (np.linspace(0, highest, FILTERS + 2) / 2595) - 1)
    corners = np.floor((POINTS + 1) * hz / SAMPLE_RATE)
    low, peak, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    bins = np.arange(POINTS // 2 + 1)
    rising, falling = (bins - low) / (peak - low), (high - bins) / (high - peak)
    return np.where((bins >= low) & (bins < peak), rising, np.where((bins >= peak) & (bins < high), falling, 0.0))


def _not_zero(energies: np.ndarray) -> np.ndarray:
    return np.where(energies == 0, SMALLEST, energies)
