"""A perceptual loss without weights: pixels and their differences on four scales."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SCALES = 4


def pyramid(
    made: Float[Tensor, "batch 3 height width"], real: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, ""]:
    """L1 of the pictures and of their differences across and down, summed over scales 1, 1/2, 1/4 and 1/8."""
    total = made.new_zeros(())
    for _ in range(SCALES):
        error = made - real
        total = total + error.abs().mean() + error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        made, real = F.avg_pool2d(made, 2), F.avg_pool2d(real, 2)
    return total
