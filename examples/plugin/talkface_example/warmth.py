"""How warm the light on a face is: the share of red among red and blue, over the clip's crop."""

from typing import Any

import numpy as np

from talkface.annotate.base import AnnotatorConfig, ClipView, Result
from talkface.clip import ColumnSpec, ScoreSpec, finite_rows
from talkface.weights import Models


class WarmthConfig(AnnotatorConfig):
    """No settings."""


class Annotator:
    """A number a frame, and their median as a score."""

    name = "warmth"
    version = 1
    columns = (
        ColumnSpec(
            name="warmth", dtype="float32", shape=(1,), unit="0..1", clock="frame",
            description="share of red among red and blue light in the crop",
        ),
    )  # fmt: skip
    scores = (ScoreSpec(name="warmth", unit="0..1", description="median of warmth over the clip"),)
    needs = ("box",)
    reads = ("mp4",)
    weights = ()
    licence = "Apache-2.0"
    Config = WarmthConfig

    def __init__(self, config: Any) -> None:
        self.config = config

    def open(self, models: Models) -> None:
        """Nothing to load."""

    def clip(self, view: ClipView) -> Result:
        """Of every picture with a face; black ones have none."""
        sums = np.array([picture.sum(axis=(0, 1), dtype=np.float64) for picture in view.pictures()])
        light = sums[:, 0] + sums[:, 2]
        seen = finite_rows(view.table.columns["box"]) & (light > 0)
        share = np.divide(sums[:, 0], light, out=np.full(len(sums), np.nan), where=seen)
        score = float(np.nanmedian(share)) if np.isfinite(share).any() else float("nan")
        return Result({"warmth": share[:, None].astype(np.float32)}, {"warmth": score})
