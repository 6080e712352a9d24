"""MediaPipe's 478-point face mesh, and the 68 iBUG points by mapping. The one user of MediaPipe's landmarkers.

The mesh is found in a region of the picture by a model without memory: a square that somebody names, or the
surroundings of the mesh of the frame before. A frame's points depend on that frame and region alone.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from talkface.annotate.base import AnnotatorConfig, FaceView, Rows
from talkface.clip import ColumnSpec
from talkface.errors import WeightsError
from talkface.face_mesh import IBUG68
from talkface.vocab import ARKIT
from talkface.weights import Models

WEIGHTS: Final = ("face_landmarker", "mediapipe_facemesh")
"""What ``FaceMesh`` can use, the better first."""

FULL_SIDE: Final = 384
"""Regions are halved as long as they keep this many pixels: the model looks at 256, or at 320 of them turned."""
FOLLOW_SIDE: Final = 160
"""The same for a mesh's longer side: a region is up to 2.1 times that."""
FOLLOW_SCALE: Final = 2.2
"""Side, in sides of the mesh, of the square that holds the region of the next frame however it is turned."""


class LandmarksConfig(AnnotatorConfig):
    """Nothing to set: the tracker finds the mesh."""


class Annotator:
    """The mesh that the tracker followed, and 68 of its points."""

    name = "landmarks"
    version = 1
    columns = (
        ColumnSpec(
            name="lm",
            dtype="float32",
            shape=(478, 3),
            unit="px",
            clock="frame",
            description="MediaPipe's face mesh in source pixels; z in the same scale, smaller is nearer, 0 mid-head",
        ),
        ColumnSpec(
            name="lm68",
            dtype="float32",
            shape=(68, 2),
            unit="px",
            clock="frame",
            description="68 points in iBUG's order in source pixels, picked from the mesh (the jaw is the mesh's own)",
        ),
    )
    scores = ()
    needs = ()
    reads = ()
    weights = (WEIGHTS,)
    licence = "Apache-2.0"
    Config = LandmarksConfig

    def __init__(self, config: LandmarksConfig) -> None:
        self.config = config

    def open(self, models: Models) -> None:
        """Nothing to load: the tracker runs the model."""

    def frame(self, view: FaceView) -> Rows:
        """``lm`` and ``lm68`` of a face with a mesh."""
        if view.mesh is None:
            return {}
        return {"lm": view.mesh, "lm68": ibug68(view.mesh)}


@dataclass(frozen=True)
class Mesh:
    """One face: 478 points in source pixels (z in the same scale), and blendshapes where the model has them.

    ``shapes`` has Apple's order (``vocab.ARKIT``), 0..1, NaN for tongueOut, which the model does not know.
    """

    points: Float[np.ndarray, "478 3"]
    shapes: Float[np.ndarray, " 52"] | None = None

    @cached_property
    def box(self) -> Float[np.ndarray, " 4"]:
        """Tight box x0 y0 x1 y1 in source pixels."""
        return mesh_box(self.points)


class FaceMesh:
    """Finds the mesh of the one face in a region of a picture.

    ``task`` is ``face_landmarker.task``: mesh and blendshapes. None takes the mesh that mediapipe 0.10.21 carries in
    its wheel, which has no blendshapes; raises WeightsError with a mediapipe that carries none.
    """

    weights = WEIGHTS

    def __init__(self, task: Path | None) -> None:
        self._warm = False
        with quiet():
            self._find = _solutions() if task is None else _networks(task)
            self._find(np.zeros((256, 256, 3), np.uint8))
        self.runtime: str = getattr(self._find, "runtime", "MediaPipe")
        self._follow: Follow | None = getattr(self._find, "follow", None)

    def detect(self, pixels: UInt8[np.ndarray, "height width 3"], roi: Float[np.ndarray, " 4"]) -> Mesh | None:
        """The face in the square ``roi`` (x0 y0 x1 y1 in pixels, may reach outside: black) of an RGB picture."""
        origin, side = _square(roi)
        with nullcontext() if self._warm else quiet():
            found = self._find(shrink(cut_square(pixels, origin, side), halved(side, FULL_SIDE)))
        if found is None:
            return None
        self._warm = True
        points, shapes = found
        points *= side
        points[:, :2] += origin
        return Mesh(points, shapes)

    def follow(self, pixels: UInt8[np.ndarray, "height width 3"], last: Mesh) -> Mesh | None:
        """The face that had the mesh ``last`` in the frame before. None where it is not there any more, or where the
        model at hand cannot follow: then ``detect`` has to look."""
        if self._follow is None:
            return None
        longer = float((last.box[2:] - last.box[:2]).max())
        times = halved(longer, FOLLOW_SIDE)
        origin, side = (last.box[:2] + last.box[2:] - FOLLOW_SCALE * longer) / 2, FOLLOW_SCALE * longer
        x0, y0 = np.clip(origin, 0, pixels.shape[1::-1]).astype(int)
        x1, y1 = np.clip(origin + side, 0, pixels.shape[1::-1]).astype(int)
        part = pixels[y0 : y1 - (y1 - y0) % times, x0 : x1 - (x1 - x0) % times]
        if part.size == 0:
            return None
        small = part if times == 1 else shrink(part, times)
        found = self._follow(small, (last.points - [x0, y0, 0]) / times)
        return None if found is None else Mesh(found[0] * times + [x0, y0, 0], found[1])


Found = tuple[Float[np.ndarray, "478 3"], Float[np.ndarray, " 52"] | None]
"""Points in sides of the region, and blendshapes."""
Find = Callable[[UInt8[np.ndarray, "side side 3"]], Found | None]
Follow = Callable[[UInt8[np.ndarray, "height width 3"], Float[np.ndarray, "478 3"]], Found | None]
"""From a picture and the points a frame ago; all points in its pixels."""


def mesh_box(points: Float[np.ndarray, "478 3"]) -> Float[np.ndarray, " 4"]:
    """Tight box x0 y0 x1 y1 around a mesh."""
    xy = np.ascontiguousarray(points[:, :2].T)  # numpy is quick along the last axis only
    return np.concatenate([xy.min(axis=1), xy.max(axis=1)])


def ibug68(points: Float[np.ndarray, "478 3"]) -> Float[np.ndarray, "68 2"]:
    """The 68 points of the mesh that lie where iBUG's annotators put theirs."""
    return points[IBUG68, :2]


def cut_square(
    pixels: UInt8[np.ndarray, "height width 3"], origin: tuple[int, int], side: int
) -> UInt8[np.ndarray, "side side 3"]:
    """The square at ``origin`` (x, y); black outside the picture."""
    (x0, y0), (height, width) = origin, pixels.shape[:2]
    (left, right), (top, bottom) = _inside(x0, side, width), _inside(y0, side, height)
    inside = pixels[y0 + top : y0 + bottom, x0 + left : x0 + right]
    if inside.shape[:2] == (side, side):
        return inside
    if inside.size == 0:
        return np.zeros((side, side, 3), np.uint8)
    return np.asarray(cv2.copyMakeBorder(inside, top, side - bottom, left, side - right, cv2.BORDER_CONSTANT))


def _inside(start: int, side: int, length: int) -> tuple[int, int]:
    """Which of ``side`` pixels from ``start`` on lie in a picture of this length: the first, and the one after."""
    first = min(max(-start, 0), side)
    return first, max(first, min(side, length - start))


def halved(side: float, least: float) -> int:
    """The largest power of two by which ``side`` can be divided and keep ``least``; at least 1."""
    times = 1
    while side >= 2 * times * least:
        times *= 2
    return times


def shrink(picture: UInt8[np.ndarray, "height width 3"], times: int) -> UInt8[np.ndarray, "small_height small_width 3"]:
    """A picture ``times``, a power of two that divides its sides, smaller (OpenCV is quick at halving only)."""
    while times > 1:
        size = (picture.shape[1] // 2, picture.shape[0] // 2)
        picture, times = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA)), times // 2
    return np.ascontiguousarray(picture)


def _square(roi: Float[np.ndarray, " 4"]) -> tuple[tuple[int, int], int]:
    """Corner and side in whole pixels; the side can be divided by what it will be shrunk by."""
    side = max(round(float(roi[2] - roi[0])), 2)
    side -= side % halved(side, FULL_SIDE)
    return (round(float(roi[0])), round(float(roi[1]))), side


def _networks(task: Path) -> Find:
    """The task file's networks by LiteRT, or through MediaPipe's Tasks API where LiteRT has no wheel."""
    try:
        from talkface.annotate._landmarker import Landmarker  # noqa: PLC0415 (may be missing)
    except ImportError:
        return tasks_api(task)
    return Landmarker(task)


def tasks_api(task: Path) -> Find:
    """The Tasks API: mesh and blendshapes, one picture at a time."""
    import mediapipe as mp  # noqa: PLC0415 (0.8 s that no command should wait for)

    vision, blendshape_at = mp.tasks.vision, {name: i for i, name in enumerate(ARKIT)}
    options = vision.FaceLandmarkerOptions(
        base_options=mp.tasks.BaseOptions(model_asset_path=str(task)), output_face_blendshapes=True
    )
    landmarker = vision.FaceLandmarker.create_from_options(options)

    def find(region: np.ndarray) -> Found | None:
        result = landmarker.detect(mp.Image(image_format=mp.ImageFormat.SRGB, data=region))
        if not result.face_landmarks:
            return None
        shapes = np.full(len(ARKIT), np.nan, np.float32)
        for category in result.face_blendshapes[0]:
            if category.category_name in blendshape_at:
                shapes[blendshape_at[category.category_name]] = category.score
        return _xyz(result.face_landmarks[0]), shapes

    return find


def _solutions() -> Find:
    """The Solutions API of mediapipe 0.10.21, whose models lie in its wheel: the mesh alone."""
    import mediapipe as mp  # noqa: PLC0415 (0.8 s that no command should wait for)

    if not hasattr(mp, "solutions"):
        raise WeightsError(
            f"mediapipe {mp.__version__} carries no face mesh. "
            "Run `toolkit models pull face_landmarker`, or install mediapipe==0.10.21."
        )
    mesh = mp.solutions.face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True)

    def find(region: np.ndarray) -> Found | None:
        faces = mesh.process(region).multi_face_landmarks
        return (_xyz(faces[0].landmark), None) if faces else None

    return find


def _xyz(landmarks: Any) -> Float[np.ndarray, "478 3"]:
    return np.array([(p.x, p.y, p.z) for p in landmarks], np.float32)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep MediaPipe's C++ messages from standard error; no setting does. They come up to the first face found."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
