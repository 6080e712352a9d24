"""Speed of the head's rotation: mean, variance within clips, variance of the means (VMV).

Tian et al., EMO, 2024, Table 2: the angle in degrees by which the head turns between frames. "Velocity variance" is the
mean over clips of the variance within a clip, "variance of mean velocities" the variance over clips of their means. EMO
counts a frame; here it is 40 ms (25 frames a second), whatever the rate of the clip.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int64

from talkface.clip import NS
from talkface.metrics.base import Comparison, Value, mean

FRAME_SECONDS = 0.04


class Metric:
    """EMO's Table 2."""

    name = "head_speed"
    needs = ("head",)
    describes = True
    values: Mapping[str, Value] = {
        "head_velocity": Value("degrees/40 ms", "as reference", "mean over clips of the mean speed"),
        "head_velocity_variance": Value("(degrees/40 ms)^2", "as reference", "mean over clips of the variance"),
        "head_vmv": Value("(degrees/40 ms)^2", "as reference", "variance over clips of the mean speed (VMV)"),
    }

    def compute(self, given: Comparison) -> dict[str, float]:
        """Over faces; VMV needs two."""
        speeds = [turn_degrees(f.columns["head"], f.pts_ns) * FRAME_SECONDS for f in given.generated]
        known = [s[np.isfinite(s)] for s in speeds]
        known = [s for s in known if len(s) > 0]
        means = [float(s.mean()) for s in known]
        return {
            "head_velocity": mean(means),
            "head_velocity_variance": mean([float(s.var()) for s in known]),
            "head_vmv": float(np.var(means)) if len(means) > 1 else float("nan"),
        }


def turn_degrees(
    head: Float[np.ndarray, "frames parts"], pts_ns: Int64[np.ndarray, " frames"]
) -> Float[np.ndarray, " steps"]:
    """Speed of rotation in degrees a second from each frame to the next, by the shorter way; NaN beside a gap."""
    q = head[:, :4].astype(float)
    q = q / np.linalg.norm(q, axis=1, keepdims=True)
    apart = np.minimum(np.linalg.norm(q[1:] - q[:-1], axis=1), np.linalg.norm(q[1:] + q[:-1], axis=1))
    angle = 4 * np.arcsin(np.clip(apart / 2, 0, 1))
    return np.asarray(np.degrees(angle) / (np.diff(pts_ns) / NS))
