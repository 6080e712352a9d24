"""A software rasteriser: depth-sorted quads into an index buffer, then shading a pixel at a time in numpy."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Int32, UInt8

_SHIFT = 4
_STEPS = 256
_KEY = np.array([-0.4, 0.5, 0.77]) / np.linalg.norm([-0.4, 0.5, 0.77])
_HALFWAY = (_KEY + np.array([0, 0, 1])) / np.linalg.norm(_KEY + np.array([0, 0, 1]))
_FILL = np.array([0.75, 0.1, 0.45]) / np.linalg.norm([0.75, 0.1, 0.45])


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera at the origin that looks along -z; x to the right, y up, in centimetres.

    ``fov_degrees`` is the vertical field of view. The principal point is the picture's centre.
    """

    width: int = 512
    height: int = 512
    fov_degrees: float = 50.0

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return self.height / 2 / float(np.tan(np.radians(self.fov_degrees) / 2))

    def project(self, points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "points 2"]:
        """Camera coordinates to pixels (x right, y down); the centre of the first pixel is (0.5, 0.5)."""
        scale = self.focal / -points[:, 2:]
        return points[:, :2] * scale * (1, -1) + (self.width / 2, self.height / 2)


def light(normals: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, " points"]:
    """Brightness 0..1: wrapped Lambert from a key light, a weak fill from the other side."""
    key = np.clip((normals @ _KEY + 0.35) / 1.35, 0, 1)
    return np.asarray(0.22 + 0.62 * key + 0.16 * np.clip(normals @ _FILL, 0, 1))


def gloss(normals: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, " points"]:
    """Highlight 0..1 of the key light on a soft sheen (Blinn), seen along z."""
    return np.asarray(np.clip(normals @ _HALFWAY, 0, 1) ** 22)


def _ramp() -> Float[np.ndarray, "steps 3"]:
    """Multiplier a channel by brightness 0..1.4: shadows are warm and never black."""
    s = np.arange(0, 1.4, 1 / _STEPS)[:, None]
    dark, light_ = np.array([0.42, 0.3, 0.3]), np.array([1.08, 1.07, 1.06])
    return np.asarray(dark + (light_ - dark) * s**1.1, dtype=np.float32)


RAMP = _ramp()


def front_order(
    pixels: Float[np.ndarray, "points 2"],
    depth: Float[np.ndarray, " points"],
    quads: Int32[np.ndarray, "quads 4"],
    bias: Float[np.ndarray, " quads"],
    both_sides: np.ndarray,
) -> np.ndarray:
    """Indices of the quads that face the camera, farthest first; ``bias`` (cm) pulls a quad towards the camera."""
    a, b = pixels[quads[:, 2]] - pixels[quads[:, 0]], pixels[quads[:, 3]] - pixels[quads[:, 1]]
    turn = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    keep = np.flatnonzero((turn < -1e-6) | both_sides)
    far = depth[quads[keep]].mean(axis=1) + bias[keep]
    return keep[np.argsort(far, kind="stable")]


def fill_indices(
    buffer: Int32[np.ndarray, "height width"], corners: Float[np.ndarray, "quads 4 2"], first: int = 0
) -> None:
    """Paint quads in order; quad i writes ``first + i + 1``."""
    fixed = np.round((corners - 0.5) * (1 << _SHIFT)).astype(np.int32)
    fill = cv2.fillConvexPoly
    for number, quad in enumerate(fixed, first + 1):
        fill(buffer, quad, number, 8, _SHIFT)


def fill_flat(picture: np.ndarray, corners: np.ndarray, colours: UInt8[np.ndarray, "quads 3"]) -> None:
    """Paint quads in order, each in one colour."""
    fixed = np.round((corners - 0.5) * (1 << _SHIFT)).astype(np.int32)
    for quad, colour in zip(fixed, colours.tolist(), strict=True):
        cv2.fillConvexPoly(picture, quad, colour, 8, _SHIFT)


def shade(
    picture: UInt8[np.ndarray, "height width 3"],
    buffer: Int32[np.ndarray, "height width"],
    corners: Float[np.ndarray, "quads 4 2"],
    values: Float[np.ndarray, "quads 4 3"],
    texture: UInt8[np.ndarray, "rows columns 3"],
) -> None:
    """Colour every pixel that ``buffer`` gives to a quad: texture at (u, v), times brightness s.

    ``values`` holds u, v, s at the corners; inside a quad they are the affine fit to its corners.
    """
    where = np.flatnonzero(buffer)
    if not len(where):
        return
    mine = np.take(buffer.ravel(), where) - 1
    rows, columns = np.divmod(where.astype(np.int32), np.int32(buffer.shape[1]))
    x, y = columns.astype(np.float32) + 0.5, rows.astype(np.float32) + 0.5
    u, v, s = (
        np.take(dx, mine) * x + np.take(dy, mine) * y + np.take(constant, mine)
        for dx, dy, constant in _planes(corners, values)
    )
    colour = sample(texture, u, v)
    tone = np.take(RAMP, np.clip(s * _STEPS, 0, len(RAMP) - 1).astype(np.int32), axis=0)
    picture.reshape(-1, 3)[where] = cv2.multiply(colour, tone, dtype=cv2.CV_8U)


def sample(texture: np.ndarray, u: np.ndarray, v: np.ndarray) -> UInt8[np.ndarray, "points 3"]:
    """Bilinear look-up; OpenCV wants maps narrower than 32768."""
    n = len(u)
    padded = -n % 4096
    u, v = (np.pad(a, (0, padded)).reshape(-1, 4096) for a in (u, v))
    return np.asarray(cv2.remap(texture, u, v, cv2.INTER_LINEAR)).reshape(-1, 3)[:n]


def _planes(corners: np.ndarray, values: np.ndarray) -> Float[np.ndarray, "3 3 quads"]:
    """The affine fit to the four corners: for each of the three values its dx, dy and constant."""
    a, b = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
    da, db = values[:, 2] - values[:, 0], values[:, 3] - values[:, 1]
    turn = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    inverse = np.where(np.abs(turn) > 0.8, 1 / np.where(turn == 0, 1, turn), 0)[:, None]
    dx = (da * b[:, 1:] - db * a[:, 1:]) * inverse
    dy = (db * a[:, :1] - da * b[:, :1]) * inverse
    middle = corners.mean(axis=1)
    constant = values.mean(axis=1) - dx * middle[:, :1] - dy * middle[:, 1:]
    return np.ascontiguousarray(np.stack([dx.T, dy.T, constant.T], axis=1), dtype=np.float32)
