"""Distance of FLAME's vertices between generated and reference faces.

The vertex error of MeshTalk (Richard et al., ICCV 2021) on the head of Li et al., SIGGRAPH Asia 2017. Both sides move
FLAME's mean head, which is not turned, so that faces of different people compare and the head's pose does not count.
The model does not say which vertices are lips; those that the jaw carries are chin and lower lip.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from jaxtyping import Float

from talkface.metrics.base import Comparison, FlameModel, Value, mean
from talkface.vocab import FLAME

MEAN_SHAPE: Final = np.zeros(100, np.float32)
PART: Final = 128
"""Frames at once: their vertices take 60 kB each."""


class Metric:
    """Distances of vertices of FLAME's head between generated and reference faces."""

    name = "flame_vertices"
    needs = ("pairs", "flame", "flame_model")
    describes = False
    values: Mapping[str, Value] = {
        "flame_vertex_mean": Value("mm", "lower", "mean distance of all vertices of FLAME's head"),
        "flame_jaw_mean": Value("mm", "lower", "mean distance of those that the jaw carries: chin and lower lip"),
    }

    def compute(self, given: Comparison) -> dict[str, float]:
        """Mean over clips."""
        assert given.flame_model is not None
        errors = [distances(given.flame_model, a.columns["flame"], b.columns["flame"]) for a, b in given.pairs]
        return {name: 1000 * mean([mean(e[:, i]) for e in errors]) for i, name in enumerate(self.values)}


def distances(
    model: FlameModel, generated: Float[np.ndarray, "frames 59"], reference: Float[np.ndarray, "frames 59"]
) -> Float[np.ndarray, "frames 2"]:
    """Mean distance of all vertices, and of the jaw's, in metres; NaN where either side is missing."""
    jaw, found = model.on_jaw(), []
    for start in range(0, len(generated), PART):
        a, b = (model.vertices(still(rows[start : start + PART]), MEAN_SHAPE) for rows in (generated, reference))
        apart = np.linalg.norm(a - b, axis=2)
        found.append(np.stack([apart.mean(axis=1), apart[:, jaw].mean(axis=1)], axis=1))
    return np.concatenate(found)


def still(rows: Float[np.ndarray, "frames 59"]) -> Float[np.ndarray, "frames 59"]:
    """The same faces, not turned; NaN stays."""
    upright = rows.copy()
    upright[:, FLAME["global"]] *= 0
    return upright
