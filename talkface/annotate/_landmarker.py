"""MediaPipe's FaceLandmarker from its three networks: face in the region, 478 points, blendshapes.

``face_landmarker.task`` is a zip of TFLite networks. Run by LiteRT directly, a face takes less than half the time that
it takes through MediaPipe's Tasks API, whose graph and Python results cost more than the networks. The geometry between
the networks is that of MediaPipe's graphs (BlazeFace's anchors, Bazarevsky et al. 2019; the region from eye line and
box, 1.5 times its longer side), and a test holds both to the same points. As in MediaPipe's video mode, a face that was
there a frame ago is followed without its detector: the region comes from the last mesh.
"""

import zipfile
from pathlib import Path

import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from jaxtyping import Float, UInt8
from scipy.special import expit

from talkface.face_mesh import BLENDSHAPE_POINTS, LEFT_CORNER, RIGHT_CORNER
from talkface.vocab import ARKIT

DETECTOR_SIDE, MESH_SIDE = 128, 256
MIN_SCORE = 0.5
"""Of the detection, and of the mesh network's own opinion whether it sees a face."""
SAME_FACE = 0.3
"""Overlap from which detections are averaged into one."""
REGION_SCALE = 1.5
RIGHT_EYE, LEFT_EYE = 4, 6
"""Where a detection's row holds x, y of the person's eyes, after x0 y0 x1 y1."""

_SHAPES = tuple(sorted(ARKIT[:-1]))
_OUTPUTS = [1 + _SHAPES.index(name) for name in ARKIT[:-1]]
"""The network gives ``_neutral`` and then the names from a to z."""


class Landmarker:
    """The three networks, one thread each. Without memory: a result depends on its arguments alone."""

    runtime = "LiteRT"

    def __init__(self, task: Path) -> None:
        with zipfile.ZipFile(task) as archive:
            self._detector, self._mesh, self._blendshapes = (
                _Network(archive.read(f"{name}.tflite"))
                for name in ("face_detector", "face_landmarks_detector", "face_blendshapes")
            )

    def __call__(
        self, region: UInt8[np.ndarray, "side side 3"]
    ) -> tuple[Float[np.ndarray, "478 3"], Float[np.ndarray, " 52"]] | None:
        """Points in sides of the region, and blendshapes in Apple's order (NaN tongueOut); None without a face."""
        face = self._detect(region)
        if face is None:
            return None
        to_region = region_of(face, len(region))
        points = self._points(region, to_region)
        if points is None:
            return None
        return points / len(region), self._shapes(points)

    def follow(
        self, picture: UInt8[np.ndarray, "height width 3"], last: Float[np.ndarray, "478 3"]
    ) -> tuple[Float[np.ndarray, "478 3"], Float[np.ndarray, " 52"]] | None:
        """Points and blendshapes of the face whose points were ``last``, both in pixels of the picture; None if it is
        not there any more."""
        points = self._points(picture, region_of_mesh(last))
        return None if points is None else (points, self._shapes(points))

    def _detect(self, region: UInt8[np.ndarray, "side side 3"]) -> Float[np.ndarray, " 16"] | None:
        whole = np.eye(2, 3) * (len(region) / DETECTOR_SIDE)
        outputs = self._detector(_sampled(region, whole, DETECTOR_SIDE) / np.float32(127.5) - 1)
        rows, logits = sorted((o.reshape(len(_ANCHORS), -1) for o in outputs), key=lambda o: -o.shape[1])
        scores = expit(logits[:, 0])
        seen = scores >= MIN_SCORE
        if not seen.any():
            return None
        return best_face(_decoded(rows[seen], _ANCHORS[seen]), scores[seen])

    def _points(
        self, picture: UInt8[np.ndarray, "height width 3"], to_picture: Float[np.ndarray, "2 3"]
    ) -> Float[np.ndarray, "478 3"] | None:
        """478 points in pixels of the picture, from the turned square that ``to_picture`` maps into it."""
        outputs = self._mesh(np.divide(_sampled(picture, to_picture, MESH_SIDE), 255, dtype=np.float32))
        points, presence = outputs[0].reshape(478, 3).astype(np.float64), float(outputs[1].ravel()[0])
        if expit(presence) < MIN_SCORE:
            return None
        scale = np.hypot(to_picture[0, 0], to_picture[1, 0])
        xy = points[:, :2] @ to_picture[:, :2].T + to_picture[:, 2]
        return np.concatenate([xy, points[:, 2:] * scale], axis=1)

    def _shapes(self, points: Float[np.ndarray, "478 3"]) -> Float[np.ndarray, " 52"]:
        (scores,) = self._blendshapes(points[list(BLENDSHAPE_POINTS), :2].astype(np.float32))
        return np.append(scores.ravel()[_OUTPUTS], np.nan).astype(np.float32)


class _Network:
    """A TFLite network with one input; gives its outputs in their order."""

    def __init__(self, content: bytes) -> None:
        self._network = Interpreter(model_content=content, num_threads=1)
        self._network.allocate_tensors()
        self._input = self._network.get_input_details()[0]["index"]
        self._outputs = [o["index"] for o in self._network.get_output_details()]

    def __call__(self, x: np.ndarray) -> list[np.ndarray]:
        self._network.set_tensor(self._input, x[None])
        self._network.invoke()
        return [self._network.get_tensor(o) for o in self._outputs]


def _sampled(
    picture: UInt8[np.ndarray, "height width 3"], to_picture: Float[np.ndarray, "2 3"], side: int
) -> UInt8[np.ndarray, "side side 3"]:
    """The square that ``to_picture`` maps into the picture, sampled as MediaPipe does: linear, edges repeated."""
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    square = cv2.warpAffine(picture, to_picture, (side, side), flags=how, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(square)


def _anchors() -> Float[np.ndarray, "896 2"]:
    """Centres of BlazeFace's short-range anchors: two a cell of 16 x 16, six a cell of 8 x 8."""
    grids = []
    for cells, each in ((16, 2), (8, 6)):
        y, x = np.mgrid[:cells, :cells]
        centres = (np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5) / cells
        grids.append(np.repeat(centres, each, axis=0))
    return np.concatenate(grids)


_ANCHORS = _anchors()


def _decoded(rows: Float[np.ndarray, "faces 16"], anchors: Float[np.ndarray, "faces 2"]) -> np.ndarray:
    """Raw rows (centre, size, six points) to x0 y0 x1 y1 and six points, in sides of the picture."""
    rows = rows.astype(np.float64) / DETECTOR_SIDE
    centre, half = rows[:, :2] + anchors, rows[:, 2:4] / 2
    points = rows[:, 4:] + np.tile(anchors, 6)
    return np.concatenate([centre - half, centre + half, points], axis=1)


def best_face(faces: Float[np.ndarray, "faces 16"], scores: Float[np.ndarray, " faces"]) -> Float[np.ndarray, " 16"]:
    """The detection with the highest score, averaged by score with all that overlap it (BlazeFace's blending)."""
    best = faces[np.argmax(scores)]
    size = np.minimum(faces[:, 2:4], best[2:4]) - np.maximum(faces[:, :2], best[:2])
    shared = np.clip(size, 0, None).prod(axis=1)
    areas = (faces[:, 2:4] - faces[:, :2]).prod(axis=1)
    same = shared / (areas + (best[2:4] - best[:2]).prod() - shared) > SAME_FACE
    return np.asarray(np.average(faces[same], axis=0, weights=scores[same]))


def region_of(face: Float[np.ndarray, " 16"], side: int) -> Float[np.ndarray, "2 3"]:
    """From pixels of the mesh network's square to pixels of a picture with this side.

    The square is centred on the detection, turned until the eyes are level, 1.5 times the box's longer side.
    """
    across = face[LEFT_EYE : LEFT_EYE + 2] - face[RIGHT_EYE : RIGHT_EYE + 2]
    return _turned_square(side * face[:2], side * face[2:4], across)


def region_of_mesh(points: Float[np.ndarray, "478 3"]) -> Float[np.ndarray, "2 3"]:
    """The same about a mesh, in pixels of its picture: where its face is looked for a frame later."""
    xy = np.ascontiguousarray(points[:, :2].T)
    return _turned_square(xy.min(axis=1), xy.max(axis=1), xy[:, LEFT_CORNER] - xy[:, RIGHT_CORNER])


def _turned_square(
    low: Float[np.ndarray, " 2"], high: Float[np.ndarray, " 2"], across: Float[np.ndarray, " 2"]
) -> Float[np.ndarray, "2 3"]:
    length = REGION_SCALE * (high - low).max()
    cos, sin = across / np.hypot(*across)
    turn = np.array([[cos, -sin], [sin, cos]]) * length / MESH_SIDE
    return np.concatenate([turn, ((low + high) / 2 - turn @ [MESH_SIDE / 2, MESH_SIDE / 2])[:, None]], axis=1)
