"""Linearity of emotion intensity (FLIE): whether a stronger emotion changes the face by equal steps.

EMOdiffhead, Eq. 20, on mean expression vectors of clips with rising intensity: d_ij is the change of dimension j from
intensity i - 1 to i; the coefficients of variation of d over i are summed over j. As printed the mean may be negative
or 0; ``flie`` takes ``std / (|mean| + eps)`` and is 0 on a straight line, ``flie_eq20`` follows the text. Never compare
across numbers of levels. LIE is the same with LPIPS between pictures, whose weights are not here.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from talkface.metrics.base import Comparison, Face, Value, mean

EPS = 1e-6
_FLAME = slice(0, 50)


class Metric:
    """FLIE on FLAME's expressions and on ARKit's shapes."""

    name = "intensity"
    needs = ("arkit",)
    describes = True
    values: Mapping[str, Value] = {
        "flie_flame": Value("", "lower", "on FLAME's 50 expressions"),
        "flie_arkit": Value("", "lower", "on ARKit's shapes"),
        "intensity_levels": Value("", "as reference", "levels with neutral, mean over speakers and emotions"),
    }

    def compute(self, given: Comparison) -> dict[str, float]:
        """Mean over speakers and emotions that have three levels or more, neutral included; others are left out."""
        ladders = ladders_of(given.generated)
        return {
            "flie_flame": mean([flie(_vectors(rungs, "flame", _FLAME)) for rungs in ladders]),
            "flie_arkit": mean([flie(_vectors(rungs, "arkit", slice(None))) for rungs in ladders]),
            "intensity_levels": mean([len(rungs) for rungs in ladders]),
        }


def ladders_of(faces: Sequence[Face]) -> list[list[list[Face]]]:
    """For each speaker and emotion its faces by rising intensity, neutral first where there is one."""
    found: dict[tuple[object, str], dict[int, list[Face]]] = {}
    neutral: dict[object, list[Face]] = {}
    for face in faces:
        speaker, emotion, level = (face.labels.get(k) for k in ("speaker", "emotion", "intensity"))
        if emotion == "neutral":
            neutral.setdefault(speaker, []).append(face)
        elif emotion and level:
            found.setdefault((speaker, emotion), {}).setdefault(int(level), []).append(face)
    ladders = []
    for (speaker, _), levels in found.items():
        rungs = [levels[level] for level in sorted(levels)]
        ladders.append([neutral[speaker], *rungs] if speaker in neutral else rungs)
    return [rungs for rungs in ladders if len(rungs) >= 3]


def _vectors(rungs: Sequence[Sequence[Face]], column: str, part: slice) -> Float[np.ndarray, "levels d"]:
    if not all(face.has(column) for rung in rungs for face in rung):
        return np.zeros((0, 0))
    tables = [np.concatenate([f.columns[column][:, part] for f in rung]).astype(float) for rung in rungs]
    known = np.all([np.isfinite(t).any(axis=0) for t in tables], axis=0)
    return np.stack([np.nanmean(t[:, known], axis=0) for t in tables])


def flie(vectors: Float[np.ndarray, "levels d"]) -> float:
    """0 where the mean vectors rise on a straight line by equal steps; NaN for fewer than three levels."""
    if len(vectors) < 3:
        return float("nan")
    change = np.diff(vectors, axis=0)
    return float((change.std(axis=0) / (np.abs(change.mean(axis=0)) + EPS)).sum())


def flie_eq20(vectors: Float[np.ndarray, "levels d"]) -> float:
    """The printed equation, its sign and poles included."""
    change = np.diff(vectors, axis=0)
    return float((change.std(axis=0) / change.mean(axis=0)).sum())
