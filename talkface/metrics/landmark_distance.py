"""Landmark distance on the whole face (F-LMD) and on the mouth (M-LMD).

F-LMD as DREAM-Talk and MagicTalk report it: mean distance of the 68 points, here in a face crop of 256 pixels. M-LMD
as in Chen et al., "Lip Movements Generation at a Glance", ECCV 2018: the mouth's 20 points after their centres are laid
on each other. Landmarks are real ones (``lm68``) where both sides have pictures, and those of the built-in head
(``rig68``) moved by both motions. Numbers of the two kinds do not compare.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from talkface.metrics.base import Comparison, Value, mean

MOUTH68 = slice(48, 68)


class Metric:
    """Distances of 68 landmarks between generated and reference faces."""

    name = "landmark_distance"
    needs = ("pairs",)
    describes = False
    values: Mapping[str, Value] = {
        "f_lmd": Value("px of 256", "lower", "68 points found in the pictures"),
        "m_lmd": Value("px of 256", "lower", "mouth points found in the pictures, centred"),
        "f_lmd_rig": Value("px of 256", "lower", "68 points of the built-in head moved by both motions"),
        "m_lmd_rig": Value("px of 256", "lower", "mouth points of the built-in head, centred"),
    }

    def compute(self, given: Comparison) -> dict[str, float]:
        """Mean over clips."""
        found = {}
        for column, ending in (("lm68", ""), ("rig68", "_rig")):
            both = [(a.columns[column], b.columns[column]) for a, b in given.pairs if a.has(column) and b.has(column)]
            found["f_lmd" + ending] = mean([mean(face_distance(a, b)) for a, b in both])
            found["m_lmd" + ending] = mean([mean(mouth_distance(a, b)) for a, b in both])
        return found


def face_distance(
    one: Float[np.ndarray, "frames 68 2"], other: Float[np.ndarray, "frames 68 2"]
) -> Float[np.ndarray, " frames"]:
    """Mean distance of the points of every frame."""
    return np.asarray(np.linalg.norm(one - other, axis=2).mean(axis=1))


def mouth_distance(
    one: Float[np.ndarray, "frames 68 2"], other: Float[np.ndarray, "frames 68 2"]
) -> Float[np.ndarray, " frames"]:
    """Mean distance of the mouth's points of every frame, their centres laid on each other."""
    a, b = one[:, MOUTH68], other[:, MOUTH68]
    centred = (a - a.mean(axis=1, keepdims=True)) - (b - b.mean(axis=1, keepdims=True))
    return np.asarray(np.linalg.norm(centred, axis=2).mean(axis=1))
