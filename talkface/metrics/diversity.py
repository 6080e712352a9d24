"""Diversity: how different several motions for one sound are, and how much each moves.

As the multimodality of Guo et al., "Action2Motion", 2020: the mean distance over pairs of motions that have the same
condition, here the same sound: by their provenance's ``sound_sha256``, else by the sound itself.
"""

import hashlib
from collections.abc import Mapping
from itertools import combinations

import numpy as np

from talkface.metrics.base import Comparison, Face, Value, mean
from talkface.metrics.faces import at_times


class Metric:
    """Differences between variants, and spread over time."""

    name = "diversity"
    needs = ("arkit",)
    describes = True
    values: Mapping[str, Value] = {
        "diversity": Value("0..1", "higher", "distance of frames between motions for the same sound, root mean square"),
        "expression_spread": Value("0..1", "as reference", "standard deviation over time, mean over shapes and faces"),
    }

    def compute(self, given: Comparison) -> dict[str, float]:
        """Over all pairs of variants; NaN for ``diversity`` where no sound has two motions."""
        groups: dict[str, list[Face]] = {}
        for face in given.generated:
            groups.setdefault(_sound_of(face), []).append(face)
        apart = [distance(a, b) for group in groups.values() for a, b in combinations(group, 2)]
        return {"diversity": mean(apart), "expression_spread": mean([spread(f) for f in given.generated])}


def _sound_of(face: Face) -> str:
    told = face.provenance.get("sound_sha256")
    if told or face.sound is None:
        return str(told or face.key)
    return hashlib.sha256(face.sound.tobytes()).hexdigest()


def distance(one: Face, other: Face) -> float:
    """Root mean square over shapes of the difference of two motions at the same times, mean over frames."""
    difference = one.columns["arkit"] - at_times(other, one.pts_ns).columns["arkit"]
    known = np.isfinite(difference)
    squares = np.where(known, difference, 0) ** 2
    return mean(np.sqrt(squares.sum(axis=1) / np.maximum(known.sum(axis=1), 1))[known.any(axis=1)])


def spread(face: Face) -> float:
    """Standard deviation over time of each shape, mean over shapes."""
    table = face.columns["arkit"]
    return mean([np.nanstd(c) for c in table.T if np.isfinite(c).any()])
