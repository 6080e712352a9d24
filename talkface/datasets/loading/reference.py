"""Frames of the same clip that show a model who it is about, away from the window."""

from typing import Final

import numpy as np
from jaxtyping import Int64

REFERENCE: Final = "reference_"
"""What the names of the reference frames' arrays begin with."""


def far_frames(
    n: int, first: int, last: int, margin: int, count: int, rng: np.random.Generator
) -> Int64[np.ndarray, " count"]:
    """``count`` of a clip's ``n`` frames at random, ``margin`` frames or more from the window ``first`` .. ``last``.

    Where no frame is so far away it is the farthest one (drawn, where several are). Frames repeat only where there are
    fewer than ``count``.
    """
    frames = np.arange(n)
    away = np.maximum(np.maximum(first - frames, frames - last), 0)
    far = np.flatnonzero(away >= min(margin, int(away.max())))
    chosen: np.ndarray = rng.choice(far, count, replace=len(far) < count)
    return chosen
