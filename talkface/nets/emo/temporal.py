"""Attention over the frames (AnimateDiff, Guo 2024), with motion frames before them and the head's speed beside."""

import math

import torch
from jaxtyping import Float
from torch import nn

from talkface.nets.emo.layers import Attention, FeedForward, zeroed


class Positions(nn.Module):
    """Sinusoids of a frame's place. Public files carry them as ``pe``; they are the same in all, and not saved here."""

    pe: torch.Tensor

    def __init__(self, width: int, longest: int) -> None:
        super().__init__()
        self.register_buffer("pe", sinusoids(longest, width)[None], persistent=False)

    def forward(self, x: Float[torch.Tensor, "rows frames width"]) -> Float[torch.Tensor, "rows frames width"]:
        """Raises ValueError for more frames than there are places."""
        if x.shape[1] > self.pe.shape[1]:
            raise ValueError(f"{x.shape[1]} frames, motion frames among them, but {self.pe.shape[1]} at most have one.")
        return x + self.pe[:, : x.shape[1]].to(x.dtype)


def sinusoids(places: int, width: int) -> Float[torch.Tensor, "places width"]:
    """Sine and cosine in turn, of periods from 2 pi to 2 pi 10000 (Vaswani 2017)."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angles = torch.arange(places)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class TemporalBlock(nn.Module):
    """Two attentions over time, the speed's, and a feed-forward layer."""

    def __init__(self, width: int, heads: int, longest: int, speed: int | None) -> None:
        super().__init__()
        self.pos_embed = Positions(width, longest)
        self.norm1, self.attn1 = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.attn2 = nn.LayerNorm(width), Attention(width, heads)
        if speed is not None:
            self.speed_norm, self.speed_attn = nn.LayerNorm(width), Attention(width, heads, speed)
            zeroed(self.speed_attn.to_out)
        self.norm3, self.ff = nn.LayerNorm(width), FeedForward(width)

    def forward(
        self,
        h: Float[torch.Tensor, "rows frames width"],
        speed: Float[torch.Tensor, "rows shown l"] | None,
    ) -> Float[torch.Tensor, "rows frames width"]:
        """``speed`` is of the last ``shown`` frames: those before them are motion frames, which are past."""
        h = h + self.attn1(self.pos_embed(self.norm1(h)))
        h = h + self.attn2(self.pos_embed(self.norm2(h)))
        if speed is not None:
            past, shown = h.split([h.shape[1] - speed.shape[1], speed.shape[1]], dim=1)
            h = torch.cat([past, shown + self.speed_attn(self.speed_norm(shown), speed)], dim=1)
        return h + self.ff(self.norm3(h))


class Temporal(nn.Module):
    """A temporal module: adds to each frame what the others tell it.

    The GroupNorm is taken frame by frame, as AnimateDiff's weights were trained (diffusers takes it over the clip): a
    motion frame of zeros, or any other, does not move the statistics of the frames that are drawn.
    """

    def __init__(self, width: int, *, heads: int, groups: int, longest: int, speed: int | None = None) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.proj_in = nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList([TemporalBlock(width, heads, longest, speed)])
        self.proj_out = nn.Linear(width, width)
        zeroed(self.proj_out)

    def forward(
        self,
        x: Float[torch.Tensor, "batch frames c h w"],
        motion: Float[torch.Tensor, "batch n c h w"] | None = None,
        speed: Float[torch.Tensor, "batch frames l"] | None = None,
    ) -> Float[torch.Tensor, "batch frames c h w"]:
        """Motion frames have the first places in time; what becomes of them is dropped."""
        whole = x if motion is None else torch.cat([motion.to(x.dtype), x], dim=1)
        batch, frames, _, high, wide = whole.shape
        h = self.norm(whole.flatten(0, 1)).unflatten(0, (batch, frames))
        h = self.proj_in(h.permute(0, 3, 4, 1, 2).reshape(batch * high * wide, frames, -1))
        beside = None if speed is None else speed.repeat_interleave(high * wide, dim=0)
        h = self.transformer_blocks[0](h, beside)[:, frames - x.shape[1] :]
        h = self.proj_out(h).reshape(batch, high, wide, x.shape[1], -1)
        return x + h.permute(0, 3, 4, 1, 2)
