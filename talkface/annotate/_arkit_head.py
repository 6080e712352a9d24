"""Our own small network from the 478-point mesh to the blendshapes, of preview quality, in NumPy.

The mesh is brought onto the reference face (weighted Procrustes), so that place, size and roll of the face do not
matter; the network sees the frontal mesh and the direction of view. Trained by scripts/train_arkit_head.py.
"""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

import numpy as np
from jaxtyping import Float
from scipy.special import erf, expit

from talkface.annotate.head import procrustes, reference_face
from talkface.vocab import ARKIT

TONGUE = ARKIT.index("tongueOut")
"""The one shape that no teacher knows: always NaN."""


def blendshapes(meshes: Float[np.ndarray, "frames 478 3"]) -> Float[np.ndarray, "frames 52"]:
    """Blendshapes 0..1 in Apple's order of meshes in pixels; NaN for tongueOut. Each row depends on its mesh alone."""
    shapes = np.full((len(meshes), len(ARKIT)), np.nan, np.float32)
    shapes[:, :TONGUE] = forward(features(meshes, *reference_face()), weights())
    return shapes


def features(
    meshes: Float[np.ndarray, "frames 478 3"], points: Float[np.ndarray, "478 3"], steadiness: Float[np.ndarray, " 478"]
) -> Float[np.ndarray, "frames 1437"]:
    """What the network sees: the mesh brought onto the reference face ``points`` (cm), and the viewing axis."""
    upright = meshes.astype(np.float64) * (1, -1, -1)
    scale, rotation, translation = procrustes(points, upright, steadiness)
    front = (upright - translation[:, None]) @ rotation / scale[:, None, None]
    return np.asarray(np.concatenate([front.reshape(len(meshes), -1), rotation[:, 2]], axis=1), np.float32)


def forward(x: Float[np.ndarray, "frames 1437"], w: Mapping[str, np.ndarray]) -> Float[np.ndarray, "frames 51"]:
    """Two hidden layers with GELU, then a sigmoid."""
    hidden = _gelu((x - w["mean"]) / w["scale"] @ w["w0"] + w["b0"])
    hidden = _gelu(hidden @ w["w1"] + w["b1"])
    return np.asarray(expit(hidden @ w["w2"] + w["b2"]), np.float32)


@cache
def weights() -> Mapping[str, Float[np.ndarray, "..."]]:
    """The network's arrays from the package, as float32."""
    with (files("talkface.annotate") / "data" / "arkit_head.npz").open("rb") as file, np.load(file) as arrays:
        return {name: np.asarray(array, np.float32) for name, array in arrays.items()}


def _gelu(x: Float[np.ndarray, "frames hidden"]) -> Float[np.ndarray, "frames hidden"]:
    return np.asarray(x * 0.5 * (1 + erf(x / np.float32(np.sqrt(2)))), np.float32)
