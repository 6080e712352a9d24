"""Errors of velocity: whether the face moves as fast as the reference, whatever its level.

Differences between neighbouring frames over the real time between them, so that frame rates compare.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int64

from talkface.clip import NS
from talkface.metrics.base import Comparison, Value, mean
from talkface.metrics.head_speed import turn_degrees
from talkface.vocab import ARKIT, MOUTH

_MOUTH = np.array([name in MOUTH for name in ARKIT])


class Metric:
    """Mean absolute errors of velocities."""

    name = "velocities"
    needs = ("pairs", "arkit")
    describes = False
    values: Mapping[str, Value] = {
        "mouth_velocity_error": Value("1/s", "lower", "mean absolute error of the mouth shapes' velocity"),
        "face_velocity_error": Value("1/s", "lower", "mean absolute error of all shapes' velocity"),
        "head_velocity_error": Value("degrees/s", "lower", "mean absolute error of the head's speed of rotation"),
    }

    def compute(self, given: Comparison) -> dict[str, float]:
        """Mean over clips; steps that either side lacks are left out."""
        shapes = [
            np.abs(velocity(a.columns["arkit"], a.pts_ns) - velocity(b.columns["arkit"], b.pts_ns))
            for a, b in given.pairs
        ]
        both = [(a, b) for a, b in given.pairs if a.has("head") and b.has("head")]
        turns = [
            np.abs(turn_degrees(a.columns["head"], a.pts_ns) - turn_degrees(b.columns["head"], b.pts_ns))
            for a, b in both
        ]
        return {
            "mouth_velocity_error": mean([mean(e[:, _MOUTH]) for e in shapes]),
            "face_velocity_error": mean([mean(e) for e in shapes]),
            "head_velocity_error": mean([mean(e) for e in turns]),
        }


def velocity(
    values: Float[np.ndarray, "frames channels"], pts_ns: Int64[np.ndarray, " frames"]
) -> Float[np.ndarray, "steps channels"]:
    """Change a second from each frame to the next."""
    return np.asarray(np.diff(values.astype(float), axis=0) / (np.diff(pts_ns)[:, None] / NS))
