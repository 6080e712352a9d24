"""Jumps between sampling windows, as DREAM-Talk's Fig. 6 shows them.

Alg. 1 emits a window of N frames, then N - 1 frames of every further window. The step into the first new frame of a
window is compared with the steps inside windows: a ratio of 1 shows no seam.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float

from talkface.metrics.base import Comparison, Face, Value, mean


class Metric:
    """Steps across boundaries of windows against steps inside."""

    name = "boundary"
    needs = ("arkit",)
    describes = False
    values: Mapping[str, Value] = {
        "boundary_jump": Value("0..1 a frame", "lower", "mean absolute step of the shapes into a new window"),
        "inside_step": Value("0..1 a frame", "as reference", "mean absolute step inside windows"),
        "boundary_ratio": Value("", "lower", "the former over the latter; 1 where no seam shows"),
    }

    def compute(self, given: Comparison) -> dict[str, float]:
        """Over all steps of all faces. A face's provenance may state its own ``window`` and ``stride`` in frames."""
        across, inside = [], []
        for face in given.generated:
            step = steps(face)
            seam = seams(len(step), *_windows(face, given))
            across.append(step[seam])
            inside.append(step[~seam])
        jump, usual = mean(np.concatenate(across)), mean(np.concatenate(inside))
        ratio = jump / usual if usual > 0 else float("nan")
        return {"boundary_jump": jump, "inside_step": usual, "boundary_ratio": ratio}


def _windows(face: Face, given: Comparison) -> tuple[int, int]:
    window = int(face.provenance.get("window", given.window))
    return window, int(face.provenance.get("stride", window - 1 if "window" in face.provenance else given.stride))


def steps(face: Face) -> Float[np.ndarray, " steps"]:
    """Mean absolute change of the known shapes from each frame to the next."""
    change = np.abs(np.diff(face.columns["arkit"].astype(float), axis=0))
    known = np.isfinite(change)
    total = np.where(known, change, 0).sum(axis=1)
    return np.asarray(np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan))


def seams(n_steps: int, window: int, stride: int) -> Bool[np.ndarray, " steps"]:
    """Which steps lead from one window into the next: step i is from frame i to frame i + 1."""
    seam = np.zeros(n_steps, bool)
    seam[window - 1 :: stride] = True
    return seam
