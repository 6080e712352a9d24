"""Mouth and sound: how the mouth's opening follows the sound's energy, and whether their beats coincide.

Beat alignment as in Li et al., "AI Choreographer", ICCV 2021, with beats of mouth and voice instead of dance and music:
the mean over the mouth's beats of exp(-d^2 / 2 sigma^2), d the time to the nearest beat of the sound, sigma three
frames at 60 a second. A beat is a peak of the opening's speed, and of the energy's rise.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int16, Int64
from scipy.signal import find_peaks

from talkface.clip import NS
from talkface.metrics.base import Comparison, Face, Value, mean
from talkface.metrics.mouth_shapes import correlation
from talkface.vocab import ARKIT, SAMPLE_RATE

SIGMA_SECONDS = 3 / 60
LAGS_NS = np.arange(-300, 301, 20) * (NS // 1000)
_WINDOW = SAMPLE_RATE // 20
_FLOOR_DB = -60.0
_JAW, _CLOSE = ARKIT.index("jawOpen"), ARKIT.index("mouthClose")


class Metric:
    """Correlation, lag and beats of mouth and sound."""

    name = "beat"
    needs = ("arkit", "sound")
    describes = True
    values: Mapping[str, Value] = {
        "mouth_energy_correlation": Value("-1..1", "higher", "Pearson r of the mouth's opening and the sound's dB"),
        "mouth_energy_best": Value("-1..1", "higher", "the same at the lag that suits it best, within 300 ms"),
        "mouth_energy_lag": Value("ms", "as reference", "that lag: positive where the mouth comes after the sound"),
        "beat_alignment": Value("0..1", "higher", "mouth beats near a sound beat"),
    }

    def compute(self, given: Comparison) -> dict[str, float]:
        """Mean over faces."""
        rows = [_of(face) for face in given.generated]
        return {name: mean([row[i] for row in rows]) for i, name in enumerate(self.values)}


def _of(face: Face) -> tuple[float, float, float, float]:
    assert face.sound is not None
    opening = mouth_opening(face.columns["arkit"])
    at_lag = [correlation(opening, loudness(face.sound, face.pts_ns - int(lag))) for lag in LAGS_NS]
    best = int(np.nanargmax(at_lag)) if np.isfinite(at_lag).any() else 0
    lag = LAGS_NS[best] / 1e6 if np.isfinite(at_lag[best]) else np.nan
    aligned = beat_alignment(mouth_beats(opening, face.pts_ns), sound_beats(face.sound))
    return at_lag[len(LAGS_NS) // 2], at_lag[best], lag, aligned


def mouth_opening(arkit: Float[np.ndarray, "frames 52"]) -> Float[np.ndarray, " frames"]:
    """How far the lips part: jawOpen less mouthClose."""
    return np.asarray(arkit[:, _JAW] - np.nan_to_num(arkit[:, _CLOSE]))


def loudness(
    sound: Int16[np.ndarray, " samples"], times_ns: Int64[np.ndarray, " times"]
) -> Float[np.ndarray, " times"]:
    """Energy in dB of the 50 ms around each time, not below -60; NaN outside the sound."""
    total = np.concatenate([[0.0], np.cumsum((sound.astype(float) / 32768) ** 2)])
    centre = np.round(times_ns * (SAMPLE_RATE / NS)).astype(int)
    low, high = np.clip(centre - _WINDOW // 2, 0, len(sound)), np.clip(centre + _WINDOW // 2, 0, len(sound))
    energy = (total[high] - total[low]) / np.maximum(high - low, 1)
    decibels = 10 * np.log10(np.maximum(energy, 10 ** (_FLOOR_DB / 10)))
    return np.asarray(np.where((centre >= 0) & (centre <= len(sound)), decibels, np.nan))


def mouth_beats(
    opening: Float[np.ndarray, " frames"], pts_ns: Int64[np.ndarray, " frames"]
) -> Float[np.ndarray, " beats"]:
    """Seconds at which the mouth opens fastest."""
    if len(opening) < 3:
        return np.zeros(0)
    seconds = pts_ns / NS
    speed = np.nan_to_num(np.diff(opening) / np.diff(seconds))
    peaks, _ = find_peaks(speed, height=0.5, prominence=0.5)
    return np.asarray((seconds[peaks] + seconds[peaks + 1]) / 2)


def sound_beats(sound: Int16[np.ndarray, " samples"]) -> Float[np.ndarray, " beats"]:
    """Seconds at which the sound grows louder fastest."""
    step_ns = 10_000_000
    times = np.arange(0, len(sound) * NS // SAMPLE_RATE, step_ns, dtype=np.int64)
    if len(times) < 5:
        return np.zeros(0)
    rise = np.convolve(np.diff(loudness(sound, times)), np.ones(3) / 3, "same")
    peaks, _ = find_peaks(rise, height=0.5, prominence=0.5, distance=8)
    return np.asarray((times[peaks] + step_ns / 2) / NS)


def beat_alignment(mouth: Float[np.ndarray, " mouth"], sound: Float[np.ndarray, " sound"]) -> float:
    """0..1; NaN where either has no beat."""
    if len(mouth) == 0 or len(sound) == 0:
        return float("nan")
    nearest = np.abs(mouth[:, None] - sound[None, :]).min(axis=1)
    return float(np.exp(-(nearest**2) / (2 * SIGMA_SECONDS**2)).mean())
