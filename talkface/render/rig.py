"""A head that all 52 ARKit shapes move, and its picture.

Frame of the head: centimetres, x to the person's left, y up, z out of the face, origin between the ears. Camera: at the
origin, looking along -z, x to the right of the picture, y up. A rotation matrix maps head to camera; without rotation
the person faces the camera, so that the person's left is the picture's right.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from scipy.sparse import csr_matrix

from talkface.render import mesh, paint, raster, shapes
from talkface.render.identity import Colour, Identity
from talkface.render.mesh import EYE, Surface, smooth
from talkface.render.raster import Camera
from talkface.vocab import ARKIT

PIVOT = np.array([0.0, -9.0, -5.0])
"""Where the head sits on the neck: the point about which it seems to turn."""
GAZE_DEGREES = (30.0, 24.0)
"""Turn of an eyeball, sideways and up or down, at a shape of 1."""
_INDEX = {name: i for i, name in enumerate(ARKIT)}
_BIAS = {
    **dict.fromkeys(("eye_left", "eye_right"), -2.5),
    **dict.fromkeys(("glint_left", "glint_right"), -2.0),
    "cavity": -6.0,
    **dict.fromkeys(("teeth_upper", "teeth_lower"), -0.6),
    "tongue": -0.4,
}
"""Centimetres towards the camera when quads are sorted: what lies behind the skin must be painted before it."""
_TWO_SIDED = ("curtain", "eye_left", "eye_right")


class Canvas:
    """A picture in the making, ``supersample`` times finer than the camera's."""

    def __init__(self, camera: Camera, background: UInt8[np.ndarray, "height width 3"], supersample: float = 2) -> None:
        self._size = (camera.width, camera.height)
        width, height = round(camera.width * supersample), round(camera.height * supersample)
        self.camera = Camera(width=width, height=height, fov_degrees=camera.fov_degrees)
        size = (self.camera.width, self.camera.height)
        self.pixels = cv2.resize(background, size, interpolation=cv2.INTER_LINEAR)

    def picture(self) -> UInt8[np.ndarray, "height width 3"]:
        """What has been drawn, RGB, at the camera's size."""
        return np.asarray(cv2.resize(self.pixels, self._size, interpolation=cv2.INTER_AREA))


@dataclass(frozen=True)
class Part:
    """Where a surface lies in the head's arrays."""

    vertices: slice
    quads: slice


@dataclass(frozen=True)
class Marks:
    """A few vertices of the skin, at rest and by shape."""

    rest: Float[np.ndarray, "marks 3"]
    basis: Float[np.ndarray, "shapes marks 3"]


class Head:
    """One person's head: vertices for any expression, pictures for any pose."""

    def __init__(self, identity: Identity | None = None) -> None:
        self.identity = identity or Identity()
        surfaces = list(_surfaces(self.identity))
        self.texture, places = paint.atlas(self.identity)
        self.parts, points, quads, texels = _join(surfaces, places)
        self.quads, self.texels = quads, texels.astype(np.float32)
        self.rest = (_warp(points, self.identity) + self._hair_lift(points)) @ _LEVEL.T
        self.basis = (self._basis(points) @ _LEVEL.T).astype(np.float32)
        self._normals = _normal_operator(quads, len(points))
        self._bias = np.zeros(len(quads))
        self._both = np.zeros(len(quads), bool)
        for name, part in self.parts.items():
            self._bias[part.quads] = _BIAS.get(name, 0.0)
            self._both[part.quads] = name in _TWO_SIDED

    def vertices(self, arkit: Float[np.ndarray, " 52"]) -> Float[np.ndarray, "vertices 3"]:
        """Vertices in the head's frame for one row of blendshapes (Apple's order, 0..1; NaN counts as 0)."""
        weights = _corrected(np.nan_to_num(np.asarray(arkit, np.float64)))
        points = self.rest + np.tensordot(weights.astype(np.float32), self.basis, axes=1)
        for side, word in ((1, "Left"), (-1, "Right")):
            self._turn_eye(points, np.asarray(arkit), side, word)
        return points

    def pose(
        self, points: Float[np.ndarray, "vertices 3"], rotation: Float[np.ndarray, "3 3"], translation: np.ndarray
    ) -> Float[np.ndarray, "vertices 3"]:
        """Head to camera; the neck blends into a body that stays upright."""
        turned = points @ rotation.T + translation
        body = points + (rotation @ PIVOT + translation - PIVOT)
        return turned + (body - turned) * self._on_body[:, None]

    def render(
        self,
        arkit: Float[np.ndarray, " 52"],
        rotation: Float[np.ndarray, "3 3"],
        translation: Float[np.ndarray, " 3"],
        *,
        camera: Camera | None = None,
        background: UInt8[np.ndarray, "height width 3"] | None = None,
        supersample: float = 2,
    ) -> UInt8[np.ndarray, "height width 3"]:
        """The picture, RGB. ``background`` has the camera's size; without it a plain wall is drawn."""
        camera = camera or Camera()
        if background is None:
            background = wall(camera.width, camera.height, self.identity.wall)
        canvas = Canvas(camera, background, supersample)
        self.draw(canvas, arkit, rotation, translation)
        return canvas.picture()

    def draw(
        self,
        canvas: "Canvas",
        arkit: Float[np.ndarray, " 52"],
        rotation: Float[np.ndarray, "3 3"],
        translation: Float[np.ndarray, " 3"],
    ) -> None:
        """Paint body and head over what the canvas holds; several people are drawn farthest first."""
        self._draw_body(canvas.pixels, canvas.camera, rotation @ PIVOT + translation - PIVOT)
        self._draw_head(canvas.pixels, canvas.camera, self.pose(self.vertices(arkit), rotation, translation))

    def box(
        self,
        arkit: Float[np.ndarray, " 52"],
        rotation: Float[np.ndarray, "3 3"],
        translation: Float[np.ndarray, " 3"],
        camera: Camera,
    ) -> Float[np.ndarray, " 4"]:
        """x0 y0 x1 y1 in pixels around the face, as far as MediaPipe's mesh covers it: forehead to chin."""
        pixels = camera.project(self._some(self._oval, arkit) @ rotation.T + translation)
        return np.concatenate([pixels.min(axis=0), pixels.max(axis=0)])

    def mouth_open(self, arkit: Float[np.ndarray, " 52"]) -> float:
        """Distance between the lips' inner edges in the middle of the mouth, in cm."""
        upper, lower = self._some(self._lips, arkit)
        return float(np.linalg.norm(upper - lower))

    def some_vertices(self, vertices: np.ndarray, arkit: Float[np.ndarray, " 52"]) -> Float[np.ndarray, "some 3"]:
        """Some vertices of `vertices`, eyes apart, for the price of those."""
        weights = _corrected(np.nan_to_num(np.asarray(arkit, np.float64))).astype(np.float32)
        return self.rest[vertices] + np.tensordot(weights, self.basis[:, vertices], axes=1)

    def _some(self, marks: "Marks", arkit: np.ndarray) -> Float[np.ndarray, "marks 3"]:
        weights = _corrected(np.nan_to_num(np.asarray(arkit, np.float64)))
        return marks.rest + np.tensordot(weights.astype(np.float32), marks.basis, axes=1)

    def _marks(self, vertices: np.ndarray) -> "Marks":
        return Marks(self.rest[vertices], self.basis[:, vertices])

    @cached_property
    def _oval(self) -> "Marks":
        s = mesh.skin()
        inside = (s.level < 6.5) & (s.level > -8.8) & (np.abs(np.degrees(s.theta)) < 68)
        return self._marks(np.flatnonzero(inside.ravel()))

    @cached_property
    def _lips(self) -> "Marks":
        s = mesh.skin()
        _, _, row = mesh.levels()
        middle = int(np.argmin(np.abs(s.theta[0])))
        return self._marks(np.array([row, row + 1]) * s.x.shape[1] + middle)

    @cached_property
    def _on_body(self) -> np.ndarray:
        share = np.zeros(len(self.rest))
        s = mesh.skin()
        share[self.parts["skin"].vertices] = smooth(-9.6, -14.5, s.level).ravel()
        if "curtain" in self.parts:
            part = self.parts["curtain"].vertices
            share[part] = 0.8 * smooth(-3.0, -15.0, self.rest[part, 1])
        return share

    @cached_property
    def _shadow(self) -> np.ndarray:
        """Static darkening a vertex: under the jaw, in the mouth."""
        shadow = np.ones(len(self.rest), np.float32)
        s = mesh.skin()
        under = smooth(-9.0, -10.4, s.level) * (1 - 0.5 * smooth(-12.0, -16.0, s.level))
        shadow[self.parts["skin"].vertices] = (1 - 0.42 * under * smooth(-9.5, -5.0, s.z)).ravel()
        for name, value in (("teeth_upper", 0.92), ("teeth_lower", 0.8), ("tongue", 0.85)):
            shadow[self.parts[name].vertices] = value
        return shadow

    @cached_property
    def _cloth(self) -> UInt8[np.ndarray, "quads 3"]:
        """Colour of each quad of the body, which does not turn."""
        surface = mesh.torso()
        operator = _normal_operator(surface.quads, len(surface.points))
        normals = _unit(operator @ _quad_normals(surface.points, surface.quads))
        tone = raster.RAMP[(raster.light(normals)[surface.quads].mean(axis=1) * 255).astype(np.int32)]
        return np.clip(np.array(self.identity.clothes) * tone, 0, 255).astype(np.uint8)

    @cached_property
    def _sheen(self) -> np.ndarray:
        """How glossy each vertex of the skin is: forehead, nose, lips and hair a little."""
        s = mesh.skin()
        lips = mesh.bump(s.x0, s.y0, (0.0, mesh.MOUTH_LEVEL - 0.5), (1.4, 0.6))
        hair = mesh.hair_cover(s.theta, s.level) * (self.identity.hair != "bald")
        return np.asarray((0.13 * (1 - hair) + 0.22 * hair + 0.12 * lips) * smooth(-9.5, -8.0, s.level)).ravel()

    def _hair_lift(self, points: np.ndarray) -> np.ndarray:
        lift = np.zeros_like(points)
        if self.identity.hair != "bald":
            s = mesh.skin()
            out = np.stack([s.x, 0.75 * (s.y - 3.0), s.z + 3.5], axis=-1)
            out /= np.maximum(np.linalg.norm(out, axis=-1, keepdims=True), 1e-6)
            high = 0.35 + 0.75 * smooth(3.0, 10.0, s.level)
            cover = mesh.hair_cover(s.theta, s.level) * high
            lift[self.parts["skin"].vertices] = (out * cover[..., None]).reshape(-1, 3)
        return lift

    def _basis(self, points: np.ndarray) -> Float[np.ndarray, "53 vertices 3"]:
        fields = shapes.skin_shapes()
        basis = np.zeros((len(ARKIT) + 1, *points.shape), np.float32)
        for i, name in enumerate((*ARKIT, shapes.SEAL)):
            basis[i, self.parts["skin"].vertices] = fields[name].reshape(-1, 3)
        self._mouth_basis(basis, points)
        return basis

    def _mouth_basis(self, basis: np.ndarray, points: np.ndarray) -> None:
        for name, weight in (("teeth_lower", 1.0), ("tongue", 0.95), ("cavity", 0.5)):
            at = self.parts[name].vertices
            basis[_INDEX["jawOpen"], at] = shapes.jaw_turn(points[at], np.array(weight))
            for shape, shift in (("jawForward", (0, 0, 0.9)), ("jawLeft", (1, 0, 0)), ("jawRight", (-1, 0, 0))):
                basis[_INDEX[shape], at] = np.array(shift) * weight
        at = self.parts["cavity"].vertices
        for side, word in ((1, "Left"), (-1, "Right")):
            share = smooth(0.0, 3.0, side * points[at, 0])[:, None]
            for shape, wider in (("mouthSmile", (0.75, 0.3, -0.25)), ("mouthStretch", (0.6, -0.1, -0.25))):
                basis[_INDEX[shape + word], at] = share * np.array(wider) * (side, 1, 1)
        at = self.parts["tongue"].vertices
        basis[_INDEX["tongueOut"], at] = mesh.tongue(out=True).reshape(-1, 3) - mesh.tongue(out=False).reshape(-1, 3)

    def _turn_eye(self, points: np.ndarray, arkit: np.ndarray, side: int, word: str) -> None:
        value = {d: float(np.nan_to_num(arkit[_INDEX[f"eyeLook{d}{word}"]])) for d in ("In", "Out", "Up", "Down")}
        yaw = np.radians(GAZE_DEGREES[0]) * side * (value["Out"] - value["In"])
        pitch = np.radians(GAZE_DEGREES[1]) * (value["Up"] - value["Down"])
        at = self.parts["eye_left" if side > 0 else "eye_right"].vertices
        turn = rotation_matrix(float(np.degrees(yaw)), float(np.degrees(pitch)), 0.0)
        centre = _LEVEL @ (EYE * (side, 1, 1) * (self.identity.width, 1, 1))
        ball = slice(at.start, at.stop - mesh.AROUND_EYE)
        points[ball] = (self.rest[ball] - centre) @ turn.T + centre

    def _draw_body(self, picture: np.ndarray, camera: Camera, shift: np.ndarray) -> None:
        surface = mesh.torso()
        points = surface.points + shift
        pixels = camera.project(points)
        none = np.zeros(len(surface.quads))
        order = raster.front_order(pixels, points[:, 2], surface.quads, none, none.astype(bool))
        quads = surface.quads[order]
        raster.fill_flat(picture, pixels[quads], self._cloth[order])

    def _draw_head(self, picture: np.ndarray, camera: Camera, points: np.ndarray) -> None:
        normals = _unit(self._normals @ _quad_normals(points, self.quads))
        bright = self._brightness(points, normals)
        pixels = camera.project(points)
        order = raster.front_order(pixels, points[:, 2], self.quads, self._bias, self._both)
        quads = self.quads[order]
        buffer = np.zeros(picture.shape[:2], np.int32)
        corners = pixels[quads]
        raster.fill_indices(buffer, corners)
        values = np.concatenate([self.texels, bright[:, None]], axis=1)[quads]
        raster.shade(picture, buffer, corners, values, self.texture)

    def _brightness(self, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        bright = raster.light(normals) * self._shadow
        skin = self.parts["skin"].vertices
        bright[skin] += self._sheen * raster.gloss(normals[skin])
        for name in ("eye_left", "eye_right"):
            at = self.parts[name].vertices
            up = (points[at, 1] - points[at, 1].mean()) / mesh.EYE_RADIUS
            bright[at] = 0.95 - 0.4 * smooth(0.1, 0.6, up)
        bright[self.parts["cavity"].vertices] = 0.6
        bright[self.parts["glint_left"].vertices] = bright[self.parts["glint_right"].vertices] = 1.0
        return bright


@lru_cache(maxsize=8)
def wall(width: int, height: int, colour: Colour) -> UInt8[np.ndarray, "height width 3"]:
    """A plain background with a soft fall-off of light."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    away = np.hypot((x / width - 0.42) * 1.1, y / height - 0.35)
    tone = 1.06 - 0.34 * smooth(0.0, 0.95, away)
    return np.clip(np.array(colour, np.float32) * tone[..., None], 0, 255).astype(np.uint8)


def rotation_matrix(yaw: float, pitch: float, roll: float) -> Float[np.ndarray, "3 3"]:
    """Head to camera from degrees: Ry(yaw) @ Rx(-pitch) @ Rz(roll), as talkface.annotate.head.

    yaw > 0: the person turns to their left, the nose moves to the picture's right. pitch > 0: looks up.
    roll > 0: the head tilts to the person's right shoulder, anticlockwise in the picture.
    """
    y, p, r = np.radians([yaw, -pitch, roll])
    ry = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    rx = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    rz = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return np.asarray(ry @ rx @ rz)


_LEVEL = rotation_matrix(0.0, 4.2, 0.0)
"""From the frame of mesh.py to the head's: what MediaPipe takes for a level head looks up by this much there."""


def _surfaces(who: Identity) -> Iterator[Surface]:
    s = mesh.skin()
    rows, cols = s.x.shape
    v, u = np.mgrid[:rows, :cols] * mesh.CELL
    points = np.stack([s.x, s.y, s.z], axis=-1).reshape(-1, 3)
    yield Surface("skin", points, s.quads, np.stack([u.ravel(), v.ravel()], axis=1).astype(float))
    for side in (1, -1):
        yield mesh.eyeball(side, paint.EYE_TEXELS)
        yield mesh.glint(side)
        yield mesh.ear(side)
    yield from mesh.mouth_inside()
    if who.hair == "long":
        yield mesh.long_hair()
    if who.hair == "bun":
        yield mesh.bun()


def _join(
    surfaces: list[Surface], places: "dict[str, tuple[int, int]] | object"
) -> tuple[dict[str, Part], np.ndarray, np.ndarray, np.ndarray]:
    parts, v, q = {}, 0, 0
    quads = []
    for s in surfaces:
        parts[s.name] = Part(slice(v, v + len(s.points)), slice(q, q + len(s.quads)))
        quads.append(s.quads + v)
        v, q = v + len(s.points), q + len(s.quads)
    texels = np.concatenate([s.texels + np.array(places[s.name]) for s in surfaces])  # type: ignore[index]
    return parts, np.concatenate([s.points for s in surfaces]), np.concatenate(quads), texels


def _warp(points: np.ndarray, who: Identity) -> np.ndarray:
    """Proportions of a person: smooth stretches of the average head that leave the eyes in place."""
    x, y, z = points.T
    front = smooth(-3.0, 1.0, z)
    lower = smooth(-1.0, -7.0, y) * smooth(-13.0, -9.5, y)
    near_nose = mesh.bump(x, y, (0.0, -0.8), (1.7, 2.2)) * front
    wide = x * (1 + (who.jaw - 1) * lower + (who.nose_width - 1) * near_nose) * who.width
    tall = y + (who.chin - 1) * 6.0 * np.minimum(0, (y + 4.4) / 4.6) * smooth(-14.0, -9.5, y)
    deep = z + (who.nose - 1) * mesh.nose(x, np.clip(y, -3.2, 4.6)) * front * (np.abs(x) < 2.2)
    return np.stack([wide, tall, deep], axis=1)


def _corrected(arkit: np.ndarray) -> np.ndarray:
    """Weights of the 52 shapes and the seal, so that lids and lips meet instead of crossing."""
    weights = np.append(np.clip(arkit, 0.0, 1.0), 0.0)
    for word in ("Left", "Right"):
        blink = weights[_INDEX["eyeBlink" + word]]
        for name, share in (("eyeWide", 1.0), ("eyeSquint", 0.9), ("eyeLookDown", 1.0), ("eyeLookUp", 1.0)):
            weights[_INDEX[name + word]] *= 1.0 - share * blink
    weights[-1] = min(weights[_INDEX["mouthClose"]], weights[_INDEX["jawOpen"]])
    return weights


def _quad_normals(points: np.ndarray, quads: np.ndarray) -> np.ndarray:
    a, b = points[quads[:, 2]] - points[quads[:, 0]], points[quads[:, 3]] - points[quads[:, 1]]
    return np.asarray(np.cross(a, b))


def _normal_operator(quads: np.ndarray, n_points: int) -> csr_matrix:
    """Sparse matrix that adds each quad's normal to its corners."""
    rows = quads.ravel()
    cols = np.repeat(np.arange(len(quads)), 4)
    return csr_matrix((np.ones(len(rows), np.float32), (rows, cols)), shape=(n_points, len(quads)))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9))
