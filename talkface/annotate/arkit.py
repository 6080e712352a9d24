"""ARKit blendshapes: recorded beside the source, of the model that made the mesh, or of our own small head on it."""

from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field

from talkface.annotate._arkit_head import blendshapes
from talkface.annotate._recording import likeness, take_of
from talkface.annotate.base import AnnotatorConfig, ClipView, FaceView, Result, Rows
from talkface.clip import ColumnSpec, ScoreSpec
from talkface.vocab import ARKIT
from talkface.weights import Models

JAW_OPEN = ARKIT.index("jawOpen")

RECORDED = {
    "required": "ARKit blendshapes in Apple's order, recorded by Live Link Face; NaN where the recording has a gap",
    "preferred": "ARKit blendshapes in Apple's order, recorded by Live Link Face where recorded_share says so, else "
    "estimated from the pictures; NaN where the source has none",
}
"""What the column is where recordings take the place of estimates."""


class ArkitConfig(AnnotatorConfig):
    """Settings of the arkit annotator."""

    head: Literal["auto", "model", "embedded"] = Field(
        "auto",
        description="auto: the model's blendshapes where its mesh comes with them, else our own head; "
        "model: fail without face_landmarker.task; embedded: always our own head (preview quality)",
    )
    recording: Literal["off", "required", "preferred"] = Field(
        "off",
        description="required: values of the Live Link Face recording beside each source, which must have one; "
        "preferred: estimates where there is none (toolkit import)",
    )


class Annotator:
    """52 blendshapes a frame, in Apple's order."""

    name = "arkit"
    version = 1
    columns: tuple[ColumnSpec, ...] = (
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
    scores: tuple[ScoreSpec, ...] = (
        ScoreSpec(
            name="jaw_open_range",
            unit="0..1",
            description="jawOpen's 95th less its 5th percentile: does the mouth move",
        ),
        ScoreSpec(name="recorded_share", unit="0..1", description="share of the frames whose shapes were recorded"),
        ScoreSpec(
            name="recorded_likeness",
            unit="-1..1",
            description="correlation of recorded shapes with those seen in the pictures, where it is highest",
        ),
        ScoreSpec(
            name="recorded_lag_ms",
            unit="ms",
            description="how much later than its pictures the recording is, by that correlation; at most 500",
        ),
    )
    needs = ()
    reads = ()
    weights: tuple[tuple[str, ...], ...] = (("face_landmarker", "arkit_head"),)
    licence = "Apache-2.0"
    Config = ArkitConfig

    def __init__(self, config: ArkitConfig) -> None:
        self.config = config
        if config.recording == "off":
            self.scores = type(self).scores[:1]
        else:
            self.columns = (replace(type(self).columns[0], description=RECORDED[config.recording]),)
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
        """How far the jaw moves; where there is a recording the column itself, and how it goes with the pictures.

        Raises SourceError for a recording that cannot be read.
        """
        seen = view.table.columns["arkit"]
        if self.config.recording == "off":
            return Result(scores={"jaw_open_range": _jaw_open_range(seen)})
        if not view.clip.source.recording:
            return Result({"arkit": seen}, _scores(seen, 0.0, np.nan, np.nan))
        take, times_ns = take_of(view.clip.source), view.clip.start_ns + view.table.timeline.pts_ns
        recorded = take.at(times_ns)
        share = float(np.isfinite(recorded).any(axis=1).mean())
        return Result({"arkit": recorded}, _scores(recorded, share, *likeness(take, seen, times_ns)))


def _scores(arkit: Float[np.ndarray, "frames 52"], share: float, likeness_: float, lag_ms: float) -> dict[str, float]:
    values = {"recorded_share": share, "recorded_likeness": likeness_, "recorded_lag_ms": lag_ms}
    return {"jaw_open_range": _jaw_open_range(arkit)} | {name: float(value) for name, value in values.items()}


def _jaw_open_range(arkit: Float[np.ndarray, "frames 52"]) -> float:
    jaw = arkit[:, JAW_OPEN]
    jaw = jaw[np.isfinite(jaw)]
    low, high = np.percentile(jaw, (5, 95)) if len(jaw) > 0 else (np.nan, np.nan)
    return float(high - low)
