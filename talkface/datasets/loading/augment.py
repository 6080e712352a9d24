"""A window seen in a mirror, and in other light: pictures, points, blendshapes and head in step."""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Final

import cv2
import numpy as np
from jaxtyping import Float, Int64, UInt8
from scipy.optimize import linear_sum_assignment

from talkface.annotate.head import reference_face
from talkface.clip import ColumnSpec
from talkface.datasets.loading.reference import REFERENCE
from talkface.errors import ConfigError
from talkface.face_mesh import MIRROR68
from talkface.vocab import ARKIT

MIRRORED_SHAPES: Final = tuple(
    ARKIT.index(name.replace("Left", "\0").replace("Right", "Left").replace("\0", "Right")) for name in ARKIT
)
"""For each blendshape, the one on the other side of the face."""

MIRRORED_HEAD: Final = np.array([1, 1, -1, -1, -1, 1, 1, 1, -1, -1], np.float32)
"""Signs of quaternion wxyz, translation and angular velocity (an axial vector) in a mirror that swaps x."""

ON_PICTURE: Final = ("box", "lm", "lm68", "fan")
"""Columns in pixels; they can be mirrored only together with a picture, whose width is known."""

SIDELESS: Final = ("emo", "emo_pts", "identity", "talk", "lip_motion")
"""Columns that know no left and right."""


def check_mirror(specs: Iterable[ColumnSpec], *, pictures: bool) -> None:
    """Raise ConfigError for a column whose mirror image is not known."""
    for spec in specs:
        name = spec.name
        if name in ("arkit", "head", "pts", *SIDELESS) or spec.clock == "sound" or (name in ON_PICTURE and pictures):
            continue
        why = "is in pixels of the source; ask for pictures too" if name in ON_PICTURE else "has no known mirror image"
        raise ConfigError(f"mirror: the column {name} {why}. Leave it out, or set mirror to 0.")


def mirror(window: Mapping[str, np.ndarray], width: int) -> dict[str, np.ndarray]:
    """The window as a mirror shows it, its reference frames too; ``width`` is that of its pictures in pixels.

    Names are those of `Windows`.
    """
    turned = {name: MIRRORS.get(name.removeprefix(REFERENCE)) for name in window}
    return {name: turn(window[name], width) if (turn := turned[name]) else window[name] for name in window}


def _frames(values: UInt8[np.ndarray, "n h w 3"], _: int) -> UInt8[np.ndarray, "n h w 3"]:
    return np.ascontiguousarray(values[:, :, ::-1])


def _box(values: Float[np.ndarray, "n 5"], width: int) -> Float[np.ndarray, "n 5"]:
    out = values.copy()
    out[:, 0], out[:, 2] = width - values[:, 2], width - values[:, 0]
    return out


def _points(order: Int64[np.ndarray, " points"]) -> Callable[[np.ndarray, int], np.ndarray]:
    def mirrored(values: np.ndarray, width: int) -> np.ndarray:
        out = values[:, order].copy()
        out[..., 0] = width - out[..., 0]
        return out

    return mirrored


def _mesh(values: Float[np.ndarray, "n 478 3"], width: int) -> Float[np.ndarray, "n 478 3"]:
    return _points(mirrored_mesh())(values, width)


def _shapes(values: Float[np.ndarray, "n 52"], _: int) -> Float[np.ndarray, "n 52"]:
    return values[:, MIRRORED_SHAPES]


def _head(values: Float[np.ndarray, "n 10"], _: int) -> Float[np.ndarray, "n 10"]:
    return values * MIRRORED_HEAD


MIRRORS: Final[Mapping[str, Callable[[np.ndarray, int], np.ndarray]]] = {
    "frames": _frames,
    "reference": _frames,
    "box": _box,
    "lm": _mesh,
    "lm68": _points(MIRROR68),
    "fan": _points(MIRROR68),
    "arkit": _shapes,
    "head": _head,
}


@cache
def mirrored_mesh() -> Int64[np.ndarray, " 478"]:
    """For each point of the mesh, the one on the other side: the pairing that fits the mirrored reference face best."""
    face, _ = reference_face()
    other = face * (-1, 1, 1)
    distance = np.linalg.norm(face[:, None] - other[None], axis=-1)
    _, order = linear_sum_assignment(distance + distance.T)
    pairs: np.ndarray = order
    return pairs


def light(frames: UInt8[np.ndarray, "n h w 3"], most: float, rng: np.random.Generator) -> UInt8[np.ndarray, "n h w 3"]:
    """Other brightness, contrast and colour, the same for all frames; each factor is within 1 +- ``most``."""
    brightness, contrast = 1 + most * rng.uniform(-1, 1, 2)
    tint = 1 + most / 2 * rng.uniform(-1, 1, 3)
    grey = np.arange(256)
    curve = (grey * brightness - 128) * contrast + 128
    table = np.clip(np.round(curve[:, None] * tint), 0, 255).astype(np.uint8)
    return np.stack([cv2.LUT(frame, table[:, None, :].transpose(1, 0, 2)) for frame in frames])
