"""Steadiness: how much blendshapes change from frame to frame."""

from collections.abc import Mapping

import numpy as np

from talkface.metrics.base import Comparison, Value, mean


class Metric:
    """Mean change of a blendshape between neighbouring frames."""

    name = "steadiness"
    needs = ("arkit",)
    describes = True
    values: Mapping[str, Value] = {
        "frame_change": Value("0..1", "as reference", "mean absolute change of a blendshape from frame to frame")
    }

    def compute(self, given: Comparison) -> dict[str, float]:
        """Over all faces together."""
        changes = [np.abs(np.diff(face.columns["arkit"], axis=0)).ravel() for face in given.generated]
        return {"frame_change": mean(np.concatenate(changes)) if changes else float("nan")}
