"""Head pose: rotation, translation and angular velocity from the 478-point mesh.

Our own reference face is fitted to the mesh of every frame (weighted Procrustes), as a camera with a known vertical
field of view sees it. Signs and axes are drawn in docs/head.md.
"""

from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files

import numpy as np
from jaxtyping import Float, Int64
from pydantic import Field
from scipy.spatial.transform import Rotation

from talkface.annotate.base import AnnotatorConfig, ClipView, Result
from talkface.clip import NS, ColumnSpec, ScoreSpec
from talkface.weights import Models

VERTICAL_FOV_DEGREES = 63.0
"""MediaPipe's assumption about a camera that nothing is known about."""

ROUNDS = 5
"""Depth and shape are estimated in turns; after five the depth moves by less than a thousandth."""

ANGLES = ("yaw", "pitch", "roll")
SUMMARIES: Mapping[str, Callable[[np.ndarray], float]] = {"mean": np.mean, "min": np.min, "max": np.max}


class HeadConfig(AnnotatorConfig):
    """Settings of the head annotator."""

    vertical_fov_degrees: float = Field(
        VERTICAL_FOV_DEGREES, gt=5, lt=150, description="vertical field of view of the camera, in degrees"
    )


class Annotator:
    """Pose of the head in every frame that has a mesh."""

    name = "head"
    version = 1
    columns = (
        ColumnSpec(
            name="head",
            dtype="float32",
            shape=(10,),
            unit="quaternion, cm, rad/s",
            clock="frame",
            description="rotation head to camera (wxyz), translation cm, angular velocity rad/s in camera axes; "
            "x to image right, y up, z towards the camera",
            names=("qw", "qx", "qy", "qz", "tx", "ty", "tz", "wx", "wy", "wz"),
        ),
    )
    scores = (
        *(
            ScoreSpec(name=f"{angle}_{what}_degrees", unit="degrees", description=f"{what} of {angle} over the clip")
            for angle in ANGLES
            for what in SUMMARIES
        ),
        ScoreSpec(name="head_speed", unit="rad/s", description="mean length of the angular velocity"),
    )
    needs = ("lm",)
    reads = ()
    weights: tuple[tuple[str, ...], ...] = ()
    licence = "Apache-2.0"
    Config = HeadConfig

    def __init__(self, config: HeadConfig) -> None:
        self.config = config

    def open(self, models: Models) -> None:
        """Nothing to load."""

    def clip(self, view: ClipView) -> Result:
        """The column ``head`` and its scores; the camera looks at the middle of the source's frame."""
        probe = view.clip.source.probe
        assert probe is not None and probe.height > 0, f"{view.clip.key}: head needs the frame's size, got {probe}"
        table = view.table
        head = head_column(
            table.columns["lm"],
            table.timeline.pts_ns,
            size=(probe.width, probe.height),
            vertical_fov_degrees=self.config.vertical_fov_degrees,
        )
        return Result(columns={"head": head}, scores=_scores(head))


def head_column(
    meshes: Float[np.ndarray, "frames 478 3"],
    pts_ns: Int64[np.ndarray, " frames"],
    *,
    size: tuple[int, int],
    vertical_fov_degrees: float = VERTICAL_FOV_DEGREES,
) -> Float[np.ndarray, "frames 10"]:
    """Quaternion wxyz, translation cm, angular velocity rad/s a frame; NaN where the mesh is."""
    head = np.full((len(meshes), 10), np.nan)
    seen = np.isfinite(meshes).all(axis=(1, 2))
    if seen.any():
        rotation, translation = fit_head(meshes[seen], size=size, vertical_fov_degrees=vertical_fov_degrees)
        head[seen, :4] = quaternions(rotation)
        head[seen, 4:7] = translation
        head[:, 7:] = angular_velocity(head[:, :4], pts_ns)
    return head.astype(np.float32)


def fit_head(
    meshes: Float[np.ndarray, "frames 478 3"],
    *,
    size: tuple[int, int],
    vertical_fov_degrees: float = VERTICAL_FOV_DEGREES,
) -> tuple[Float[np.ndarray, "frames 3 3"], Float[np.ndarray, "frames 3"]]:
    """Rotation head to camera and translation (cm) of each mesh (pixels of a frame of ``size`` width, height)."""
    _, rotation, translation = fit_face(meshes, *reference_face(), size=size, vertical_fov_degrees=vertical_fov_degrees)
    return rotation, translation


def fit_face(
    meshes: Float[np.ndarray, "frames 478 3"],
    points: Float[np.ndarray, "478 3"],
    weights: Float[np.ndarray, " 478"],
    *,
    size: tuple[int, int],
    vertical_fov_degrees: float = VERTICAL_FOV_DEGREES,
) -> tuple[Float[np.ndarray, "frames 478 3"], Float[np.ndarray, "frames 3 3"], Float[np.ndarray, "frames 3"]]:
    """Each mesh in camera space (cm), and rotation and translation that bring the face ``points`` there.

    A mesh's depth is relative to the face. Each round puts the face where its size says, undoes the perspective
    there, and fits ``points``, whose scale corrects the distance.
    """
    used = weights > 0
    focal = size[1] / 2 / np.tan(np.radians(vertical_fov_degrees) / 2)
    meshes = meshes.astype(np.float64)
    distance = focal * _spread(points[used]) / _spread(meshes[:, used])
    for _ in range(ROUNDS):
        camera = _unproject(meshes[:, used], size, focal, distance)
        scale, rotation, translation = procrustes(points[used], camera, weights[used])
        distance = distance / scale
    return _unproject(meshes, size, focal, distance), rotation, translation / scale[:, None]


def procrustes(
    source: Float[np.ndarray, "*#batch points 3"],
    target: Float[np.ndarray, "*batch points 3"],
    weights: Float[np.ndarray, " points"],
) -> tuple[Float[np.ndarray, "*batch"], Float[np.ndarray, "*batch 3 3"], Float[np.ndarray, "*batch 3"]]:
    """Scale, rotation and translation that bring ``source`` closest to ``target`` (Umeyama 1991, weighted)."""
    weights = weights / weights.sum()
    source_mean, target_mean = (np.einsum("n,...ni->...i", weights, p) for p in (source, target))
    a, b = source - source_mean[..., None, :], target - target_mean[..., None, :]
    u, singular, v = np.linalg.svd(np.swapaxes(b * weights[:, None], -1, -2) @ a)
    signs = np.ones_like(singular)
    signs[..., 2] = np.sign(np.linalg.det(u @ v))
    rotation = (u * signs[..., None, :]) @ v
    scale = (singular * signs).sum(-1) / np.einsum("n,...ni->...", weights, a**2)
    return scale, rotation, target_mean - scale[..., None] * np.einsum("...ij,...j->...i", rotation, source_mean)


def quaternions(rotations: Float[np.ndarray, "frames 3 3"]) -> Float[np.ndarray, "frames 4"]:
    """Rotation matrices to unit quaternions wxyz, the first with w >= 0, each next on the side of the one before."""
    q = Rotation.from_matrix(rotations).as_quat()[:, [3, 0, 1, 2]]
    turns = np.where((q[1:] * q[:-1]).sum(-1) < 0, -1.0, 1.0)
    first = -1.0 if q[0, 0] < 0 else 1.0
    return np.asarray(q * first * np.cumprod(np.concatenate([[1.0], turns]))[:, None])


def angular_velocity(
    quaternion: Float[np.ndarray, "frames 4"], pts_ns: Int64[np.ndarray, " frames"]
) -> Float[np.ndarray, "frames 3"]:
    """Rotation vector a second, in camera axes, between the frames on both sides of each frame.

    Beside a gap (NaN) and at the ends the one neighbour that is there is used, so that nothing is taken over a gap;
    a frame without a neighbour has NaN.
    """
    n = len(quaternion)
    valid = np.isfinite(quaternion).all(axis=1)
    here = np.arange(n)
    before = np.where(np.roll(valid, 1) & (here > 0), here - 1, here)
    after = np.where(np.roll(valid, -1) & (here < n - 1), here + 1, here)
    rows = np.flatnonzero(valid & (after > before))
    velocity = np.full((n, 3), np.nan)
    if len(rows) > 0:
        turn = _rotation(quaternion[after[rows]]) * _rotation(quaternion[before[rows]]).inv()
        seconds = (pts_ns[after[rows]] - pts_ns[before[rows]]) / NS
        velocity[rows] = turn.as_rotvec() / seconds[:, None]
    return velocity


def euler_degrees(quaternion: Float[np.ndarray, "*batch 4"]) -> Float[np.ndarray, "*batch 3"]:
    """Yaw, pitch and roll in degrees of a quaternion wxyz; NaN where it is NaN.

    The head rolls, then pitches, then yaws: R = Ry(yaw) Rx(-pitch) Rz(roll). Yaw > 0: the nose points to image right
    (the person turns to their left). Pitch > 0: looks up. Roll > 0: the top of the head tilts to image left (towards
    the person's right shoulder).
    """
    flat = quaternion.reshape(-1, 4).astype(np.float64)
    angles = np.full((len(flat), 3), np.nan)
    seen = np.isfinite(flat).all(axis=1)
    if seen.any():
        angles[seen] = _rotation(flat[seen]).as_euler("YXZ", degrees=True) * (1, -1, 1)
    return angles.reshape(*quaternion.shape[:-1], 3)


@cache
def reference_face() -> tuple[Float[np.ndarray, "478 3"], Float[np.ndarray, " 478"]]:
    """Mean face (cm, zero rotation, origin inside the head as MediaPipe has it) and how steady each point is.

    Made by scripts/train_arkit_head.py; the irises have weight zero.
    """
    with (files("talkface.annotate") / "data" / "head_reference.npz").open("rb") as file, np.load(file) as arrays:
        return arrays["points"].astype(np.float64), arrays["weights"].astype(np.float64)


def _rotation(quaternion: Float[np.ndarray, "frames 4"]) -> Rotation:
    return Rotation.from_quat(quaternion[:, [1, 2, 3, 0]])


def _spread(points: Float[np.ndarray, "*batch points 3"]) -> Float[np.ndarray, "*batch"]:
    """Root of the summed variance: the size of a point cloud, whichever way it is turned."""
    return np.asarray(np.sqrt(points.var(axis=-2).sum(-1)))


def _unproject(
    meshes: Float[np.ndarray, "frames points 3"],
    size: tuple[int, int],
    focal: float,
    distance: Float[np.ndarray, " frames"],
) -> Float[np.ndarray, "frames points 3"]:
    """Pixels to cm in camera axes, for faces at ``distance`` (cm) whose depth is in pixels of their own scale."""
    depth = distance[:, None] * (1 + meshes[..., 2] / focal)
    x = (meshes[..., 0] - size[0] / 2) * depth / focal
    y = (size[1] / 2 - meshes[..., 1]) * depth / focal
    return np.stack([x, y, -depth], axis=-1)


def _scores(head: Float[np.ndarray, "frames 10"]) -> Mapping[str, float]:
    seen = np.isfinite(head[:, 0])
    angles = euler_degrees(head[seen, :4])
    speed = np.linalg.norm(head[:, 7:], axis=1)
    scores = {"head_speed": _over(np.mean, speed[np.isfinite(speed)])}
    for angle, values in zip(ANGLES, angles.T, strict=True):
        for what, function in SUMMARIES.items():
            scores[f"{angle}_{what}_degrees"] = _over(function, values)
    return scores


def _over(function: Callable[[np.ndarray], float], values: np.ndarray) -> float:
    return float(function(values)) if len(values) > 0 else float("nan")
