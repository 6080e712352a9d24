"""Blinks: how often the eyes shut, and for how long.

People blink 15 to 20 times a minute at rest and more while they talk (Bentivoglio et al. 1997: 17 and 26).
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int64

from talkface.clip import NS
from talkface.metrics.base import Comparison, Value, mean
from talkface.vocab import ARKIT

SHUT, OPEN = 0.45, 0.3
"""A blink begins above the one and ends below the other; MediaPipe's eyeBlink rarely reaches 0.8 on a shut eye."""
_EYES = [ARKIT.index("eyeBlinkLeft"), ARKIT.index("eyeBlinkRight")]


class Metric:
    """Rate and length of blinks."""

    name = "blinks"
    needs = ("arkit",)
    describes = True
    values: Mapping[str, Value] = {
        "blink_rate": Value("1/min", "as reference", "blinks a minute of known frames"),
        "blink_length": Value("ms", "as reference", "mean time from shut to open"),
    }

    def compute(self, given: Comparison) -> dict[str, float]:
        """Over all faces together."""
        found = [blinks(f.columns["arkit"][:, _EYES].mean(axis=1), f.pts_ns) for f in given.generated]
        minutes = sum(seconds for _, seconds in found) / 60
        lengths = np.concatenate([spans for spans, _ in found])
        rate = len(lengths) / minutes if minutes > 0 else float("nan")
        return {"blink_rate": rate, "blink_length": 1000 * mean(lengths)}


def blinks(
    closed: Float[np.ndarray, " frames"], pts_ns: Int64[np.ndarray, " frames"]
) -> tuple[Float[np.ndarray, " blinks"], float]:
    """Length of every blink in seconds, and how many seconds are known. A blink that a gap or an end cuts counts."""
    known = np.isfinite(closed)
    steps = np.diff(pts_ns, append=pts_ns[-1:] + _usual_step(pts_ns)) / NS
    lengths: list[float] = []
    shut = False
    for value, step in zip(closed, steps, strict=True):
        if shut and value >= OPEN:
            lengths[-1] += float(step)
        elif value > SHUT:
            lengths.append(float(step))
        shut = bool(value > SHUT or (shut and value >= OPEN))
    return np.array(lengths), float(steps[known].sum())


def _usual_step(pts_ns: Int64[np.ndarray, " frames"]) -> int:
    return int(np.median(np.diff(pts_ns))) if len(pts_ns) > 1 else NS // 25
