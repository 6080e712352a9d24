"""Lip vertex error: the worst lip vertex of every frame.

Richard et al., "MeshTalk", ICCV 2021, section 4: the largest L2 error of all lip vertices of a frame, averaged over
frames. Both motions move the lips of the same built-in head, so that faces of different people compare.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from talkface.metrics.base import Comparison, Value, mean


class Metric:
    """Distances of lip vertices between generated and reference motion."""

    name = "lip_vertices"
    needs = ("pairs", "lips")
    describes = False
    values: Mapping[str, Value] = {
        "lip_vertex_error": Value("mm", "lower", "farthest lip vertex of a frame, mean over frames"),
        "lip_vertex_mean": Value("mm", "lower", "mean distance of all lip vertices"),
    }

    def compute(self, given: Comparison) -> dict[str, float]:
        """Mean over clips."""
        errors = [distances(a.columns["lips"], b.columns["lips"]) for a, b in given.pairs]
        return {
            "lip_vertex_error": 10 * mean([mean(e.max(axis=1)) for e in errors]),
            "lip_vertex_mean": 10 * mean([mean(e.mean(axis=1)) for e in errors]),
        }


def distances(
    generated: Float[np.ndarray, "frames vertices 3"], reference: Float[np.ndarray, "frames vertices 3"]
) -> Float[np.ndarray, "frames vertices"]:
    """Distance of every vertex in every frame; NaN where either is missing."""
    return np.asarray(np.linalg.norm(generated - reference, axis=2))
