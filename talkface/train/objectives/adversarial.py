"""Hinge losses of a GAN and feature matching."""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def critic_hinge(real: Tensor, made: Tensor) -> Float[Tensor, ""]:
    """What the discriminator minimises."""
    return F.relu(1 - real).mean() + F.relu(1 + made).mean()


def maker_hinge(made: Tensor) -> Float[Tensor, ""]:
    """What the generator minimises."""
    return -made.mean()


def feature_matching(real: Sequence[Tensor], made: Sequence[Tensor]) -> Float[Tensor, ""]:
    """L1 between the discriminator's features, summed over its levels. Real ones take no gradient."""
    total = made[0].new_zeros(())
    for a, b in zip(real, made, strict=True):
        total = total + (a.detach() - b).abs().mean()
    return total
