"""ARKit blendshapes: those of the model that made the mesh, else our own small head on the mesh."""

from typing import Literal

import numpy as np
from pydantic import Field

from talkface.annotate._arkit_head import blendshapes
from talkface.annotate.base import AnnotatorConfig, ClipView, FaceView, Result, Rows
from talkface.clip import ColumnSpec, ScoreSpec
from talkface.vocab import ARKIT
from talkface.weights import Models

JAW_OPEN = ARKIT.index("jawOpen")


class ArkitConfig(AnnotatorConfig):
    """Settings of the arkit annotator."""

    head: Literal["auto", "model", "embedded"] = Field(
        "auto",
        description="auto: the model's blendshapes where its mesh comes with them, else our own head; "
        "model: fail without face_landmarker.task; embedded: always our own head (preview quality)",
    )


class Annotator:
    """52 blendshapes a frame, in Apple's order."""

    name = "arkit"
    version = 1
    columns = (
        ColumnSpec(
            name="arkit",
            dtype="float32",
            shape=(52,),
            unit="0..1",
            clock="frame",
            description="ARKit blendshapes in Apple's order; NaN where the source has none (tongueOut)",
            names=ARKIT,
        ),
    )
    scores = (
        ScoreSpec(
            name="jaw_open_range",
            unit="0..1",
            description="jawOpen's 95th less its 5th percentile: does the mouth move",
        ),
    )
    needs = ()
    reads = ()
    weights: tuple[tuple[str, ...], ...] = (("face_landmarker", "arkit_head"),)
    licence = "Apache-2.0"
    Config = ArkitConfig

    def __init__(self, config: ArkitConfig) -> None:
        self.config = config
        named = {"auto": self.weights, "model": (("face_landmarker",),), "embedded": (("arkit_head",),)}
        self.weights = named[config.head]

    def open(self, models: Models) -> None:
        """Raises WeightsError if the configuration asks for the model and it cannot be had."""
        if self.config.head == "model":
            models.get("face_landmarker")

    def frame(self, view: FaceView) -> Rows:
        """The row of a face that has a mesh."""
        if view.shapes is not None and self.config.head != "embedded":
            return {"arkit": view.shapes.astype(np.float32)}
        if view.mesh is not None and self.config.head != "model":
            return {"arkit": blendshapes(view.mesh[None])[0]}
        return {}

    def clip(self, view: ClipView) -> Result:
        """How far the jaw moves."""
        jaw = view.table.columns["arkit"][:, JAW_OPEN]
        jaw = jaw[np.isfinite(jaw)]
        low, high = np.percentile(jaw, (5, 95)) if len(jaw) > 0 else (np.nan, np.nan)
        return Result(scores={"jaw_open_range": float(high - low)})
