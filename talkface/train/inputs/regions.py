"""Parts of the face as masks, from the 68 points of iBUG."""

from typing import Final

import torch
from jaxtyping import Bool, Float

LIPS: Final = tuple(range(48, 68))
EYES: Final = (*range(17, 27), *range(36, 48))
"""Brows and eyes."""


def box_mask(
    points: Float[torch.Tensor, "batch 68 2"], part: tuple[int, ...], side: int, grow: float
) -> Bool[torch.Tensor, "batch 1 side side"]:
    """The box around some points, ``grow`` pixels larger on each side, cut at the picture's edge; empty without points.

    A pixel belongs to it if its middle does.
    """
    chosen = points[:, list(part)]
    low, high = chosen.amin(1) - grow, chosen.amax(1) + grow
    middle = torch.arange(side, device=points.device) + 0.5
    inside = (middle >= low[..., None]) & (middle <= high[..., None])
    return (inside[:, 1, :, None] & inside[:, 0, None, :])[:, None]


def mean_inside(
    values: Float[torch.Tensor, "batch c side side"], mask: Bool[torch.Tensor, "batch 1 side side"]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean over samples of each one's mean inside its mask, and how many samples have one: others are left out."""
    share = mask.expand_as(values).flatten(1)
    count = share.sum(1)
    each = torch.where(share, values.flatten(1), 0).sum(1) / count.clamp(min=1)
    there = (count > 0).sum()
    return each.sum() / there.clamp(min=1), there
