"""FLAME's parameters of each frame, by DECA's coarse encoder (EMOdiffhead 3.1)."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, UInt8
from pydantic import Field

from talkface.annotate.base import AnnotatorConfig, ClipView, Result
from talkface.clip import ColumnSpec
from talkface.nets.deca import OUTPUT, cut_face, load_encoder, split
from talkface.nets.inference import AUTO, PictureNet, Precision, batches
from talkface.weights import Models

NAMES = (
    *(f"expression{i}" for i in range(OUTPUT["expression"])),
    *("global_x", "global_y", "global_z", "jaw_x", "jaw_y", "jaw_z"),
    *("camera_scale", "camera_x", "camera_y"),
)


class FlameConfig(AnnotatorConfig):
    """Settings of the flame annotator."""

    precision: Precision = Field(
        "float32",
        description="bfloat16: about twice as fast on a CPU with it; compare both on a clip of yours first; " + AUTO,
    )
    batch: int = Field(16, ge=1, description="pictures that go through the network at once")


class Annotator:
    """Columns ``flame``, NaN in frames without 68 points, and ``flame_shape``, NaN in a clip without any."""

    name = "flame"
    version = 1
    columns = (
        ColumnSpec(
            name="flame",
            dtype="float32",
            shape=(len(NAMES),),
            unit="see names; rotations axis-angle in rad",
            clock="frame",
            description="FLAME: expression 50, pose 6 (global 3, jaw 3), orthographic camera 3 (scale, x, y)",
            names=NAMES,
        ),
        ColumnSpec(
            name="flame_shape",
            dtype="float32",
            shape=(OUTPUT["shape"],),
            unit="deviations",
            clock="clip",
            description="FLAME's first 100 shape components, median over the clip's frames",
        ),
    )
    scores = ()
    needs = ("lm68",)
    reads = ("mp4",)
    weights = (("deca",),)
    licence = "Apache-2.0"
    on_gpu = True
    Config = FlameConfig

    def __init__(self, config: FlameConfig) -> None:
        self.config = config

    def open(self, models: Models) -> None:
        """Raises WeightsError if ``deca_model.tar`` cannot be had or is not DECA's."""
        self._net = PictureNet(load_encoder(models.get("deca")), self.config.precision)

    def clip(self, view: ClipView) -> Result:
        """The clip's ``flame`` and ``flame_shape``."""
        seen = np.isfinite(view.table.columns["lm68"]).all(axis=(1, 2))
        flame = np.full((len(seen), len(NAMES)), np.nan, np.float32)
        shape = np.full(OUTPUT["shape"], np.nan, np.float32)
        if seen.any():
            found = [split(self._net(np.stack(b))) for b in batches(faces(view, seen), self.config.batch)]
            rows = {name: np.concatenate([f[name].numpy() for f in found]) for name in OUTPUT}
            flame[seen] = np.concatenate([rows["expression"], rows["pose"], rows["camera"]], axis=1)
            shape = np.median(rows["shape"], axis=0).astype(np.float32)
        return Result(columns={"flame": flame, "flame_shape": shape})


def faces(view: ClipView, seen: Bool[np.ndarray, " frames"]) -> Iterator[UInt8[np.ndarray, "224 224 3"]]:
    """What the encoder sees of the frames with 68 points."""
    points = view.clip.to_crop(view.table.columns["lm68"].astype(np.float64))
    for picture, around, is_seen in zip(view.pictures(), points, seen, strict=True):
        if is_seen:
            yield cut_face(picture, around)
