"""Any mesh with ARKit's shapes as morph targets: which target is which shape, and its picture."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int32, UInt8
from scipy.sparse import csr_matrix

from talkface.errors import SourceError
from talkface.render import raster, zbuffer
from talkface.render.identity import Identity
from talkface.render.mesh import smooth
from talkface.render.raster import Camera
from talkface.render.rig import Canvas, wall
from talkface.render.zbuffer import Material, Model
from talkface.vocab import ARKIT

FACE_HEIGHT = 14.0
"""Height in cm to which the part of a mesh that the shapes move is scaled: about that of the built-in head."""
_AHEAD = np.array([0.0, 0.0, -46.0])
_PIVOT = np.array([0.0, -0.55 * FACE_HEIGHT, -0.6 * FACE_HEIGHT])
_LOWER = {name.lower(): i for i, name in enumerate(ARKIT)}
_SIDES = (("left", "_l"), ("right", "_r"))

Draw = Callable[[np.ndarray, Camera, np.ndarray, np.ndarray, Model], None]
"""Paints a model over a picture: `zbuffer.draw`, or the same on a GPU."""


def shape_of(target: str) -> int | None:
    """Which ARKit shape a morph target is, by its name: case and underscores do not matter, nor does what stands before
    a dot (``blendShape1.jaw_open``); ``_L`` and ``_R`` are Left and Right.

    A half of a shape that ARKit has in one piece (``browInnerUp_L``) is that shape.
    """
    name = re.sub(r"[\s\-]+", "_", target.rsplit(".", 1)[-1].strip()).lower()
    for side, short in _SIDES:
        if name.endswith(short):
            name = name.removesuffix(short) + side
    name = name.replace("_", "")
    halves = (name, name.removesuffix("left"), name.removesuffix("right"))
    return next((_LOWER[n] for n in halves if n in _LOWER), None)


@dataclass(frozen=True, kw_only=True)
class MorphMesh:
    """A mesh and what each ARKit shape adds to its vertices at 1.

    x to the person's left, y up, z out of the face, in any unit. ``targets`` maps names to displacements; those that
    are no shape of ARKit's are left out of ``basis`` and listed in ``ignored``. ``colours`` are RGB 0..255.

    Raises SourceError if no target is a shape of ARKit's.
    """

    name: str
    points: Float[np.ndarray, "vertices 3"]
    triangles: Int32[np.ndarray, "triangles 3"]
    targets: Mapping[str, Float[np.ndarray, "vertices 3"]] = field(repr=False)
    texels: Float[np.ndarray, "vertices 2"]
    colours: Float[np.ndarray, "vertices 3"]
    material: Int32[np.ndarray, " triangles"]
    materials: Sequence[Material] = field(default_factory=lambda: (Material(),))

    def __post_init__(self) -> None:
        if not any(shape_of(name) is not None for name in self.targets):
            found = ", ".join(list(self.targets)[:5]) or "none"
            raise SourceError(f"{self.name}: no morph target is an ARKit shape such as jawOpen (targets: {found}).")

    @cached_property
    def basis(self) -> Float[np.ndarray, "52 vertices 3"]:
        """Displacement of every vertex by every shape at 1; zero for a shape that the mesh lacks."""
        basis = np.zeros((len(ARKIT), *self.points.shape), np.float32)
        for name, moved in self.targets.items():
            shape = shape_of(name)
            if shape is not None:
                basis[shape] += moved
        return basis

    @property
    def missing(self) -> tuple[str, ...]:
        """Shapes of ARKit's that no target is."""
        there = {shape_of(name) for name in self.targets}
        return tuple(name for i, name in enumerate(ARKIT) if i not in there)

    @property
    def ignored(self) -> tuple[str, ...]:
        """Targets that are no shape of ARKit's."""
        return tuple(name for name in self.targets if shape_of(name) is None)


class MorphRig:
    """Pictures of a `MorphMesh`: head to shoulders, the face in the middle."""

    def __init__(self, mesh: MorphMesh, *, draw: Draw = zbuffer.draw, smooth_edges: bool = True) -> None:
        self.name = mesh.name
        self.missing = mesh.missing
        self._draw, self._smooth_edges = draw, smooth_edges
        centre, scale, turn = _place(mesh)
        self._rest = ((mesh.points - centre) @ turn.T * scale).astype(np.float32)
        basis = (mesh.basis @ turn.T * scale).astype(np.float32)
        self._basis = basis.reshape(len(ARKIT), -1)
        below = smooth(-0.75 * FACE_HEIGHT, -1.15 * FACE_HEIGHT, self._rest[:, 1])
        self._body = below[:, None].astype(np.float32)
        self._smooth = _vertex_normals(self._rest, mesh.triangles)
        self._model = Model(
            triangles=mesh.triangles,
            texels=mesh.texels,
            colours=None if (mesh.colours == 255).all() else mesh.colours,
            bias=np.zeros(len(mesh.points)),
            material=mesh.material,
            materials=mesh.materials,
        )

    def vertices(self, arkit: Float[np.ndarray, " 52"]) -> Float[np.ndarray, "vertices 3"]:
        """Vertices in cm in the head's frame for one row of shapes (NaN counts as 0)."""
        weights = np.clip(np.nan_to_num(arkit), 0, 1).astype(np.float32)
        return self._rest + (weights @ self._basis).reshape(-1, 3)

    def picture(
        self, arkit: Float[np.ndarray, " 52"], rotation: Float[np.ndarray, "3 3"], size: int
    ) -> UInt8[np.ndarray, "size size 3"]:
        """One frame, RGB. ``rotation`` maps head to camera."""
        points = self.vertices(arkit)
        turned = (points - _PIVOT) @ rotation.T.astype(np.float32) + _PIVOT
        points = turned + (points - turned) * self._body + _AHEAD
        camera = Camera(width=size, height=size, fov_degrees=34)
        canvas = Canvas(camera, wall(size, size, Identity().wall), finer(size, self._smooth_edges))
        bright = raster.light(self._smooth(points))
        self._draw(canvas.pixels, canvas.camera, points, bright, self._model)
        return canvas.picture()


def finer(size: int, smooth_edges: bool) -> float:
    """How many times finer a picture is drawn than it is shown: edges of large pictures need less."""
    return (1.5 if size >= 384 else 2.0) if smooth_edges else 1.0


def _place(mesh: MorphMesh) -> tuple[np.ndarray, float, np.ndarray]:
    """Middle of the face, scale to cm, and the turn that makes it look along z, from what the shapes move.

    A face is on the front: where the moved part lies behind the middle of the mesh, the mesh looks along -z.
    """
    moved = np.linalg.norm(mesh.basis, axis=2).max(axis=0)
    face = mesh.points[moved > 0.1 * moved.max()]
    low, high = np.percentile(face, (2, 98), axis=0)
    flipped = face[:, 2].mean() < (mesh.points[:, 2].min() + mesh.points[:, 2].max()) / 2
    turn = np.diag([-1.0, 1.0, -1.0]) if flipped else np.eye(3)
    return (low + high) / 2, FACE_HEIGHT / float(high[1] - low[1]), turn


def _vertex_normals(rest: np.ndarray, triangles: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function from vertices to unit normals, smooth also where a mesh is cut to lay out its texture."""
    size = float(np.ptp(rest, axis=0).max())
    _, group = np.unique(np.round(rest / (1e-5 * size)).astype(np.int64), axis=0, return_inverse=True)
    group = group.ravel()
    rows, cols = group[triangles].ravel(), np.repeat(np.arange(len(triangles)), 3)
    gather = csr_matrix((np.ones(len(rows), np.float32), (rows, cols)), shape=(int(group.max()) + 1, len(triangles)))

    def normals(points: np.ndarray) -> np.ndarray:
        a, b, c = (points[triangles[:, i]] for i in range(3))
        total = gather @ np.cross(b - a, c - a)
        unit: np.ndarray = (total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12))[group]
        return unit

    return normals
