"""Parts of a batch's pictures as boxes and masks, on the batch's device; `talkface.face_masks` is for arrays.

A pixel belongs to a mask if its middle lies inside. What is missing is NaN, and covers nothing.
"""

from typing import Final

import torch
from jaxtyping import Bool, Float

LIPS: Final = tuple(range(48, 68))
EYES: Final = (*range(17, 27), *range(36, 48))
"""Numbers of iBUG's 68 points: lips; eyes with their brows."""


def points_box(
    points: Float[torch.Tensor, "batch 68 2"], part: tuple[int, ...], grow: float
) -> Float[torch.Tensor, "batch 4"]:
    """x0, y0, x1, y1 around some points, ``grow`` pixels further on each side; NaN where one is missing."""
    chosen = points[:, list(part)]
    return torch.cat([chosen.amin(1) - grow, chosen.amax(1) + grow], dim=-1)


def union_box(boxes: Float[torch.Tensor, "batch frames box"]) -> Float[torch.Tensor, "batch 4"]:
    """x0, y0, x1, y1 around all boxes of a window that are known; NaN where none is."""
    there = torch.isfinite(boxes[..., :4]).all(-1, keepdim=True)
    low = torch.where(there, boxes[..., :2], torch.inf).amin(1)
    high = torch.where(there, boxes[..., 2:4], -torch.inf).amax(1)
    around = torch.cat([low, high], dim=-1)
    return torch.where(torch.isfinite(around).all(-1, keepdim=True), around, torch.nan)


def grown(box: Float[torch.Tensor, "batch 4"], share: Float[torch.Tensor, " batch"]) -> Float[torch.Tensor, "batch 4"]:
    """Each box larger by a share of its sides, half of it on either side."""
    more = (box[:, 2:] - box[:, :2]) * share[:, None] / 2
    return torch.cat([box[:, :2] - more, box[:, 2:] + more], dim=-1)


def box_mask(box: Float[torch.Tensor, "batch 4"], side: int) -> Bool[torch.Tensor, "batch 1 side side"]:
    """True inside a box, which is cut at the picture's edge."""
    middle = torch.arange(side, device=box.device) + 0.5
    x = (middle >= box[:, :1]) & (middle < box[:, 2:3])
    y = (middle >= box[:, 1:2]) & (middle < box[:, 3:4])
    return (y[:, :, None] & x[:, None])[:, None]


def mean_inside(
    values: Float[torch.Tensor, "batch c side side"], mask: Bool[torch.Tensor, "batch 1 side side"]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean over samples of each one's mean inside its mask, and how many samples have one: others are left out."""
    share = mask.expand_as(values).flatten(1)
    count = share.sum(1)
    each = torch.where(share, values.flatten(1), 0).sum(1) / count.clamp(min=1)
    there = (count > 0).sum()
    return each.sum() / there.clamp(min=1), there
