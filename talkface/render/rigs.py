"""What motion can be shown on: the built-in head, a glTF file, ICT-FaceKit."""

from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Float, UInt8

from talkface.errors import ConfigError
from talkface.render import gl, zbuffer
from talkface.render.gltf import read_gltf
from talkface.render.ict import read_ict
from talkface.render.identity import Identity
from talkface.render.morph import Draw, MorphMesh, MorphRig, finer
from talkface.render.raster import Camera
from talkface.render.rig import PIVOT, Head
from talkface.render.zbuffer import Material
from talkface.vocab import ARKIT

SYNTHETIC = "synthetic"
GL = Literal["auto", "never", "egl"]
_CAVITY_BACK = 1.8
"""Centimetres by which the mouth's inside goes back in `head_mesh`: the built-in head paints it before the skin."""
_AHEAD = np.array([0.0, -0.8, -31.0])


class Rig(Protocol):
    """Something that 52 shapes and a rotation move. ``missing`` are the shapes that move nothing."""

    name: str
    missing: tuple[str, ...]

    def picture(
        self, arkit: Float[np.ndarray, " 52"], rotation: Float[np.ndarray, "3 3"], size: int
    ) -> UInt8[np.ndarray, "size size 3"]:
        """One frame, RGB. ``arkit`` is 0..1 (NaN counts as 0), ``rotation`` maps head to camera."""
        ...


class SyntheticRig:
    """The built-in head: all 52 shapes."""

    name = SYNTHETIC
    missing: tuple[str, ...] = ()

    def __init__(self, identity: Identity | None = None, *, smooth_edges: bool = True) -> None:
        self.head = Head(identity)
        self._smooth_edges = smooth_edges

    def picture(
        self, arkit: Float[np.ndarray, " 52"], rotation: Float[np.ndarray, "3 3"], size: int
    ) -> UInt8[np.ndarray, "size size 3"]:
        """One frame, RGB; the head turns about the neck."""
        place = _AHEAD + PIVOT - rotation @ PIVOT
        camera = Camera(width=size, height=size)
        return self.head.render(arkit, rotation, place, camera=camera, supersample=finer(size, self._smooth_edges))


def open_rig(what: str, *, gl_use: GL = "auto", smooth_edges: bool = True) -> Rig:
    """``synthetic``, a .glb or .gltf file, or ICT-FaceKit's folder.

    ``gl_use`` is whether a GPU draws meshes from files: ``egl`` takes any GL there is, ``auto`` only real hardware.
    Raises ConfigError for what is none of these or a GL that cannot be had, SourceError for files that cannot be used.
    """
    if what == SYNTHETIC:
        return SyntheticRig(smooth_edges=smooth_edges)
    path = Path(what)
    if not path.exists():
        raise ConfigError(f"--rig {what}: expected {SYNTHETIC!r}, a .glb or .gltf file, or ICT-FaceKit's folder.")
    mesh = read_ict(path) if path.is_dir() else read_gltf(path)
    painter = gl.painter(gl_use)
    draw: Draw = zbuffer.draw if painter is None else painter
    return MorphRig(mesh, draw=draw, smooth_edges=smooth_edges)


def head_mesh(head: Head) -> MorphMesh:
    """The built-in head as a mesh of 52 morph targets (cm), for other programs: `talkface.render.gltf.write_glb`.

    What is not linear in the built-in head is made so: turning eyes, lids and lips that meet without crossing.
    """
    row = np.eye(len(ARKIT))
    points = head.rest.copy()
    points[head.parts["cavity"].vertices, 2] -= _CAVITY_BACK
    quads = head.quads
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]).astype(np.int32)
    return MorphMesh(
        name="talkface_head",
        points=points,
        triangles=triangles,
        targets={name: head.vertices(row[i]) - head.rest for i, name in enumerate(ARKIT)},
        texels=head.texels,
        colours=np.full((len(head.rest), 3), 255.0),
        material=np.zeros(len(triangles), np.int32),
        materials=(Material(texture=head.texture),),
    )
