"""The transformer of Stable Diffusion's UNet with EMO's attentions in it."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import nn

from talkface.nets.emo.layers import Attention, FeedForward, zeroed

Reading = Literal["replace", "concat"]
"""How reference features are read: by a cross attention in the place of the one to the text (the paper), or as more
tokens of the self-attention (public code)."""

Tokens = Float[torch.Tensor, "rows tokens width"]


@dataclass(frozen=True)
class Heard:
    """What one block of the backbone is given: ``read`` (batch, tokens, width) of the reference picture, ``keep``
    (batch,) false where it is to be left out, and ``audio`` (rows, tokens, width) of each frame's sound."""

    read: Float[torch.Tensor, "batch others width"] | None = None
    keep: Bool[torch.Tensor, " batch"] | None = None
    audio: Float[torch.Tensor, "rows heard context"] | None = None


class Block(nn.Module):
    """Self-attention, reference attention, audio attention, feed-forward (the paper's Fig. 2).

    Without ``reading`` it is the ReferenceNet's, which reads nothing: there is no text. Also in ``concat`` there is no
    second attention. ``audio`` is the width of the sound's tokens, None where there is no sound.
    """

    def __init__(self, width: int, heads: int, reading: Reading | None, audio: int | None) -> None:
        super().__init__()
        self.reading = reading
        self.norm1, self.attn1 = nn.LayerNorm(width), Attention(width, heads)
        if reading == "replace":
            self.norm2, self.attn2 = nn.LayerNorm(width), Attention(width, heads)
        if audio is not None:
            self.audio_norm, self.audio_attn = nn.LayerNorm(width), Attention(width, heads, audio)
            zeroed(self.audio_attn.to_out)
        self.norm3, self.ff = nn.LayerNorm(width), FeedForward(width)

    def forward(self, h: Tokens, heard: Heard) -> tuple[Tokens, Tokens]:
        """The tokens after the block, and what a reader of this block reads: the input of its self-attention."""
        written = self.norm1(h)
        h = h + self.look(written, heard)
        if self.reading == "replace" and heard.read is not None:
            h = h + self.read(h, heard)
        if heard.audio is not None:
            h = h + self.audio_attn(self.audio_norm(h), heard.audio)
        return h + self.ff(self.norm3(h)), written

    def look(self, n: Tokens, heard: Heard) -> Tokens:
        """Self-attention, over the reference's tokens too where they are concatenated."""
        if self.reading != "concat" or heard.read is None:
            return self.attn1(n)
        frames = len(n) // len(heard.read)
        both = torch.cat([n, heard.read.to(n.dtype).repeat_interleave(frames, dim=0)], dim=1)
        if heard.keep is None:
            return self.attn1(n, both)
        own = torch.ones(len(n), n.shape[1], dtype=torch.bool, device=n.device)
        others = heard.keep.repeat_interleave(frames)[:, None].expand(-1, heard.read.shape[1])
        return self.attn1(n, both, torch.cat([own, others], dim=1)[:, None, None])

    def read(self, h: Tokens, heard: Heard) -> Tokens:
        """Reference attention; all frames of a clip ask at once, so that its keys are made once."""
        assert heard.read is not None
        batch, tokens = len(heard.read), h.shape[1]
        asked = self.norm2(h).reshape(batch, -1, h.shape[2])
        found = self.attn2(asked, heard.read.to(h.dtype))
        if heard.keep is not None:
            found = found * heard.keep[:, None, None].to(found.dtype)
        return found.reshape(-1, tokens, h.shape[2])


class SpatialTransformer(nn.Module):
    """A block over the pixels of a picture."""

    def __init__(self, width: int, heads: int, groups: int, reading: Reading | None, audio: int | None) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.proj_in = nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([Block(width, heads, reading, audio)])
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(
        self, x: Float[torch.Tensor, "rows c h w"], heard: Heard
    ) -> tuple[Float[torch.Tensor, "rows c h w"], Tokens]:
        """As `Block`."""
        h = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        h, written = self.transformer_blocks[0](h, heard)
        return x + self.proj_out(h.transpose(1, 2).unflatten(2, x.shape[2:])), written
