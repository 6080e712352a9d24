"""A software rasteriser with a depth buffer: which triangle each pixel sees, then shading a pixel at a time, in numpy.

Any triangle mesh may come in any order. Depth is compared a pixel at a time and attributes are interpolated with
perspective. No GL library is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int32, UInt8

from talkface.render.raster import RAMP, Camera, sample

_STEPS = 256
_NEAR = 0.1


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a triangle is made of: a texture (RGB) or none, and whether its back is seen.

    ``alpha`` is of the texture's size; where it is below ``cutoff`` (0..1) there are holes. None is opaque.
    """

    texture: UInt8[np.ndarray, "rows columns 3"] | None = None
    alpha: UInt8[np.ndarray, "rows columns"] | None = None
    cutoff: float = 0.5
    two_sided: bool = False


@dataclass(frozen=True, kw_only=True)
class Model:
    """A mesh as it is drawn, but for where its vertices are and how bright.

    ``texels`` are texture coordinates in texels of the material's texture, ``colours`` RGB 0..255 multiply it (None:
    white).
    ``bias`` (cm) brings a vertex nearer to the camera when depths are compared, and only then.
    """

    triangles: Int32[np.ndarray, "triangles 3"]
    texels: Float[np.ndarray, "vertices 2"]
    colours: Float[np.ndarray, "vertices 3"] | None
    bias: Float[np.ndarray, " vertices"]
    material: Int32[np.ndarray, " triangles"]
    materials: Sequence[Material] = field(default_factory=lambda: (Material(),))

    @property
    def two_sided(self) -> Bool[np.ndarray, " triangles"]:
        """Which triangles are seen from behind too."""
        return np.array([m.two_sided for m in self.materials])[self.material]


@dataclass(frozen=True)
class Seen:
    """What the pixels that see anything see: flat pixel index, triangle, and weights of its three corners."""

    pixel: np.ndarray
    triangle: np.ndarray
    weights: Float[np.ndarray, "3 pixels"]


def draw(
    picture: UInt8[np.ndarray, "height width 3"],
    camera: Camera,
    points: Float[np.ndarray, "vertices 3"],
    bright: Float[np.ndarray, " vertices"],
    model: Model,
) -> None:
    """Paint ``model`` over ``picture``. ``points`` are in camera axes (cm, x right, y up, z to the camera)."""
    seen = look(camera, points, model)
    if len(seen.pixel) == 0:
        return
    corners = model.triangles[seen.triangle].T
    tone = _mix(bright.astype(np.float32), corners, seen.weights)
    tone = np.take(RAMP, np.clip(tone * _STEPS, 0, len(RAMP) - 1).astype(np.int32), axis=0)
    colour = _colour(model, seen, corners)
    picture.reshape(-1, 3)[seen.pixel] = np.clip(colour * tone, 0, 255).astype(np.uint8)


def look(camera: Camera, points: Float[np.ndarray, "vertices 3"], model: Model) -> Seen:
    """For each pixel the nearest triangle, and where in it the pixel's centre lies (corrected for perspective)."""
    pixels = camera.project(np.minimum(points, (np.inf, np.inf, -_NEAR))).astype(np.float32)
    near = (1.0 / np.maximum(-(points[:, 2] + model.bias), _NEAR)).astype(np.float32)
    true = (1.0 / np.maximum(-points[:, 2], _NEAR)).astype(np.float32)
    chosen, planes = _facing(camera, pixels, points[:, 2], model)
    which, x, y = _covered(camera, pixels, model.triangles[chosen])
    first, second = (_plane(p, which, x, y) for p in planes)
    inside = (first >= 0) & (second >= 0) & (first + second <= 1)
    which, x, y, first, second = (v[inside] for v in (which, x, y, first, second))
    weights = np.stack([1 - first - second, first, second])
    triangle = chosen[which]
    corners = model.triangles[triangle].T
    pixel = y.astype(np.int64) * camera.width + x.astype(np.int64)
    depth = _mix(near, corners, weights)
    if any(m.alpha is not None for m in model.materials):
        solid = _solid(model, triangle, corners, weights)
        pixel, triangle, weights, depth = pixel[solid], triangle[solid], weights[:, solid], depth[solid]
    nearest = np.zeros(camera.height * camera.width, np.float32)
    np.maximum.at(nearest, pixel, depth)
    winner = np.full(len(nearest), -1, np.int64)
    first_ = np.flatnonzero(depth >= nearest[pixel])
    winner[pixel[first_]] = first_
    at = winner[winner >= 0]
    share = weights[:, at] * np.stack([true[c] for c in model.triangles[triangle[at]].T])
    return Seen(pixel[at], triangle[at], share / share.sum(axis=0))


def _facing(
    camera: Camera, pixels: np.ndarray, z: np.ndarray, model: Model
) -> tuple[np.ndarray, list[Float[np.ndarray, "3 faces"]]]:
    """Triangles that face the camera and stand before it, and the planes of their second and third weight."""
    a, b, c = (pixels[model.triangles[:, i]] for i in range(3))
    turn = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    ahead = (z[model.triangles] < -_NEAR).all(axis=1)
    seen = np.flatnonzero(((turn < -1e-6) | (model.two_sided & (turn > 1e-6))) & ahead)
    a, b, c, turn = a[seen], b[seen], c[seen], turn[seen]
    planes = []
    for p, q in ((c, a), (a, b)):
        dx, dy = -(q[:, 1] - p[:, 1]) / turn, (q[:, 0] - p[:, 0]) / turn
        planes.append(np.stack([dx, dy, -(dx * p[:, 0] + dy * p[:, 1])]).astype(np.float32))
    return seen, planes


def _covered(
    camera: Camera, pixels: np.ndarray, triangles: np.ndarray
) -> tuple[np.ndarray, Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Every pixel centre in every triangle's bounding box: number of the triangle, x and y."""
    corners = pixels[triangles]
    low = np.clip(np.ceil(corners.min(axis=1) - 0.5), 0, (camera.width, camera.height)).astype(np.int32)
    high = np.clip(np.floor(corners.max(axis=1) - 0.5) + 1, 0, (camera.width, camera.height)).astype(np.int32)
    wide, tall = np.maximum(high - low, 0).T
    # First the rows of every box, then the columns of every row: no division a pixel.
    box = np.repeat(np.arange(len(triangles)), np.where(wide > 0, tall, 0))
    row = _count(np.where(wide > 0, tall, 0)) + low[box, 1]
    which = np.repeat(box, wide[box])
    column = _count(wide[box]) + np.repeat(low[box, 0], wide[box])
    return which, column.astype(np.float32) + np.float32(0.5), np.repeat(row, wide[box]).astype(np.float32) + 0.5


def _count(sizes: np.ndarray) -> np.ndarray:
    """0, 1, .. n - 1 for each n of ``sizes``, one after the other."""
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) > 0 else 0
    return np.arange(total, dtype=np.int32) - np.repeat((ends - sizes).astype(np.int32), sizes)


def _plane(plane: np.ndarray, which: np.ndarray, x: np.ndarray, y: np.ndarray) -> Float[np.ndarray, " n"]:
    dx, dy, constant = plane
    value: np.ndarray = dx[which] * x + dy[which] * y + constant[which]
    return value


def _mix(values: np.ndarray, corners: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A vertex attribute where the pixels are."""
    a, b, c = (values[i] for i in corners)
    u, v, w = weights if values.ndim == 1 else weights[:, :, None]
    mixed: np.ndarray = a * u + b * v + c * w
    return mixed


def _colour(model: Model, seen: Seen, corners: np.ndarray) -> Float[np.ndarray, "pixels 3"]:
    """RGB 0..255 of every pixel, before light falls on it."""
    if model.colours is None:
        colour = np.full((len(seen.pixel), 3), 255, np.float32)
    else:
        colour = _mix(model.colours.astype(np.float32), corners, seen.weights)
    material = model.material[seen.triangle]
    for number, made_of in enumerate(model.materials):
        here = np.flatnonzero(material == number)
        if made_of.texture is not None and len(here) > 0:
            u, v = (_mix(axis, corners[:, here], seen.weights[:, here]) for axis in model.texels.astype(np.float32).T)
            colour[here] *= sample(made_of.texture, u, v).astype(np.float32) / 255
    return colour


def _solid(model: Model, triangle: np.ndarray, corners: np.ndarray, weights: np.ndarray) -> Bool[np.ndarray, " n"]:
    """Where no hole of a texture is. Holes are small, so that weights without perspective will do."""
    solid = np.ones(len(triangle), bool)
    material = model.material[triangle]
    for number, made_of in enumerate(model.materials):
        here = np.flatnonzero(material == number)
        if made_of.alpha is not None and len(here) > 0:
            u, v = (_mix(axis, corners[:, here], weights[:, here]) for axis in model.texels.astype(np.float32).T)
            alpha = cv2.cvtColor(made_of.alpha, cv2.COLOR_GRAY2RGB)
            solid[here] = sample(alpha, u, v)[:, 0] >= made_of.cutoff * 255
    return solid
