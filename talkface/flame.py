"""FLAME: parameters of shape, expression and pose to the vertices of a head.

Li, Bolkart, Black, Li, Romero, Learning a model of facial shape and expression from 4D scans, SIGGRAPH Asia 2017,
Eq. 1 to 5: blendshapes on a template, then linear blend skinning around five joints (Loper et al., SMPL, 2015).

    flame = load_flame(Models().get("flame"))  # or find_flame(Models()), which does not raise
    arrays = dataset.arrays(key, ["flame", "flame_shape", "lm68"])
    vertices = flame.vertices(arrays["flame"], arrays["flame_shape"])
    pixels = projected(vertices, arrays["flame"][:, FLAME["camera"]], arrays["lm68"])
"""

from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from talkface.errors import WeightsError
from talkface.nets.deca import SIDE, to_input
from talkface.vocab import FLAME
from talkface.weights import Models
from talkface.weights.unpickle import read_arrays

SHAPES, EXPRESSIONS = 100, 50
"""Components that DECA uses, of the model's 300 and 100."""
ALL_SHAPES: Final = 300
GLOBAL, JAW = 0, 2
"""Joints that ``pose`` turns, of: global, neck, jaw, left eye, right eye."""
JOINTS: Final = 5


class Flame(nn.Module):
    """The head model. ``faces`` are the mesh's triangles, int64; vertices are in metres, y up, z towards the viewer."""

    template: Tensor
    directions: Tensor
    pose_directions: Tensor
    regressor: Tensor
    weights: Tensor
    faces: Tensor

    def __init__(self, model: dict[str, Float[np.ndarray, "..."]]) -> None:
        super().__init__()
        shapes, n = model["shapedirs"], len(model["v_template"])
        used = np.concatenate([shapes[..., :SHAPES], shapes[..., ALL_SHAPES : ALL_SHAPES + EXPRESSIONS]], axis=2)
        self._buffer("template", model["v_template"])
        self._buffer("directions", used.reshape(3 * n, -1).T)
        self._buffer("pose_directions", model["posedirs"].reshape(3 * n, -1).T)
        self._buffer("regressor", model["J_regressor"])
        self._buffer("weights", model["weights"])
        self.register_buffer("faces", torch.tensor(model["f"].astype(np.int64)))
        self._parents = [0, *(int(parent) for parent in model["kintree_table"][0][1:])]

    def on_jaw(self) -> Bool[np.ndarray, " vertices"]:
        """The vertices that the jaw carries by half or more: chin and lower lip."""
        return np.asarray(self.weights[:, JAW] >= 0.5)

    def vertices(
        self, rows: Float[np.ndarray, "n 59"], shape: Float[np.ndarray, " 100"]
    ) -> Float[np.ndarray, "n vertices 3"]:
        """Vertices, in metres, of rows of a clip's column ``flame``, and its ``flame_shape``; NaN for rows with a gap.

        A row takes 60 kB with the published mesh: of long clips, ask for parts.
        """
        found = np.full((len(rows), *self.template.shape), np.nan, np.float32)
        known = np.isfinite(rows).all(axis=1)
        if known.any() and np.isfinite(shape).all():
            expression, pose = (torch.tensor(rows[known][:, FLAME[part]]).float() for part in ("expression", "pose"))
            with torch.inference_mode():
                found[known] = self(torch.tensor(shape).float().expand(len(pose), -1), expression, pose).numpy()
        return found

    def _buffer(self, name: str, value: np.ndarray) -> None:
        self.register_buffer(name, torch.tensor(np.ascontiguousarray(value, np.float32)))

    def forward(
        self, shape: Float[Tensor, "n 100"], expression: Float[Tensor, "n 50"], pose: Float[Tensor, "n 6"]
    ) -> Float[Tensor, "n vertices 3"]:
        """Vertices. ``pose`` is global rotation and jaw, axis-angle in radians; neck and eyes stay still."""
        turned = torch.zeros(len(pose), JOINTS, 3, dtype=pose.dtype, device=pose.device)
        turned[:, GLOBAL], turned[:, JAW] = pose[:, :3], pose[:, 3:]
        rotations = rotation_matrices(turned)
        still = self.template + self._displaced(torch.cat([shape, expression], dim=1), self.directions)
        joints = self.regressor @ still
        bent = (rotations[:, 1:] - torch.eye(3, dtype=pose.dtype, device=pose.device)).flatten(1)
        posed = still + self._displaced(bent, self.pose_directions)
        spins, shifts = self._chained(rotations, joints)
        spin = torch.einsum("vj,njab->nvab", self.weights, spins)
        return (spin @ posed[..., None])[..., 0] + self.weights @ shifts

    def _displaced(self, amounts: Float[Tensor, "n k"], directions: Float[Tensor, "k v3"]) -> Float[Tensor, "n v 3"]:
        return (amounts @ directions).unflatten(1, (-1, 3))

    def _chained(
        self, rotations: Float[Tensor, "n 5 3 3"], joints: Float[Tensor, "n 5 3"]
    ) -> tuple[Float[Tensor, "n 5 3 3"], Float[Tensor, "n 5 3"]]:
        """Each joint's rotation and shift of what hangs on it: turned about itself, then with its parents."""
        spins, shifts = [rotations[:, 0]], [joints[:, 0] - (rotations[:, 0] @ joints[:, 0, :, None])[..., 0]]
        for j, parent in enumerate(self._parents[1:], start=1):
            about = joints[:, j] - (rotations[:, j] @ joints[:, j, :, None])[..., 0]
            spins.append(spins[parent] @ rotations[:, j])
            shifts.append((spins[parent] @ about[..., None])[..., 0] + shifts[parent])
        return torch.stack(spins, dim=1), torch.stack(shifts, dim=1)


def projected(
    vertices: Float[np.ndarray, "n vertices 3"], camera: Float[np.ndarray, "n 3"], points: Float[np.ndarray, "n 68 2"]
) -> Float[np.ndarray, "n vertices 2"]:
    """Where vertices lie in the picture that ``points`` (``lm68``) lie in; NaN where any of the three is.

    ``camera`` is DECA's orthographic one: scale, x and y, in -1..1 of the encoder's input, y up.
    """
    flat = camera[:, None, :1] * (vertices[..., :2] + camera[:, None, 1:]) * (1, -1)
    back = np.stack([cv2.invertAffineTransform(to_input(p)) for p in points])
    return np.asarray(np.einsum("nij,nvj->nvi", back[:, :, :2], (flat + 1) * (SIDE / 2)) + back[:, None, :, 2])


def rotation_matrices(axis_angle: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3 3"]:
    """Rodrigues' formula; exact and differentiable at no rotation."""
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    return torch.linalg.matrix_exp(cross)


def find_flame(models: Models) -> Flame | str:
    """The head model, or the sentence that says why it is not here and what to do."""
    try:
        return load_flame(models.get("flame"))
    except WeightsError as error:
        return str(error)


def load_flame(path: Path) -> Flame:
    """The model in ``generic_model.pkl`` (FLAME 2020 or 2023). No code from the file runs.

    Raises WeightsError for a file that is not it, with what is missing or has another shape.
    """
    model = read_arrays(path)
    n, f = (len(model[name]) if _is_array(model.get(name)) else 0 for name in ("v_template", "f"))
    wanted: dict[str, tuple[int, ...]] = {
        "v_template": (n, 3), "f": (f, 3), "shapedirs": (n, 3, ALL_SHAPES + 100), "posedirs": (n, 3, 9 * (JOINTS - 1)),
        "J_regressor": (JOINTS, n), "weights": (n, JOINTS), "kintree_table": (2, JOINTS),
    }  # fmt: skip
    found = {name: np.shape(model[name]) if _is_array(model.get(name)) else "nothing" for name in wanted}
    if wrong := [
        f"{name}: expected {wanted[name]}, got {found[name]}" for name in wanted if wanted[name] != found[name]
    ]:
        raise WeightsError(f"{path}: not a FLAME model: {'; '.join(wrong)}. Get generic_model.pkl of FLAME 2020.")
    parents = model["kintree_table"][0][1:].astype(np.int64)
    if not ((parents >= 0) & (parents < np.arange(1, JOINTS))).all():
        raise WeightsError(f"{path}: not a FLAME model: kintree_table is no tree of joints, parents first.")
    return Flame(model)


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiu" and value.size > 0
