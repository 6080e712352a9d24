"""Whose face it is, as a vector that is alike for pictures of one person: for splits that keep people apart."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8
from pydantic import Field

from talkface.annotate.base import AnnotatorConfig, ClipView, Result
from talkface.clip import ColumnSpec, ScoreSpec
from talkface.errors import WeightsError
from talkface.weights import Models

FIVE_POINTS = (468, 473, 1, 61, 291)
"""Points of the mesh that stand for right eye, left eye, tip of the nose and corners of the mouth, right and left."""
SIDE = 112
"""Pixels of the aligned face."""


class IdentityConfig(AnnotatorConfig):
    """Settings of the identity annotator."""

    model: str = Field(
        "sface",
        description="entry of the model registry, or a folder with one .onnx for aligned faces, 112 x 112 RGB 0..255",
    )
    width: int = Field(128, ge=2, description="numbers that the model gives")
    frames: int = Field(8, ge=1, description="frames of a clip that are looked at, evenly spread")


class Annotator:
    """Column ``identity``, NaN in a clip without a mesh."""

    name = "identity"
    version = 1
    columns = (
        ColumnSpec(
            name="identity",
            dtype="float32",
            shape=(128,),
            unit="unit vector",
            clock="clip",
            description="mean of the frames' embeddings; the cosine of two clips is high for one person",
        ),
    )
    scores = (
        ScoreSpec(
            name="identity_agreement",
            unit="cosine",
            description="least agreement of a frame with the clip's identity; low where a track has changed its face",
        ),
    )
    needs = ("lm",)
    reads = ("mp4",)
    weights: tuple[tuple[str, ...], ...] = (("sface",),)
    licence = "Apache-2.0"
    Config = IdentityConfig

    def __init__(self, config: IdentityConfig) -> None:
        self.config = config
        self.weights = ((config.model,),)
        (spec,) = type(self).columns
        self.columns = (ColumnSpec(**{**vars(spec), "shape": (config.width,)}),)

    def open(self, models: Models) -> None:
        """Raises WeightsError if the model cannot be had or OpenCV cannot read it."""
        path = models.get(self.config.model)
        self._net = load_recognizer(path)
        width = _width(self._net, path)
        if width != self.config.width:
            raise WeightsError(
                f"identity: {path}: gives {width} numbers, the setting width says {self.config.width}. Correct it."
            )

    def clip(self, view: ClipView) -> Result:
        """The clip's ``identity``."""
        points = view.table.columns["lm"][:, FIVE_POINTS, :2]
        chosen = spread(np.flatnonzero(np.isfinite(points).all(axis=(1, 2))), self.config.frames)
        unknown = np.full(self.config.width, np.nan, np.float32)
        if len(chosen) == 0:
            return Result(columns={"identity": unknown}, scores={"identity_agreement": float("nan")})
        wanted = dict(zip(chosen.tolist(), view.clip.to_crop(points[chosen].astype(np.float64)), strict=True))
        faces = [self._embedded(p, wanted[i]) for i, p in enumerate(view.pictures()) if i in wanted]
        identity = unit(np.mean(faces, axis=0))
        return Result(
            columns={"identity": identity.astype(np.float32)},
            scores={"identity_agreement": float(np.min(np.stack(faces) @ identity))},
        )

    def _embedded(
        self, picture: UInt8[np.ndarray, "height width 3"], points: Float[np.ndarray, "5 2"]
    ) -> Float[np.ndarray, " k"]:
        bgr = np.ascontiguousarray(picture[..., ::-1])
        row = np.concatenate([np.zeros(4), points.ravel(), np.ones(1)]).astype(np.float32)[None]
        return unit(self._net.feature(self._net.alignCrop(bgr, row))[0].astype(np.float64))


def load_recognizer(path: Path) -> cv2.FaceRecognizerSF:
    """OpenCV's recognizer from a file, or from the one .onnx of a folder. Raises WeightsError for anything else."""
    files = sorted(path.glob("*.onnx")) if path.is_dir() else [path]
    if len(files) != 1:
        raise WeightsError(
            f"identity: {path}: expected one .onnx, found {len(files)}. Give a folder with one, or leave identity out."
        )
    try:
        return cv2.FaceRecognizerSF.create(str(files[0]), "")
    except cv2.error as error:
        raise WeightsError(
            f"identity: {files[0]}: not a network that OpenCV reads ({error.err}). Get the original, or leave identity "
            "out."
        ) from error


def _width(net: cv2.FaceRecognizerSF, path: Path) -> int:
    """How many numbers it gives. Raises WeightsError for a network of other pictures."""
    try:
        return int(net.feature(np.zeros((SIDE, SIDE, 3), np.uint8)).size)
    except cv2.error as error:
        raise WeightsError(
            f"identity: {path}: expected a network of RGB pictures of {SIDE} x {SIDE}; on these it fails "
            f"({' '.join(error.err.split())}). Give one that takes them, or leave identity out."
        ) from error


def spread(frames: Int[np.ndarray, " n"], count: int) -> Int[np.ndarray, " m"]:
    """At most ``count`` of these, evenly spread."""
    places = (np.arange(min(count, len(frames))) + 0.5) * len(frames) / max(1, min(count, len(frames)))
    return frames[places.astype(int)]


def unit(vector: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """At length 1; a vector of zeros stays."""
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12))
