"""How well a recording of blendshapes goes with what is seen in the pictures, and how far it is off in time."""

from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int64

from talkface.clip import Source
from talkface.motion.take import Take, read_take

STEP_NS = 10_000_000
REACH = 50
"""Shifts that are tried, to each side."""
STILL = 0.01
"""Standard deviation of the shapes, all together, below which a face says nothing about time."""


@lru_cache(maxsize=2)
def _read(uri: str, recording: tuple[str, ...], sha256: str) -> Take:
    return read_take(uri, recording)


def take_of(source: Source) -> Take:
    """The recording of a source, read once for all of its clips. Raises SourceError."""
    return _read(source.uri, source.recording, source.sha256)


def likeness(
    take: Take, seen: Float[np.ndarray, "frames 52"], times_ns: Int64[np.ndarray, " frames"]
) -> tuple[float, float]:
    """Correlation of recorded and seen shapes where they agree best, and how late the recording is there, in ms.

    Shapes count by how much they move. Both are NaN where too little moves or is known.
    """
    shifts = np.arange(-REACH, REACH + 1) * STEP_NS
    found = np.array([_correlation(take.at(times_ns + shift), seen) for shift in shifts])
    if not np.isfinite(found[REACH]):
        return float("nan"), float("nan")
    best = int(np.nanargmax(found))
    return float(found[best]), float((shifts[best] + STEP_NS * _peak(found, best)) / 1e6)


def _correlation(one: Float[np.ndarray, "frames 52"], other: Float[np.ndarray, "frames 52"]) -> float:
    known = np.isfinite(one).any(axis=1) & np.isfinite(other).any(axis=1)
    shapes = np.isfinite(other).any(axis=0)
    if known.sum() < max(10, len(known) // 2):
        return float("nan")
    a, b = one[known][:, shapes].astype(np.float64), other[known][:, shapes].astype(np.float64)
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    spread = [float(np.sqrt((v**2).sum(axis=1).mean())) for v in (a, b)]
    return float((a * b).sum(axis=1).mean() / (spread[0] * spread[1])) if min(spread) > STILL else float("nan")


def _peak(values: Float[np.ndarray, " shifts"], at: int) -> float:
    """Where between its neighbours a maximum lies, in steps, by the parabola through the three."""
    if not 0 < at < len(values) - 1:
        return 0.0
    left, middle, right = values[at - 1 : at + 2]
    bend = left - 2 * middle + right
    return float(0.5 * (left - right) / bend) if np.isfinite(bend) and bend < 0 else 0.0
