"""Grids, rotations and keypoints in the axes of the picture: x right, y down, z away, each from -1 to 1.

A keypoint of a frame is ``R canonical + translation + expression`` (Face-vid2vid, equation 1).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

BIN_DEGREES = 3.0
"""Width of the bins in which angles are told."""


def grid(size: Sequence[int], like: Tensor) -> Float[Tensor, "*size axes"]:
    """Coordinates of every cell, the last axis of the size first (x, y, z), from -1 to 1 over the corners."""
    axes = [2 * torch.arange(n, dtype=like.dtype, device=like.device) / (n - 1) - 1 for n in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], -1)


def degrees_of(logits: Float[Tensor, "batch bins"], centre: float) -> Float[Tensor, " batch"]:
    """The mean angle over bins of 3 degrees; bin i stands for ``3 i - centre`` degrees (99 in the open code)."""
    bins = torch.arange(logits.shape[1], dtype=logits.dtype, device=logits.device)
    return (F.softmax(logits, dim=1) * bins).sum(1) * BIN_DEGREES - centre


def rotation(
    yaw: Float[Tensor, " batch"], pitch: Float[Tensor, " batch"], roll: Float[Tensor, " batch"]
) -> Float[Tensor, "batch 3 3"]:
    """``R_pitch R_yaw R_roll`` of angles in degrees."""
    (cy, sy), (cp, sp), (cr, sr) = [(torch.cos(a), torch.sin(a)) for a in map(torch.deg2rad, (yaw, pitch, roll))]
    o, i = torch.zeros_like(cy), torch.ones_like(cy)
    about_x = _matrix([i, o, o, o, cp, -sp, o, sp, cp])
    about_y = _matrix([cy, o, sy, o, i, o, -sy, o, cy])
    about_z = _matrix([cr, -sr, o, sr, cr, o, o, o, i])
    return about_x @ about_y @ about_z


def _matrix(nine: list[Tensor]) -> Float[Tensor, "batch 3 3"]:
    return torch.stack(nine, -1).unflatten(-1, (3, 3))


def angles_of(matrix: Float[Tensor, "batch 3 3"]) -> Float[Tensor, "batch 3"]:
    """Yaw, pitch and roll in degrees of rotations made as `rotation` makes them."""
    yaw = torch.asin(matrix[:, 0, 2].clamp(-1, 1))
    pitch = torch.atan2(-matrix[:, 1, 2], matrix[:, 2, 2])
    roll = torch.atan2(-matrix[:, 0, 1], matrix[:, 0, 0])
    return torch.rad2deg(torch.stack([yaw, pitch, roll], 1))


def picture_rotation(quaternion: Float[Tensor, "batch 4"]) -> Float[Tensor, "batch 3 3"]:
    """A head's quaternion (wxyz; x right, y up, z to the camera) as a rotation in the picture's axes: ``S R S``."""
    w, x, y, z = F.normalize(quaternion, dim=1).unbind(1)
    r = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)]
    r += [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)]
    r += [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]
    turned = torch.tensor([1.0, -1.0, -1.0], dtype=quaternion.dtype, device=quaternion.device)
    return turned[:, None] * _matrix(r) * turned


def posed(
    canonical: Float[Tensor, "batch points 3"],
    turn: Float[Tensor, "batch 3 3"],
    translation: Float[Tensor, "batch 3"],
    expression: Float[Tensor, "batch points 3"],
) -> Float[Tensor, "batch points 3"]:
    """Keypoints of a frame."""
    return canonical @ turn.transpose(1, 2) + translation[:, None] + expression


def gaussians(
    points: Float[Tensor, "batch points 3"], size: Sequence[int], variance: float = 0.01
) -> Float[Tensor, "batch points depth height width"]:
    """A bump around each keypoint."""
    away = grid(size, points) - points[:, :, None, None, None]
    return torch.exp(-0.5 * away.square().sum(-1) / variance)
