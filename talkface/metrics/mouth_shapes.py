"""Errors of blendshapes: mouth (27 shapes of lip refinement, MagicTalk 3.3) and the rest of the face."""

import warnings
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from talkface.metrics.base import Comparison, Value, mean
from talkface.vocab import ARKIT, MOUTH

_MOUTH = np.array([name in MOUTH for name in ARKIT])
_JAW = ARKIT.index("jawOpen")


class Metric:
    """Mean absolute errors and correlation with the reference."""

    name = "mouth_shapes"
    needs = ("pairs", "arkit")
    describes = False
    values: Mapping[str, Value] = {
        "mouth_error": Value("0..1", "lower", "mean absolute error of the 27 mouth shapes"),
        "upper_face_error": Value("0..1", "lower", "mean absolute error of the other shapes"),
        "jaw_open_error": Value("0..1", "lower", "mean absolute error of jawOpen"),
        "jaw_open_correlation": Value("-1..1", "higher", "Pearson correlation of jawOpen, mean over clips"),
    }

    def compute(self, given: Comparison) -> dict[str, float]:
        """Mean over clips; frames and shapes that either side lacks are left out."""
        tables = [(a.columns["arkit"], b.columns["arkit"]) for a, b in given.pairs]
        errors = [np.abs(a - b) for a, b in tables]
        return {
            "mouth_error": mean([mean(e[:, _MOUTH]) for e in errors]),
            "upper_face_error": mean([mean(e[:, ~_MOUTH]) for e in errors]),
            "jaw_open_error": mean([mean(e[:, _JAW]) for e in errors]),
            "jaw_open_correlation": mean([correlation(a[:, _JAW], b[:, _JAW]) for a, b in tables]),
        }


def correlation(one: Float[np.ndarray, " n"], other: Float[np.ndarray, " n"]) -> float:
    """Pearson's r over what both know; NaN where either is constant or fewer than three are known."""
    known = np.isfinite(one) & np.isfinite(other)
    if known.sum() < 3 or np.ptp(one[known]) < 1e-9 or np.ptp(other[known]) < 1e-9:
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(np.corrcoef(one[known].astype(float), other[known].astype(float))[0, 1])
