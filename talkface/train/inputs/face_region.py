"""Where a face may be: the union of its boxes over a window, as a mask."""

import torch
from jaxtyping import Bool, Float


def union(boxes: Float[torch.Tensor, "batch frames box"]) -> Float[torch.Tensor, "batch 4"]:
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


def mask(box: Float[torch.Tensor, "batch 4"], size: int) -> Float[torch.Tensor, "batch 1 size size"]:
    """1 at the pixels whose middle lies in the box, 0 elsewhere; 1 everywhere where no box is known."""
    middle = torch.arange(size, device=box.device) + 0.5
    x = (middle >= box[:, :1]) & (middle < box[:, 2:3])
    y = (middle >= box[:, 1:2]) & (middle < box[:, 3:4])
    unknown: Bool[torch.Tensor, "batch 1 1"] = ~torch.isfinite(box).all(-1)[:, None, None]
    return ((y[:, :, None] & x[:, None]) | unknown)[:, None].float()
