"""ICT-FaceKit's face model (MIT): a folder of a neutral .obj and one .obj an expression.

Li et al., "Learning Formation of Physically-Based Face Attributes", CVPR 2020; github.com/ICT-VGL/ICT-FaceKit, folder
``FaceXModel``. Expressions are named as ARKit's shapes with ``_L`` and ``_R``; ``browInnerUp`` and ``cheekPuff`` come
in halves, ``tongueOut`` is not there, and what ARKit lacks (``cheekRaiser``, ``PupilDilate``, ``identity...``) is left
out.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int32

from talkface.errors import SourceError
from talkface.render.morph import MorphMesh, shape_of

NEUTRAL = "generic_neutral_mesh.obj"
_COLOURS = {
    "teeth": (235, 230, 220),
    "gums": (150, 60, 66),
    "iris": (82, 104, 120),
    "sclera": (238, 236, 232),
    "face": (222, 178, 150),
    "backhead": (212, 168, 140),
}
"""RGB by what a material's name holds; the model's own materials are grey."""
_CLEAR = ("eyeblend", "eyeocclusion", "lacrimal", "eyelashes")
"""Parts that need transparency: left out."""
_PUPIL, _IRIS = np.cos(np.radians([11.0, 25.0]))
"""Painted on eyeballs where they look forwards, so that gaze can be seen."""


def read_ict(folder: str | Path) -> MorphMesh:
    """The neutral face and every expression in ``folder`` that is a shape of ARKit's.

    Raises SourceError if the neutral mesh is missing, or an expression has another number of vertices.
    """
    root = Path(folder)
    if not (root / NEUTRAL).is_file():
        raise SourceError(f"{root}: no {NEUTRAL}: not ICT-FaceKit's FaceXModel folder.")
    points, triangles, parts = _read_obj(root / NEUTRAL)
    targets = {}
    for path in sorted(root.glob("*.obj")):
        if path.name != NEUTRAL and shape_of(path.stem) is not None:
            moved = _vertices(path.read_text().splitlines())
            if moved.shape != points.shape:
                raise SourceError(f"{path}: expected {len(points)} vertices as in {NEUTRAL}, got {len(moved)}.")
            targets[path.stem] = moved - points
    shown = np.array([not any(c in p.lower() for c in _CLEAR) for p in parts], bool)
    return MorphMesh(
        name=root.name,
        points=points,
        triangles=triangles[shown],
        targets=targets,
        texels=np.zeros((len(points), 2)),
        colours=_paint(points, triangles, parts),
        material=np.zeros(int(shown.sum()), np.int32),
    )


def _vertices(lines: list[str]) -> Float[np.ndarray, "vertices 3"]:
    rows = [line.split()[1:4] for line in lines if line.startswith("v ")]
    return np.array(rows, np.float64).reshape(-1, 3)


def _read_obj(path: Path) -> tuple[np.ndarray, Int32[np.ndarray, "triangles 3"], list[str]]:
    """Vertices, triangles (polygons as fans) and each triangle's material or group."""
    lines = path.read_text().splitlines()
    points = _vertices(lines)
    triangles, parts, part = [], [], "face"
    for line in lines:
        words = line.split()
        if words[:1] in (["usemtl"], ["g"]) and len(words) > 1:
            part = words[1]
        elif words[:1] == ["f"]:
            ring = [int(w.split("/")[0]) for w in words[1:]]
            ring = [i - 1 if i > 0 else i + len(points) for i in ring]
            triangles += [(ring[0], ring[i], ring[i + 1]) for i in range(1, len(ring) - 1)]
            parts += [part] * (len(ring) - 2)
    if not triangles or np.max(triangles) >= len(points):
        raise SourceError(f"{path}: not a mesh: {len(points)} vertices, {len(triangles)} triangles.")
    return points, np.array(triangles, np.int32), parts


def _paint(points: np.ndarray, triangles: np.ndarray, parts: list[str]) -> Float[np.ndarray, "vertices 3"]:
    colours = np.tile(np.array(_COLOURS["face"], float), (len(points), 1))
    names = np.array([p.lower() for p in parts])
    for word, colour in _COLOURS.items():
        here = np.unique(triangles[np.char.find(names, word) >= 0])
        colours[here] = colour
        if word == "sclera":
            for side in (points[here, 0] > 0, points[here, 0] <= 0):
                _paint_eye(colours, points, here[side])
    return colours


def _paint_eye(colours: np.ndarray, points: np.ndarray, ball: np.ndarray) -> None:
    if len(ball) == 0:
        return
    out = points[ball] - (points[ball].min(axis=0) + points[ball].max(axis=0)) / 2
    ahead = out[:, 2] / np.maximum(np.linalg.norm(out, axis=1), 1e-9)
    colours[ball[ahead > _IRIS]] = _COLOURS["iris"]
    colours[ball[ahead > _PUPIL]] = (16, 14, 14)
