"""How well a face can be seen: sharpness, brightness, size, company, coverage."""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from talkface.annotate.base import AnnotatorConfig, ClipView, FaceView, Result, Rows
from talkface.clip import ColumnSpec, ScoreSpec
from talkface.weights import Models

SIDE = 192
NAMES = ("sharpness", "brightness", "face_pixels", "n_faces", "has_mesh")


class QualityConfig(AnnotatorConfig):
    """Nothing to set: thresholds on the scores belong to the build."""


class Annotator:
    """Scores of the clip from a measurement in each frame; the measurements themselves are not stored."""

    name = "quality"
    version = 1
    columns = (
        ColumnSpec(
            name="quality",
            dtype="float32",
            shape=(len(NAMES),),
            unit="see names",
            clock="frame",
            description="what the scores are made of, frame by frame",
            names=NAMES,
            stored=False,
        ),
    )
    scores = (
        ScoreSpec(
            name="sharpness",
            unit="ratio",
            description="median; deviation of the Laplacian over that of luma, box at 192 x 192; low is blurred",
        ),
        ScoreSpec(name="brightness", unit="0..255", description="median over the frames of the box's mean luma"),
        ScoreSpec(name="face_pixels", unit="px", description="median longer side of the face box"),
        ScoreSpec(name="faces_median", unit="faces", description="median number of faces in the picture"),
        ScoreSpec(name="faces_max", unit="faces", description="largest number of faces in the picture"),
        ScoreSpec(name="coverage", unit="0..1", description="share of the frames with a face and its mesh"),
    )
    needs = ()
    reads = ()
    weights = ()
    licence = "Apache-2.0"
    Config = QualityConfig

    def __init__(self, config: QualityConfig) -> None:
        self.config = config

    def open(self, models: Models) -> None:
        """Nothing to load."""

    def frame(self, view: FaceView) -> Rows:
        """The frame's ``quality``: sharpness and brightness are NaN where the box misses the picture."""
        box = view.box[:4]
        face = crop(view.pixels, box)
        longer = max(box[2] - box[0], box[3] - box[1])
        seen = (np.nan, np.nan) if face.size == 0 else look(face)
        return {"quality": np.array([*seen, longer, view.n_faces, view.mesh is not None], np.float32)}

    def clip(self, view: ClipView) -> Result:
        """The clip's scores; without one face all but ``coverage`` are NaN."""
        by_name = dict(zip(NAMES, view.table.columns["quality"].T, strict=True))
        medians = {name: _median(by_name[name]) for name in ("sharpness", "brightness", "face_pixels")}
        faces = by_name["n_faces"]
        has_mesh = by_name["has_mesh"] == 1
        return Result(
            scores={
                **medians,
                "faces_median": _median(faces),
                "faces_max": float(np.nanmax(faces)) if np.isfinite(faces).any() else float("nan"),
                "coverage": float(has_mesh.mean()) if len(has_mesh) else float("nan"),
            }
        )


def crop(pixels: UInt8[np.ndarray, "height width 3"], box: Float[np.ndarray, " 4"]) -> UInt8[np.ndarray, "h w 3"]:
    """The part of the picture inside the box; empty where they do not meet."""
    height, width = pixels.shape[:2]
    x0, x1 = np.clip(np.round(box[[0, 2]]).astype(int), 0, width)
    y0, y1 = np.clip(np.round(box[[1, 3]]).astype(int), 0, height)
    return pixels[y0:y1, x0:x1]


def look(face: UInt8[np.ndarray, "h w 3"]) -> tuple[float, float]:
    """Sharpness and brightness of a face.

    Both are measured on luma at 192 x 192 pixels: a face of the same detail scores the same at any size above that, a
    smaller one is enlarged and scores as blurred. Sharpness is the deviation of the Laplacian (Pech-Pacheco et al.,
    ICPR 2000; after a Gaussian of 1 pixel, against noise) over the deviation of luma, so that neither light nor
    contrast changes it; 0 for a flat picture. On real faces 0.07 to 0.15 as filmed, 0.02 to 0.03 after a Gaussian blur
    of a 50th of the face.
    """
    while min(face.shape[:2]) >= 2 * SIDE:
        face = cv2.resize(face, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    luma = cv2.resize(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(np.float32), (SIDE, SIDE))
    mean, contrast = _mean_deviation(luma)
    _, detail = _mean_deviation(cv2.Laplacian(cv2.GaussianBlur(luma, (5, 5), 1.0), cv2.CV_32F))
    return (detail / contrast if contrast > 0 else 0.0), mean


def _mean_deviation(values: Float[np.ndarray, "h w"]) -> tuple[float, float]:
    mean, deviation = cv2.meanStdDev(values)
    return float(mean[0, 0]), float(deviation[0, 0])


def _median(values: Float[np.ndarray, " frames"]) -> float:
    return float(np.nanmedian(values)) if np.isfinite(values).any() else float("nan")
