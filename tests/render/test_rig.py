"""The rig: every shape moves its own region, on the right side, and the head turns the way its docstring says."""

import cv2
import numpy as np
import pytest

from talkface.render import mesh
from talkface.render.identity import Identity
from talkface.render.raster import Camera
from talkface.render.rig import PIVOT, Head, rotation_matrix
from talkface.vocab import ARKIT

AHEAD = np.array([0.0, 0.5, -40.0])
REGIONS = {
    "eye": (0.6, 5.0),
    "brow": (1.4, 8.5),
    "cheek": (-9.0, 3.5),
    "nose": (-5.0, 5.6),
    "mouth": (-9.9, 3.0),
    "jaw": (-14.0, -0.5),
    "tongue": (-9.9, -2.0),
}
"""Lowest and highest y (cm) a family of shapes may move on the skin by more than a millimetre."""


@pytest.fixture(scope="module")
def head() -> Head:
    return Head()


def one(name: str, value: float = 1.0) -> np.ndarray:
    arkit = np.zeros(52)
    arkit[ARKIT.index(name)] = value
    return arkit


def moved(head: Head, name: str) -> np.ndarray:
    """How far each vertex goes, in cm."""
    return np.linalg.norm(head.vertices(one(name)) - head.rest, axis=1)


def skin(head: Head, values: np.ndarray) -> np.ndarray:
    return values[head.parts["skin"].vertices]


def test_rest_is_no_displacement(head: Head) -> None:
    assert np.array_equal(head.vertices(np.zeros(52)), head.rest)


def test_nan_counts_as_rest(head: Head) -> None:
    """tongueOut has no value in MediaPipe's output."""
    assert np.allclose(head.vertices(one("tongueOut", np.nan)), head.rest)


@pytest.mark.parametrize("name", ARKIT)
def test_shape_moves_its_region_only(head: Head, name: str) -> None:
    distance = moved(head, name)
    assert distance.max() > 0.1, f"{name} is not visible"
    family = next(f for f in REGIONS if name.startswith(f))
    low, high = REGIONS[family]
    y = skin(head, head.rest)[:, 1]
    strayed = y[skin(head, distance) > 0.1]
    assert len(strayed) == 0 or (strayed.min() > low and strayed.max() < high)
    behind = skin(head, head.rest)[:, 2] < -5
    assert skin(head, distance)[behind].max() < 0.05


@pytest.mark.parametrize("name", [n for n in ARKIT if n.endswith("Left") and n not in ("jawLeft", "mouthLeft")])
def test_left_is_the_persons_left(head: Head, name: str) -> None:
    """Facing the camera, the person's left is at greater x in the picture; and Right mirrors Left."""
    left, right = moved(head, name), moved(head, name.removesuffix("Left") + "Right")
    pixels = Camera().project(head.pose(head.rest, np.eye(3), AHEAD))
    assert (left * (pixels[:, 0] - 256)).sum() > 0
    assert (right * (pixels[:, 0] - 256)).sum() < 0
    assert left.sum() == pytest.approx(right.sum(), rel=0.02)


@pytest.mark.parametrize(("name", "sign"), [("jawLeft", 1), ("mouthLeft", 1), ("jawRight", -1), ("mouthRight", -1)])
def test_sideways_shapes_go_to_the_persons_side(head: Head, name: str, sign: int) -> None:
    assert sign * (head.vertices(one(name)) - head.rest)[:, 0].sum() > 1


@pytest.mark.parametrize(
    ("name", "axis", "sign"),
    [
        ("eyeLookOutLeft", 0, 1),
        ("eyeLookInLeft", 0, -1),
        ("eyeLookOutRight", 0, -1),
        ("eyeLookInRight", 0, 1),
        ("eyeLookUpLeft", 1, 1),
        ("eyeLookDownRight", 1, -1),
    ],
)
def test_gaze_turns_the_pupil(head: Head, name: str, axis: int, sign: int) -> None:
    part = head.parts["eye_left" if name.endswith("Left") else "eye_right"].vertices
    pupil = slice(part.start, part.start + mesh.AROUND_EYE)
    shift = (head.vertices(one(name)) - head.rest)[pupil].mean(axis=0)
    assert sign * shift[axis] > 0.4
    assert abs(shift[1 - axis]) < 0.05


def lids(head: Head, arkit: np.ndarray) -> np.ndarray:
    """Height of the left eye's opening at each column, in cm."""
    rows, row, _ = mesh.levels()
    grid = head.vertices(arkit)[head.parts["skin"].vertices].reshape(len(rows), -1, 3)
    x = mesh.skin().x0[row]
    inside = (np.abs(x - mesh.EYE[0]) < 1.2) & (mesh.skin().z[row] > 0)
    return (grid[row] - grid[row + 1])[inside, 1]


def test_lids_meet_and_do_not_cross(head: Head) -> None:
    assert lids(head, np.zeros(52)).max() > 0.9
    for extra in ("eyeSquintLeft", "eyeLookDownLeft", "eyeWideLeft", "eyeLookUpLeft"):
        assert np.abs(lids(head, one("eyeBlinkLeft") + one(extra))).max() < 0.25
    assert lids(head, one("eyeWideLeft")).max() > lids(head, np.zeros(52)).max() + 0.2
    assert lids(head, one("eyeSquintLeft")).max() < lids(head, np.zeros(52)).max() - 0.2


def test_lips_part_with_the_jaw_and_stay_shut_when_closed(head: Head) -> None:
    gaps = [head.mouth_open(one("jawOpen", v)) for v in (0.0, 0.25, 0.5, 1.0)]
    assert gaps[0] == pytest.approx(0, abs=0.01)
    assert np.all(np.diff(gaps) > 0.4)
    assert head.mouth_open(one("jawOpen") + one("mouthClose")) < 0.2


def test_rotation_signs() -> None:
    """Where the nose (z) and the top of the head (y) go: yaw to image right, pitch up, roll to image left."""
    nose, top = np.array([0, 0, 1.0]), np.array([0, 1.0, 0])
    assert (rotation_matrix(20, 0, 0) @ nose)[0] > 0.3
    assert (rotation_matrix(0, 20, 0) @ nose)[1] > 0.3
    assert (rotation_matrix(0, 0, 20) @ top)[0] < -0.3
    matrix = rotation_matrix(31, -12, 7)
    assert np.allclose(matrix @ matrix.T, np.eye(3)) and np.linalg.det(matrix) == pytest.approx(1)


def test_neck_stays_on_the_shoulders(head: Head) -> None:
    turn = rotation_matrix(30, 15, 10)
    posed = head.pose(head.rest, turn, AHEAD + PIVOT - turn @ PIVOT)
    straight = head.pose(head.rest, np.eye(3), AHEAD)
    base = np.flatnonzero(mesh.skin().level.ravel() < -14.5)
    assert np.abs(posed - straight)[base].max() < 0.01


def test_same_person_same_pixels(head: Head) -> None:
    again = Head().render(one("jawOpen", 0.5), rotation_matrix(10, 5, 0), AHEAD)
    assert np.array_equal(again, head.render(one("jawOpen", 0.5), rotation_matrix(10, 5, 0), AHEAD))


def test_visible_shapes_change_the_picture(head: Head) -> None:
    """The left blink changes the picture's right half around the eye and leaves the other eye alone."""
    rest = head.render(np.zeros(52), np.eye(3), AHEAD).astype(int)
    shut = head.render(one("eyeBlinkLeft"), np.eye(3), AHEAD).astype(int)
    change = np.abs(shut - rest).sum(axis=2)
    assert change[:, 256:].sum() > 10_000
    assert change[:, :250].sum() == 0


def test_people_differ_and_repeat() -> None:
    assert Identity.from_seed(5) == Identity.from_seed(5)
    assert len({Identity.from_seed(s) for s in range(12)}) == 12


@pytest.mark.parametrize("seed", range(4))
def test_detector_finds_the_face(models, seed: int) -> None:
    """YuNet sees the face where the truth says it is, turned in each way."""
    size = 512
    detector = cv2.FaceDetectorYN.create(str(models / "yunet_n_640_640.onnx"), "", (size, size), 0.6)
    head, rng = Head(Identity.from_seed(seed)), np.random.default_rng(seed)
    for angles in [(0, 0, 0), *rng.uniform([-30, -20, -20], [30, 20, 20], (7, 3))]:
        turn = rotation_matrix(*angles)
        place = AHEAD + PIVOT - turn @ PIVOT
        _, faces = detector.detect(head.render(np.zeros(52), turn, place)[:, :, ::-1].copy())
        assert faces is not None and len(faces) == 1, f"not found at {angles}"
        x, y, width, height = faces[0, :4]
        truth = head.box(np.zeros(52), turn, place, Camera())
        middle = np.array([x + width / 2, y + height / 2])
        assert np.all(np.abs(middle - (truth[:2] + truth[2:]) / 2) < 0.15 * (truth[2] - truth[0]))
