"""The head's surfaces at rest: lofted skin with slits for eyes and mouth, eyeballs, teeth, tongue, ears, hair.

Units are centimetres in the head's own frame: x to the person's left (image right when the person faces the camera),
y up, z out of the face. The proportions are those of an average adult; no scan or third-party mesh is used.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from jaxtyping import Float, Int32
from scipy.interpolate import PchipInterpolator

EYE = np.array([3.15, 2.55, 2.35])
"""Centre of the left eyeball; the right one is its mirror image."""
EYE_RADIUS = 1.3
EYE_HALF_WIDTH = 1.46
AROUND_EYE = 20
EYE_LEVEL = 2.4
MOUTH_LEVEL = -4.4
MOUTH_HALF_WIDTH = 2.5
HINGE = np.array([0.0, 0.6, -2.0])
"""A point on the axis about which the jaw turns."""
CELL = 12
"""Texels along a side of one cell of the skin's grid."""

# level, y in front, rise at the side, half width, front z, back z, centre z
_LOFT = np.array(
    [
        (13.2, 13.1, 0.0, 0.04, -4.38, -4.46, -4.42),
        (12.6, 12.85, 0.0, 2.7, -1.2, -7.6, -4.3),
        (11.6, 12.0, 0.0, 4.85, 1.3, -10.2, -4.1),
        (10.0, 10.4, 0.0, 6.35, 3.4, -12.3, -3.6),
        (8.0, 8.15, 0.0, 7.15, 4.75, -13.3, -3.2),
        (6.0, 6.0, 0.0, 7.6, 5.2, -13.6, -2.8),
        (4.0, 4.0, 0.0, 7.7, 5.35, -13.5, -2.6),
        (2.4, 2.4, 0.0, 7.7, 5.2, -13.2, -2.4),
        (0.0, 0.0, 0.0, 7.6, 4.95, -12.4, -2.4),
        (-2.0, -2.0, 0.3, 7.4, 4.75, -11.2, -2.4),
        (-4.4, -4.4, 1.2, 7.0, 4.65, -10.2, -2.4),
        (-6.5, -6.5, 2.6, 6.5, 4.5, -9.8, -2.4),
        (-8.0, -8.0, 3.7, 6.05, 4.35, -9.6, -2.4),
        (-9.0, -8.9, 4.3, 5.8, 3.95, -9.6, -2.4),
        (-9.5, -9.25, 4.3, 5.6, 3.3, -9.7, -2.6),
        (-10.2, -9.4, 3.6, 5.4, 2.3, -9.8, -3.2),
        (-11.0, -9.8, 2.2, 4.9, 0.9, -9.9, -4.2),
        (-12.0, -11.0, 1.0, 4.75, 0.3, -10.0, -4.6),
        (-14.0, -13.2, 0.0, 4.9, 0.3, -10.2, -4.8),
        (-17.0, -16.5, 0.0, 5.6, 0.9, -10.8, -5.0),
    ]
)
_PROFILE = PchipInterpolator(_LOFT[::-1, 0], _LOFT[::-1, 1:])


def smooth(low: float, high: float, value: np.ndarray) -> np.ndarray:
    """0 below ``low``, 1 above ``high``, a cubic ease between (also for low > high)."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t))


def bump(x: np.ndarray, y: np.ndarray, at: tuple[float, float], size: tuple[float, float]) -> np.ndarray:
    """A Gaussian hill of height 1 around ``at``."""
    return np.asarray(np.exp(-(((x - at[0]) / size[0]) ** 2) - ((y - at[1]) / size[1]) ** 2))


@dataclass(frozen=True)
class Surface:
    """Vertices, quads and texture coordinates (in texels of this surface's own texture) of one part."""

    name: str
    points: Float[np.ndarray, "vertices 3"]
    quads: Int32[np.ndarray, "quads 4"]
    texels: Float[np.ndarray, "vertices 2"]


@dataclass(frozen=True)
class Skin:
    """The skin's grid: rows from crown to neck, columns around from the right ear over the nose to the left and back.

    ``x``, ``y``, ``z`` are at rest with open eyes; ``x0``, ``y0`` with eyes shut, where features are placed and
    painted. ``above_eye`` and ``above_mouth`` tell on which side of a slit a row lies.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    x0: np.ndarray
    y0: np.ndarray
    theta: np.ndarray
    level: np.ndarray
    above_eye: np.ndarray
    above_mouth: np.ndarray
    quads: np.ndarray = field(repr=False)


def levels() -> tuple[np.ndarray, int, int]:
    """Row levels, falling; the eye and mouth slits are doubled rows, whose upper indices follow."""
    eye = EYE_LEVEL + np.array([1.9, 1.6, 1.3, 1.05, 0.82, 0.62, 0.44, 0.28, 0.13, 0.0])
    low_eye = EYE_LEVEL - np.array([0.0, 0.13, 0.28, 0.46, 0.68, 0.95, 1.25, 1.6])
    mouth = MOUTH_LEVEL + np.array([2.2, 2.0, 1.75, 1.5, 1.25, 1.02, 0.82, 0.64, 0.47, 0.3, 0.14, 0.0])
    low_mouth = MOUTH_LEVEL - np.array([0.0, 0.14, 0.3, 0.48, 0.67, 0.86, 1.06, 1.3, 1.6, 1.95])
    top = [13.2, 12.6, 11.9, 11.2, 10.4, 9.6, 8.9, 8.2, 7.6, 7.0, 6.4, 5.8, 5.4, 5.0, 4.65]
    mid = [0.45, 0.1, -0.25, -0.6, -0.95, -1.25, -1.5, -1.75, -1.95]
    end = [-6.8, -7.3, -7.8, -8.3, -8.7, -9.0, -9.25, -9.6, -10.2, -11.0, -12.0, -13.2, -14.5, -17.0]
    rows = np.concatenate([top, eye, low_eye, mid, mouth, low_mouth, end])
    double = np.flatnonzero(np.diff(rows) == 0)
    return rows, int(double[0]), int(double[1])


def columns() -> np.ndarray:
    """Angles around the head in radians: 0 is the nose, positive the person's left; the last repeats the first."""
    fine = np.arange(0.0, 43.0, 2.0)
    side = np.array([45, 49, 54, 60, 67, 75, 83, 91, 100, 112, 128, 146, 164], float)
    half = np.radians(np.concatenate([fine, side]))
    return np.concatenate([[-np.pi], -half[:0:-1], half, [np.pi]])


def loft(level: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The plain head without features: x, y, z at a level and an angle."""
    y, rise, half, front, back, centre = np.moveaxis(_PROFILE(level), -1, 0)
    turned = 1.0 - np.cos(np.minimum(np.abs(theta), np.pi / 2))
    depth = np.where(np.cos(theta) > 0, front - centre, centre - back)
    return half * np.sin(theta), y + rise * turned, centre + depth * np.cos(theta)


def mouth_profile(x: np.ndarray) -> np.ndarray:
    """How far the lips may part: 1 in the middle, 0 at and beyond the corners."""
    return np.asarray(np.sqrt(np.clip(1.0 - (x / MOUTH_HALF_WIDTH) ** 2, 0.0, 1.0)))


def eye_profile(x: np.ndarray) -> np.ndarray:
    """How far the lids of the nearer eye part: 1 in its middle, 0 at and beyond its corners."""
    q = (np.abs(x) - EYE[0]) / EYE_HALF_WIDTH
    return np.asarray(np.clip(1.0 - q * q, 0.0, 1.0) ** 0.68)


def lid_z(x: np.ndarray, y: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """``plain`` bent around the eyeball where a lid covers it."""
    dx, dy = np.abs(x) - EYE[0], y - EYE[1]
    ball = EYE[2] + np.sqrt(np.maximum((EYE_RADIUS + 0.13) ** 2 - dx * dx - dy * dy, 0.02))
    near = 1.0 - smooth(0.75, 1.45, np.sqrt((dx / 1.3) ** 2 + (dy / 1.0) ** 2))
    return np.asarray(plain + (ball - plain) * near)


def nose(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How far the nose stands out of the plain face."""
    ridge = PchipInterpolator(
        [-3.2, -2.4, -1.95, -1.65, -1.35, -0.85, -0.4, 0.5, 1.6, 2.6, 3.4, 4.6],
        [0.0, 0.1, 0.35, 1.25, 2.1, 2.65, 2.45, 1.85, 1.15, 0.6, 0.3, 0.0],
    )
    inside = np.clip(y, -3.2, 4.6)
    width = np.interp(y, [-2.0, -1.0, 0.5, 2.5, 4.0], [0.9, 0.92, 0.8, 0.7, 0.9])
    wings = bump(np.abs(x), y, (1.15, -1.25), (0.52, 0.5)) * 0.95
    return np.asarray(ridge(inside) * np.exp(-((x / width) ** 2)) + wings * smooth(-2.0, -1.45, y))


def relief(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Added to z in front: nose, brow ridge, sockets, cheeks, muzzle, lips and chin."""
    side = np.abs(x)
    d = y - MOUTH_LEVEL - 0.1 * (x / MOUTH_HALF_WIDTH) ** 2
    share = np.clip(1.0 - (x / (MOUTH_HALF_WIDTH + 0.15)) ** 2, 0.0, 1.0) ** 0.5
    upper = np.sin(np.pi * np.clip(d / 0.95, 0, 1)) * (d > 0)
    lower = np.sin(np.pi * np.clip(-d / 1.15, 0, 1)) * (d <= 0)
    parts = (
        nose(x, y)
        + 0.3 * bump(side, y, (2.6, 4.1), (2.2, 0.7))
        - 0.5 * bump(side, y, (2.6, 2.7), (1.3, 1.0))
        + 0.4 * bump(side, y, (4.6, 0.1), (2.0, 1.7))
        - 0.25 * bump(side, y, (5.0, -4.2), (1.4, 1.8))
        + 0.75 * bump(x, y, (0.0, -4.2), (2.5, 2.0))
        + (0.42 * upper + 0.5 * lower) * share
        - 0.2 * share * np.exp(-((d / 0.16) ** 2))
        - 0.25 * bump(x, y, (0.0, -6.35), (1.6, 0.5))
        + 0.55 * bump(x, y, (0.0, -8.0), (1.5, 1.0))
        - 0.12 * bump(x, y, (0.0, -2.9), (0.3, 0.5))
    )
    return np.asarray(parts * smooth(-1.5, 1.0, z))


@cache
def skin() -> Skin:
    """The skin's grid at rest."""
    rows, eye_row, mouth_row = levels()
    theta, level = np.meshgrid(columns(), rows)
    number = np.arange(len(rows))[:, None] + 0 * theta
    above_eye, above_mouth = number <= eye_row, number <= mouth_row
    x0, y0, plain = loft(level, theta)
    tilt = 0.12 * smooth(2.0, 4.5, np.abs(x0)) * bump(0 * y0, y0, (0, EYE_LEVEL), (1, 1.5)) * (plain > -1)
    y0 = y0 + tilt
    opened = y0 + open_lids(x0, level, above_eye, plain)
    z = lid_z(x0, opened, plain + relief(x0, y0, plain))
    front = smooth(-1.0, 0.5, plain)
    z = plain + (z - plain) * front
    quads = _skin_quads(theta.shape, eye_row, mouth_row, x0, plain)
    return Skin(x0, opened, z, x0, y0, theta, level, above_eye, above_mouth, quads)


def open_lids(x: np.ndarray, level: np.ndarray, above: np.ndarray, z: np.ndarray) -> np.ndarray:
    """How far parting the lids lifts the skin."""
    d = level - EYE_LEVEL
    up = 0.7 * np.clip(1.0 - d / 1.9, 0, 1) ** 2
    down = -0.4 * np.clip(1.0 + d / 1.5, 0, 1) ** 2
    return np.asarray(np.where(above, up, down) * eye_profile(x) * (z > 0))


def _skin_quads(
    shape: tuple[int, ...], eye_row: int, mouth_row: int, x: np.ndarray, z: np.ndarray
) -> Int32[np.ndarray, "quads 4"]:
    """Quads of the grid; the two rows of a slit share their vertices outside the opening."""
    index = np.arange(shape[0] * shape[1]).reshape(shape)
    index[:, -1] = index[:, 0]
    for row, profile in ((eye_row, eye_profile), (mouth_row, mouth_profile)):
        joined = (profile(x[row]) == 0) | (z[row] < 0)
        index[row + 1, joined] = index[row, joined]
    keep = np.setdiff1d(np.arange(shape[0] - 1), [eye_row, mouth_row])
    corners = (index[keep, :-1], index[keep + 1, :-1], index[keep + 1, 1:], index[keep, 1:])
    return np.stack([c.ravel() for c in corners], axis=1).astype(np.int32)


def ring_surface(
    name: str, rings: Sequence[Float[np.ndarray, "around 3"]], texels: Sequence[Float[np.ndarray, "around 2"]]
) -> Surface:
    """A closed tube from rings of points, each ring's last point not repeating its first."""
    n_rings, around = len(rings), len(rings[0])
    index = np.arange(n_rings * around).reshape(n_rings, around)
    wrapped = np.concatenate([index, index[:, :1]], axis=1)
    corners = (wrapped[:-1, :-1], wrapped[1:, :-1], wrapped[1:, 1:], wrapped[:-1, 1:])
    quads = np.stack([c.ravel() for c in corners], axis=1).astype(np.int32)
    return Surface(name, np.concatenate(rings), quads, np.concatenate(texels))


def grid_surface(name: str, points: Float[np.ndarray, "rows columns 3"], size: tuple[float, float]) -> Surface:
    """An open sheet of rows and columns; texels spread evenly over ``size`` (width, height)."""
    rows, cols = points.shape[:2]
    index = np.arange(rows * cols).reshape(rows, cols)
    corners = (index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:])
    quads = np.stack([c.ravel() for c in corners], axis=1).astype(np.int32)
    u, v = np.meshgrid(np.linspace(0, size[0] - 1, cols), np.linspace(0, size[1] - 1, rows))
    return Surface(name, points.reshape(-1, 3), quads, np.stack([u.ravel(), v.ravel()], axis=1))


def eyeball(side: int, texture: int) -> Surface:
    """A half sphere looking along z; its last ``AROUND_EYE`` vertices are a rim that fills the eye's corners.

    The texture is a square picture of the eye seen from the front.
    """
    polar = np.radians([0.05, 10, 18, 25, 27, 34, 45, 58, 72, 86])
    turn = np.linspace(0, 2 * np.pi, AROUND_EYE, endpoint=False)
    rings, texels = [], []
    for p in polar:
        ring = np.stack([np.sin(p) * np.cos(turn), np.sin(p) * np.sin(turn), np.full(AROUND_EYE, np.cos(p))], axis=1)
        rings.append(EYE * (side, 1, 1) + EYE_RADIUS * ring)
        reach = np.degrees(p) / 100 * (texture / 2 - 2)
        texels.append(np.stack([np.cos(turn), -np.sin(turn)], axis=1) * reach + texture / 2)
    corner = np.stack([1.85 * np.cos(turn), 1.5 * np.sin(turn), np.full(AROUND_EYE, 0.25)], axis=1)
    rings.append(EYE * (side, 1, 1) + corner)
    texels.append(np.stack([np.cos(turn), -np.sin(turn)], axis=1) * (texture / 2 - 2) + texture / 2)
    return ring_surface("eye_left" if side > 0 else "eye_right", rings, texels)


def glint(side: int) -> Surface:
    """The light's reflection on an eye: a small disc that stays where it is while the eye turns."""
    turn = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    middle = EYE * (side, 1, 1) + (EYE_RADIUS + 0.02) * np.array([-0.21, 0.2, 0.957])
    rings = [
        middle + np.stack([r * np.cos(turn), r * np.sin(turn), 0 * turn], axis=1) * 1.0 for r in (0.01, 0.09, 0.17)
    ]
    name = "glint_left" if side > 0 else "glint_right"
    return ring_surface(name, rings, [np.full((10, 2), 4.0)] * 3)


def mouth_inside() -> list[Surface]:
    """Cavity, upper and lower teeth, tongue."""
    u, v = np.meshgrid(np.linspace(-1, 1, 11), np.linspace(0, 1, 7))
    across, down = np.sin(u * np.pi / 2), -np.cos(v * np.pi)
    deep = np.sqrt(np.clip(1 - across**2, 0, 1) * np.clip(1 - down**2, 0, 1))
    cavity = np.stack(
        [3.1 * across * np.sqrt(1 - 0.7 * down**2), -4.9 - 2.1 * down, 4.0 - 1.4 * down**2 - 3.2 * deep], axis=-1
    )
    turn = u * np.radians(78)
    upper = np.stack([2.35 * np.sin(turn), -3.6 - 1.0 * v + 0.25 * u**2, 1.3 + 3.2 * np.cos(turn)], axis=-1)
    lower = np.stack([2.2 * np.sin(turn), -4.75 - 0.9 * v + 0.15 * u**2, 1.2 + 2.95 * np.cos(turn)], axis=-1)
    return [
        grid_surface("cavity", cavity, (64, 64)),
        grid_surface("teeth_upper", upper, (96, 32)),
        grid_surface("teeth_lower", lower, (96, 32)),
        grid_surface("tongue", tongue(out=False), (64, 64)),
    ]


def tongue(*, out: bool) -> Float[np.ndarray, "rows columns 3"]:
    """The tongue's points, from its back over the tip to its underside: resting behind the teeth, or stuck out."""
    u, angle = np.meshgrid(np.linspace(-1, 1, 11), np.linspace(1.0, -0.5, 9) * np.pi / 2)
    front, high = np.cos(angle) * np.sqrt(np.clip(1.05 - u**2, 0, 1)), np.sin(angle) * (1 - 0.5 * u**2)
    if out:
        return np.stack([1.3 * u, -4.85 + 0.35 * high - 1.1 * front**3, 0.6 + 6.4 * front], axis=-1)
    return np.stack([1.75 * u, -5.55 + 0.75 * high, 0.4 + 3.1 * front], axis=-1)


def ear(side: int) -> Surface:
    """A shallow dish on the side of the head."""
    turn = np.linspace(0, 2 * np.pi, 18, endpoint=False)
    rings, texels = [], []
    for reach, out in ((0.1, 0.15), (0.35, 0.12), (0.6, 0.45), (0.8, 0.75), (0.95, 0.7), (1.0, 0.35), (0.8, -0.4)):
        lobe = 1.0 - 0.25 * smooth(0.2, -1.0, np.sin(turn))
        back, up = -np.cos(turn) * reach * 1.45 * lobe, np.sin(turn) * reach * 2.6
        ring = np.stack([7.35 + out - 0.3 * back, 0.7 + up, -2.7 + back], axis=1)
        rings.append(ring * (side, 1, 1))
        texels.append(np.stack([32 + 28 * reach * np.cos(turn), 32 - 28 * reach * np.sin(turn)], axis=1))
    surface = ring_surface("ear_left" if side > 0 else "ear_right", rings, texels)
    return Surface(surface.name, surface.points, surface.quads[:, ::side], surface.texels)


def long_hair() -> Surface:
    """A curtain from the temples around the back, down to the shoulders."""
    theta, level = np.meshgrid(np.radians(np.linspace(58, 302, 36)), np.linspace(9.5, -15.5, 16))
    x, y, z = loft(np.maximum(level, 0.0), np.where(theta > np.pi, theta - 2 * np.pi, theta))
    flare = 1.09 + 0.1 * smooth(3.0, -8.0, level)
    points = np.stack([x * flare, np.where(level < 0, level, y), (z + 3.0) * 1.06 - 3.0], axis=-1)
    return grid_surface("curtain", points, (256, 128))


def bun() -> Surface:
    """A ball of hair on top of the back of the head."""
    turn = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    rings, texels = [], []
    for p in np.linspace(0.05, np.pi * 0.85, 9):
        ring = np.stack([np.sin(p) * np.cos(turn), np.full(16, np.cos(p)), -np.sin(p) * np.sin(turn)], axis=1)
        rings.append(np.array([0, 13.6, -5.5]) + 3.1 * ring)
        texels.append(np.stack([turn * 12, np.full(16, p * 30)], axis=1))
    return ring_surface("bun", rings, texels)


@cache
def torso() -> Surface:
    """Neck base to chest, in the body's own frame, which is the head's at rest."""
    rows = np.array(
        [
            (-12.2, 4.2, -0.6, -9.6),
            (-13.6, 5.9, 1.6, -11.4),
            (-14.2, 8.4, 2.5, -12.4),
            (-14.9, 11.8, 3.1, -12.8),
            (-16.0, 15.4, 3.8, -13.2),
            (-18.0, 18.6, 4.6, -13.5),
            (-21.5, 20.4, 5.6, -13.8),
            (-26.0, 21.2, 6.8, -14.0),
            (-40.0, 21.5, 8.0, -14.0),
        ]
    )
    y, half, front, back = np.moveaxis(PchipInterpolator(np.arange(9.0), rows)(np.linspace(0, 8, 22)), -1, 0)
    turn = np.linspace(-np.pi, np.pi, 40, endpoint=False)
    sides = np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** 0.85
    rings = []
    for row in range(len(y)):
        middle, depth = (front[row] + back[row]) / 2, (front[row] - back[row]) / 2
        droop = -0.9 * smooth(6, 18, np.abs(half[row] * sides)) * (row < 14)
        rings.append(np.stack([half[row] * sides, y[row] + droop, middle + depth * np.cos(turn)], axis=1))
    return ring_surface("torso", rings, [np.zeros((40, 2))] * len(rings))


def hair_cover(theta: np.ndarray, level: np.ndarray) -> np.ndarray:
    """1 where hair grows, 0 on bare skin, eased over the hairline."""
    line = np.interp(
        np.degrees(np.abs(theta)),
        [0, 12, 30, 46, 56, 63, 68, 74, 82, 90, 97, 106, 125, 180],
        [8.1, 8.2, 7.9, 6.9, 5.2, 2.6, 0.4, -0.4, 1.2, 3.4, 3.0, -1.5, -5.5, -6.5],
    )
    swept = -0.9 * np.exp(-(((np.degrees(theta) + 22) / 16) ** 2)) + 0.35 * np.exp(
        -(((np.degrees(theta) - 24) / 9) ** 2)
    )
    return smooth(-0.22, 0.22, level - line - swept)
