"""The mesh against MediaPipe's published values, under shifts, scales and mirroring, and the 68 points."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io

from talkface.annotate.base import FaceView
from talkface.annotate.landmarks import Annotator, FaceMesh, LandmarksConfig, Mesh, ibug68
from talkface.face_mesh import IBUG68, MIRROR68
from talkface.vocab import ARKIT


@pytest.fixture(scope="module")
def task_mesh(models: Path) -> FaceMesh:
    return FaceMesh(models / "face_landmarker.task")


@pytest.fixture(scope="module")
def embedded_mesh() -> FaceMesh:
    mediapipe = pytest.importorskip("mediapipe")
    if not hasattr(mediapipe, "solutions"):
        pytest.skip("this mediapipe carries no mesh")
    return FaceMesh(None)


@pytest.fixture(params=["task_mesh", "embedded_mesh"])
def face_mesh(request: pytest.FixtureRequest) -> FaceMesh:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def portrait(media: Path) -> np.ndarray:
    return read_rgb(media / "expected" / "tfjs-models__portrait.jpg")


def read_rgb(path: Path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def whole(pixels: np.ndarray) -> np.ndarray:
    """The largest square about the picture's middle that leaves nothing out."""
    height, width = pixels.shape[:2]
    side = max(height, width)
    x, y = (width - side) / 2, (height - side) / 2
    return np.array([x, y, x + side, y + side])


def found(mesh: Mesh | None) -> Mesh:
    assert mesh is not None
    return mesh


def test_published_landmarks(face_mesh: FaceMesh, portrait: np.ndarray, media: Path) -> None:
    text = (media / "expected" / "mediapipe__portrait_expected_face_landmarks.pbtxt").read_text()
    published = np.array(re.findall(r"x:\s*(\S+)\s+y:\s*(\S+)", text), float)
    mesh = found(face_mesh.detect(portrait, whole(portrait)))
    ours = mesh.points[: len(published), :2] / portrait.shape[1::-1]
    assert len(published) >= 468
    assert np.abs(ours - published).max() < 0.03


def test_published_blendshapes(task_mesh: FaceMesh, portrait: np.ndarray, media: Path) -> None:
    text = (media / "expected" / "mediapipe__portrait_expected_blendshapes.pbtxt").read_text()
    published = {name: float(score) for score, name in re.findall(r'score:\s*(\S+)\s+label:\s*"(\w+)"', text)}
    published.pop("_neutral", None)
    shapes = found(task_mesh.detect(portrait, whole(portrait))).shapes
    assert shapes is not None
    assert len(published) == 51
    for name, score in published.items():
        assert shapes[ARKIT.index(name)] == pytest.approx(score, abs=0.13), name
    assert np.flatnonzero(np.isnan(shapes)).tolist() == [ARKIT.index("tongueOut")]


def test_embedded_mesh_has_no_blendshapes(embedded_mesh: FaceMesh, portrait: np.ndarray) -> None:
    assert found(embedded_mesh.detect(portrait, whole(portrait))).shapes is None


def test_no_face_no_mesh(face_mesh: FaceMesh, portrait: np.ndarray) -> None:
    assert face_mesh.detect(portrait, np.array([0.0, 0, 200, 200])) is None
    assert face_mesh.detect(portrait, np.array([-900.0, -900, -400, -400])) is None


def test_remembers_nothing(face_mesh: FaceMesh, portrait: np.ndarray, media: Path) -> None:
    other = read_rgb(media / "pose" / "PRNet__image00050.jpg")
    before = found(face_mesh.detect(portrait, whole(portrait)))
    found(face_mesh.detect(other, whole(other)))
    face_mesh.detect(np.zeros_like(portrait), whole(portrait))
    after = found(face_mesh.detect(portrait, whole(portrait)))
    np.testing.assert_array_equal(before.points, after.points)


def test_region_may_reach_outside(face_mesh: FaceMesh, media: Path) -> None:
    picture = read_rgb(media / "pose" / "PRNet__image00050.jpg")
    padded = cv2.copyMakeBorder(picture, 60, 60, 90, 90, cv2.BORDER_CONSTANT)
    roi = np.array([-70.0, -50, 430, 450])
    inside = found(face_mesh.detect(padded, np.add(roi, [90, 60, 90, 60])))
    outside = found(face_mesh.detect(picture, roi))
    np.testing.assert_allclose(outside.points, inside.points - [90, 60, 0], atol=1e-3)


def test_points_follow_the_scale(face_mesh: FaceMesh, media: Path) -> None:
    """Large regions are shrunk for the model; points, depth too, must come back in source pixels."""
    picture = read_rgb(media / "pose" / "PRNet__image00050.jpg")
    large = cv2.resize(picture, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    small, scaled = (found(face_mesh.detect(p, whole(p))) for p in (picture, large))
    face = np.ptp(small.points[:, 1])
    assert np.abs(scaled.points / 4 - small.points).mean() < 0.01 * face
    assert np.ptp(scaled.points[:, 2]) == pytest.approx(4 * np.ptp(small.points[:, 2]), rel=0.05)


def test_68_points_lie_where_annotators_put_them(face_mesh: FaceMesh, media: Path) -> None:
    errors = []
    for path in sorted((media / "pose").glob("*.jpg")):
        truth = scipy.io.loadmat(path.with_suffix(".mat"))["pt3d_68"][:2].T
        picture = read_rgb(path)
        size = np.ptp(truth, axis=0).max()
        middle = (truth.min(axis=0) + truth.max(axis=0)) / 2
        mesh = found(face_mesh.detect(picture, np.concatenate([middle - 0.8 * size, middle + 0.8 * size])))
        errors.append(np.linalg.norm(ibug68(mesh.points) - truth, axis=1) / size)
    mean = np.mean(errors, axis=0)
    assert mean.mean() < 0.05
    assert mean[17:].max() < 0.08


def test_68_points_keep_their_side_in_a_mirror(face_mesh: FaceMesh, portrait: np.ndarray) -> None:
    flipped = np.ascontiguousarray(portrait[:, ::-1])
    straight, mirrored = (found(face_mesh.detect(p, whole(p))) for p in (portrait, flipped))
    back = ibug68(mirrored.points) * [-1, 1] + [portrait.shape[1], 0]
    face = np.ptp(straight.points[:, 1])
    assert np.linalg.norm(back[MIRROR68] - ibug68(straight.points), axis=1).max() < 0.06 * face
    assert np.linalg.norm(back - ibug68(straight.points), axis=1).max() > 0.5 * face


def test_68_points_are_in_ibug_order(face_mesh: FaceMesh, portrait: np.ndarray) -> None:
    points = ibug68(found(face_mesh.detect(portrait, whole(portrait))).points)
    assert len(set(IBUG68.tolist())) == 68
    assert (np.diff(points[:17, 0]) > -3).all(), "the jaw runs from image left to image right"
    assert (np.diff(points[17:27, 0]) > 0).all(), "so do the brows"
    assert (np.diff(points[27:31, 1]) > 0).all(), "the nose runs down"
    assert points[36, 0] < points[39, 0] < points[42, 0] < points[45, 0]
    assert points[37, 1] < points[41, 1], "an upper lid is above the lower"
    assert points[48, 0] < points[54, 0]
    assert points[51, 1] < points[62, 1] < points[66, 1] < points[57, 1], "lips, from the outside in"


def test_annotator_rows() -> None:
    annotator = Annotator(LandmarksConfig())
    pixels, box = np.zeros((4, 4, 3), np.uint8), np.zeros(5, np.float32)
    points = np.arange(478 * 3, dtype=np.float32).reshape(478, 3)
    assert annotator.frame(FaceView(pixels, 0, box)) == {}
    rows = annotator.frame(FaceView(pixels, 0, box, mesh=points))
    for spec in annotator.columns:
        spec.check(rows[spec.name][None], frames=1)
    np.testing.assert_array_equal(rows["lm68"], points[IBUG68, :2])
