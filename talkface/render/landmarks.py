"""Points of the built-in head that metrics look at: iBUG's 68, and the lips."""

from collections.abc import Mapping
from typing import Final

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from talkface.render import mesh
from talkface.render.raster import Camera
from talkface.render.rig import PIVOT, Head

IBUG68: Final = np.array([
    2207, 2636, 3204, 4410, 4695, 4909, 4917, 4922, 4934, 4946, 4951, 4959, 4747, 4464, 3256, 2688, 2265,
    1221, 1081, 1085, 1090, 1237, 1247, 1110, 1115, 1119, 1263,
    1739, 2307, 2520, 2662, 2941, 2943, 3017, 2949, 2951,
    1721, 1724, 1729, 1733, 1800, 1796, 1745, 1749, 1754, 1757, 1824, 1820,
    3787, 3508, 3440, 3514, 3446, 3520, 3809, 4230, 4298, 4295, 4292, 4218,
    3788, 3795, 3798, 3801, 3808, 3871, 3869, 3867,
])  # fmt: skip
"""Vertex of the skin nearest to each of iBUG's 68 points, as MediaPipe finds them on the head's own picture; lids and
inner lips on the rims of their slits."""

PICTURE = 256
"""Pixels of the square picture in which the points are given: the usual crop of published landmark distances."""
_AHEAD = np.array([0.0, 0.5, -40.0])


def lip_vertices() -> np.ndarray:
    """Vertices of the skin on the lips."""
    s = mesh.skin()
    beside = np.abs(s.x0) < mesh.MOUTH_HALF_WIDTH + 0.2
    return np.flatnonzero((beside & (np.abs(s.level - mesh.MOUTH_LEVEL) < 1.1) & (s.z > 0)).ravel())


def rig_points(
    head: Head, arkit: Float[np.ndarray, "frames 52"], pose: Float[np.ndarray, "frames parts"]
) -> Mapping[str, np.ndarray]:
    """``lips`` (frames, vertices, 3) in cm without rotation, and ``rig68`` (frames, 68, 2) in pixels with rotation.

    ``pose`` begins with a quaternion wxyz; the head turns about its neck. Frames without blendshapes are NaN in both,
    frames without rotation in ``rig68``.
    """
    lips, marks = lip_vertices(), Camera(width=PICTURE, height=PICTURE)
    chosen = np.concatenate([lips, IBUG68])
    points = np.stack([head.some_vertices(chosen, row) for row in np.nan_to_num(arkit)]).astype(np.float32)
    points[~np.isfinite(arkit).any(axis=1)] = np.nan
    face = points[:, len(lips) :]
    drawn = np.full((len(arkit), len(IBUG68), 2), np.nan, np.float32)
    for i in np.flatnonzero(np.isfinite(pose[:, :4]).all(axis=1)):
        turn = Rotation.from_quat(pose[i, [1, 2, 3, 0]].astype(float)).as_matrix()
        drawn[i] = marks.project((face[i] - PIVOT) @ turn.T + PIVOT + _AHEAD)
    return {"lips": points[:, : len(lips)], "rig68": drawn}
