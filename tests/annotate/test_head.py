"""Head pose: known turns come back, and real pictures agree with their published pose."""

import re
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from talkface.annotate.head import (
    VERTICAL_FOV_DEGREES,
    angular_velocity,
    euler_degrees,
    fit_head,
    head_column,
    quaternions,
    reference_face,
)
from talkface.clip import NS
from tests.annotate.making import mesh_in

SIZE = (1280, 720)
AFLW_BOUND_DEGREES = 7.0
FEW = settings(deadline=None, max_examples=40)

rotations = st.tuples(st.floats(-70, 70), st.floats(-50, 50), st.floats(-170, 170)).map(
    lambda angles: Rotation.from_euler("YXZ", angles, degrees=True)
)


def mesh_of(rotation: Rotation, translation: np.ndarray) -> np.ndarray:
    """The reference face at a pose, as MediaPipe would write it: perspective pixels, depth relative to the face."""
    camera = reference_face()[0] @ rotation.as_matrix().T + translation
    focal = SIZE[1] / 2 / np.tan(np.radians(VERTICAL_FOV_DEGREES) / 2)
    depth, middle = -camera[:, 2], -translation[2]
    x = SIZE[0] / 2 + focal * camera[:, 0] / depth
    y = SIZE[1] / 2 - focal * camera[:, 1] / depth
    return np.stack([x, y, (depth - middle) * focal / middle], axis=1)[None]


@FEW
@given(rotations, st.floats(-0.5, 0.5), st.floats(-0.3, 0.3), st.floats(25, 200))
def test_known_pose_comes_back(rotation: Rotation, right: float, up: float, away: float) -> None:
    translation = np.array([right * away, up * away, -away])
    got, where = fit_head(mesh_of(rotation, translation), size=SIZE)
    assert np.degrees((Rotation.from_matrix(got[0]) * rotation.inv()).magnitude()) < 0.1
    np.testing.assert_allclose(where[0], translation, atol=0.005 * away)


@FEW
@given(rotations)
def test_euler_angles_rebuild_the_rotation(rotation: Rotation) -> None:
    yaw, pitch, roll = np.radians(euler_degrees(quaternions(rotation.as_matrix()[None]))[0])
    turns = [Rotation.from_rotvec(v) for v in ([0, yaw, 0], [-pitch, 0, 0], [0, 0, roll])]
    assert (turns[0] * turns[1] * turns[2] * rotation.inv()).magnitude() < 1e-6


@pytest.mark.parametrize(
    ("angles", "point", "axis", "sign"),
    [
        ((20, 0, 0), "nose", 0, 1),
        ((0, 20, 0), "nose", 1, 1),
        ((0, 0, 20), "top", 0, -1),
    ],
    ids=["yaw: nose to image right", "pitch: nose up", "roll: top of the head to image left"],
)
def test_signs(angles: tuple[float, ...], point: str, axis: int, sign: int) -> None:
    """Seen in the picture, y up: where the nose or the top of the head goes under each positive angle."""
    yaw, pitch, roll = angles
    rotation = Rotation.from_euler("YXZ", (yaw, -pitch, roll), degrees=True)
    towards = rotation.apply([0, 0, 1] if point == "nose" else [0, 1, 0])
    assert sign * towards[axis] > 0.3
    np.testing.assert_allclose(euler_degrees(quaternions(rotation.as_matrix()[None]))[0], angles, atol=1e-6)


@FEW
@given(
    st.tuples(*[st.floats(-3, 3)] * 3),
    rotations,
    st.lists(st.integers(5_000_000, 120_000_000), min_size=3, max_size=30),
)
def test_steady_turn_has_steady_velocity(velocity: tuple, start: Rotation, steps: list[int]) -> None:
    pts_ns = np.cumsum(np.array([0, *steps], np.int64))
    turned = Rotation.from_rotvec(np.outer(pts_ns / NS, velocity)) * start
    got = angular_velocity(quaternions(turned.as_matrix()), pts_ns)
    np.testing.assert_allclose(got, np.tile(velocity, (len(pts_ns), 1)), atol=1e-5)


@FEW
@given(st.integers(0, 1000))
def test_quaternions_do_not_flip(seed: int) -> None:
    rng = np.random.default_rng(seed)
    turned = Rotation.from_rotvec(np.cumsum(rng.normal(0, 0.5, (200, 3)), axis=0))
    q = quaternions(turned.as_matrix())
    assert q[0, 0] >= 0
    assert ((q[1:] * q[:-1]).sum(axis=1) >= 0).all()
    np.testing.assert_allclose(Rotation.from_quat(q[:, [1, 2, 3, 0]]).as_matrix(), turned.as_matrix(), atol=1e-9)


def test_missing_mesh_is_missing_pose_and_nothing_is_taken_over_the_gap() -> None:
    turn = [Rotation.from_rotvec([0, 0.1 * i, 0]) for i in range(7)]
    meshes = np.concatenate([mesh_of(t, np.array([0, 0, -50.0])) for t in turn])
    meshes[[2, 4]] = np.nan
    head = head_column(meshes, np.arange(7, dtype=np.int64) * NS // 25, size=SIZE)
    assert np.isnan(head[[2, 4]]).all()
    assert np.isfinite(head[[0, 1, 3, 5, 6], :7]).all()
    assert np.isnan(head[3, 7:]).all(), "frame 3 has no neighbour"
    np.testing.assert_allclose(head[[0, 1, 5, 6], 8], 2.5, atol=0.02)


def test_no_mesh_at_all() -> None:
    head = head_column(np.full((3, 478, 3), np.nan, np.float32), np.arange(3, dtype=np.int64), size=SIZE)
    assert head.shape == (3, 10)
    assert np.isnan(head).all()


def test_reference_face_is_symmetric() -> None:
    points, weights = reference_face()
    nearest = ((points[:, None] * (-1, 1, 1) - points) ** 2).sum(-1).min(axis=1)
    assert np.sqrt(nearest).max() < 1e-3
    assert weights.sum() == pytest.approx(1, abs=1e-4)


def test_agrees_with_mediapipes_published_matrix(media: Path, models: Path) -> None:
    """MediaPipe's own test picture; its matrix is packed column by column."""
    text = (media / "expected" / "mediapipe__portrait_expected_face_geometry.pbtxt").read_text()
    packed = [float(v) for v in re.findall(r"packed_data: (\S+)", text.split("pose_transform_matrix")[1])]
    published = np.array(packed).reshape(4, 4).T
    rotation, translation = _fit(media / "expected" / "tfjs-models__portrait.jpg", models)
    turn = Rotation.from_matrix(rotation) * Rotation.from_matrix(published[:3, :3]).inv()
    print(f"\nportrait: {np.degrees(turn.magnitude()):.2f} degrees, {translation} cm against {published[:3, 3]}")
    assert np.degrees(turn.magnitude()) < 5
    np.testing.assert_allclose(translation, published[:3, 3], atol=0.06 * np.linalg.norm(published[:3, 3]))


def test_aflw2000(media: Path, models: Path) -> None:
    """Mean absolute error at most 7 degrees for each angle, and no wrong sign beyond 15, in AFLW's convention and ours.

    AFLW2000 (3DDFA) has pitch, yaw, roll with R = Rx(-pitch) Ry(-yaw) Rz(-roll); its yaw and roll count the other way.
    """
    errors = []
    for path in sorted((media / "pose").glob("*.jpg")):
        truth = np.degrees(scipy.io.loadmat(path.with_suffix(".mat"))["Pose_Para"][0, :3])
        true_rotation = Rotation.from_euler("XYZ", -truth, degrees=True)
        rotation, _ = _fit(path, models)
        theirs = -Rotation.from_matrix(rotation).as_euler("XYZ", degrees=True)
        ours = euler_degrees(quaternions(rotation[None]))[0]
        true_ours = euler_degrees(quaternions(true_rotation.as_matrix()[None]))[0]
        print(f"\n{path.name}: yaw, pitch, roll {ours.round(1)}, published {true_ours.round(1)}", end="")
        for truths, got in ((truth[:2], theirs[:2]), (true_ours[:2], ours[:2])):
            far = np.abs(truths) > 15
            assert (np.sign(got[far]) == np.sign(truths[far])).all(), path.name
        errors.append([*np.abs(theirs - truth)[[1, 0, 2]], *np.abs(ours - true_ours)])
    mean = np.mean(errors, axis=0)
    print(f"\nmean absolute error of yaw, pitch, roll: AFLW's angles {mean[:3].round(1)}, ours {mean[3:].round(1)}")
    assert len(errors) == 8
    assert (mean <= AFLW_BOUND_DEGREES).all()


def _fit(picture: Path, models: Path) -> tuple[np.ndarray, np.ndarray]:
    mesh, size = mesh_in(picture, models)
    rotation, translation = fit_head(mesh[None], size=size)
    return rotation[0], translation[0]
