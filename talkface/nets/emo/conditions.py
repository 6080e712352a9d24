"""What drives the backbone: sound, the region of the face, the speed of the head."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import nn

from talkface.nets.emo.layers import zeroed


class AudioProjector(nn.Module):
    """Features of a frame's sound and of its neighbours' as a few tokens; a learned set of tokens stands for silence
    that was never heard (no sound, or sound left out)."""

    def __init__(self, inputs: int, *, inner: int = 512, tokens: int = 32, width: int = 768) -> None:
        """``inputs`` numbers a frame: (2m + 1) neighbours x layers x channels."""
        super().__init__()
        self.tokens, self.width = tokens, width
        self.proj1, self.proj2 = nn.Linear(inputs, inner), nn.Linear(inner, inner)
        self.proj3 = nn.Linear(inner, tokens * width)
        self.norm = nn.LayerNorm(width)
        self.null = nn.Parameter(torch.zeros(tokens, width))

    def forward(
        self, audio: Float[torch.Tensor, "batch frames inputs"], keep: Bool[torch.Tensor, " batch"] | None = None
    ) -> Float[torch.Tensor, "batch frames tokens width"]:
        """A frame with NaN in it, or of a clip that is not kept, gets the learned tokens."""
        there = torch.isfinite(audio).all(-1)
        there = there if keep is None else there & keep[:, None]
        h = F.relu(self.proj2(F.relu(self.proj1(audio.nan_to_num(0.0, 0.0, 0.0)))))
        tokens = self.norm(self.proj3(h).unflatten(-1, (self.tokens, self.width)))
        return torch.where(there[..., None, None], tokens, self.null.to(tokens.dtype))


def neighbours(rows: Float[torch.Tensor, "batch frames *any"], m: int) -> Float[torch.Tensor, "batch frames near *any"]:
    """Each frame with the m before and the m after it, the paper's A^(f-m) ... A^(f+m); edges are repeated."""
    frames = rows.shape[1]
    at = torch.arange(frames, device=rows.device)[:, None] + torch.arange(-m, m + 1, device=rows.device)
    return rows[:, at.clamp(0, frames - 1)]


class FaceLocator(nn.Module):
    """Convolutions from a mask of where the face may be to a map that is added to the noisy picture's; its last layer
    begins at zero. ``widths`` has one entry more than there are halvings."""

    def __init__(self, out: int, widths: Sequence[int] = (16, 32, 64, 128)) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for a, b in pairwise(widths):
            self.blocks.append(nn.Conv2d(a, a, 3, padding=1))
            self.blocks.append(nn.Conv2d(a, b, 3, padding=1, stride=2))
        self.conv_out = nn.Conv2d(widths[-1], out, 3, padding=1)
        zeroed(self.conv_out)

    def forward(self, mask: Float[torch.Tensor, "batch 3 high wide"]) -> Float[torch.Tensor, "batch out h w"]:
        h = F.silu(self.conv_in(mask))
        for block in self.blocks:
            h = F.silu(block(h))
        return self.conv_out(h)


def speed_vector(
    speed: Float[torch.Tensor, "batch frames"], centres: Float[torch.Tensor, " d"], radii: Float[torch.Tensor, " d"]
) -> Float[torch.Tensor, "batch frames d"]:
    """The head's speed (degrees a frame) against each bucket: ``s_i = tanh(3 (w - c_i) / r_i)``."""
    return torch.tanh((speed[..., None] - centres) / radii * 3)


class SpeedEncoder(nn.Module):
    """Speeds of a frame and its neighbours as a feature; a learned one stands for a speed that is not known."""

    centres: torch.Tensor
    radii: torch.Tensor

    def __init__(self, centres: Sequence[float], radii: Sequence[float], *, m: int = 2, width: int = 256) -> None:
        super().__init__()
        self.m = m
        self.register_buffer("centres", torch.tensor(centres), persistent=False)
        self.register_buffer("radii", torch.tensor(radii), persistent=False)
        self.mlp = nn.Sequential(nn.Linear((2 * m + 1) * len(centres), width), nn.SiLU(), nn.Linear(width, width))
        self.null = nn.Parameter(torch.zeros(width))

    def forward(
        self, speed: Float[torch.Tensor, "batch frames"], keep: Bool[torch.Tensor, " batch"] | None = None
    ) -> Float[torch.Tensor, "batch frames width"]:
        """A frame that has NaN among its neighbours, or of a clip that is not kept, gets the learned feature."""
        near = neighbours(speed, self.m)
        there = torch.isfinite(near).all(-1)
        there = there if keep is None else there & keep[:, None]
        told = speed_vector(near.nan_to_num(0.0).flatten(1), self.centres, self.radii)
        feature = self.mlp(told.unflatten(1, near.shape[1:]).flatten(2))
        return torch.where(there[..., None], feature, self.null.to(feature.dtype))
