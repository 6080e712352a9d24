"""What Face-vid2vid asks of keypoints (Wang et al., appendix A.2), before the losses' weights."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

NEAREST = 0.1
"""Squared distance below which two keypoints are too near."""
DEPTH = 0.33
"""Mean depth that keypoints should have."""


def spread(points: Float[Tensor, "batch points 3"]) -> Float[Tensor, ""]:
    """How much nearer than `NEAREST` pairs of different keypoints are, summed over ordered pairs."""
    away = (points[:, :, None] - points[:, None]).square().sum(-1)
    others = 1 - torch.eye(points.shape[1], device=points.device)
    return (F.relu(NEAREST - away) * others).sum((1, 2)).mean()


def depth(points: Float[Tensor, "batch points 3"]) -> Float[Tensor, ""]:
    """How far the mean depth is from `DEPTH`."""
    return (points[:, :, 2].mean(1) - DEPTH).abs().mean()


def expression_size(expression: Float[Tensor, "batch points 3"]) -> Float[Tensor, ""]:
    """L1 of what the expression adds, summed over keypoints."""
    return expression.abs().sum((1, 2)).mean()


def pose_error(
    degrees: Float[Tensor, "batch 3"], truth: Float[Tensor, "batch 3"], known: Bool[Tensor, " batch"]
) -> Float[Tensor, ""]:
    """Mean absolute error of yaw, pitch and roll in radians, over the frames whose pose is known."""
    error = torch.deg2rad(degrees - truth.nan_to_num()).abs().mean(1)
    return (error * known).sum() / known.sum().clamp(min=1)
