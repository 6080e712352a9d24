"""EMOdiffhead's networks (Zhang 2024): a UNet that denoises a frame, and a ReferenceNet that shows it who speaks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from jaxtyping import Float, Int64
from torch import nn
from torch.nn import functional as F

from talkface.nets.guided_unet import GuidedUNet, UNetShape, norm, zeroed

COLOURS: Final = 3
PICTURES: Final = 4
"""Noisy frame, identity, and the two frames before (Eq. 11)."""
KERNEL: Final = 7
OPEN: Final = 4.0
"""Bias that spatial attention begins with: sigmoid(4) = 0.98."""


PAPER: Final = UNetShape(inputs=PICTURES * COLOURS, outputs=2 * COLOURS)
"""Sizes of the paper."""


@dataclass(frozen=True)
class HeadShape:
    """Sizes of the whole. ``sound`` and ``expression`` are numbers a row, ``window`` rows of each around a frame."""

    sound: int
    expression: int
    window: int = 5
    unet: UNetShape = PAPER
    reference: tuple[int, ...] = (2, 4)
    """Downsampling factors at which the ReferenceNet is read: 64 and 32 of 128. Empty: no ReferenceNet."""


class ReferenceAttention(nn.Module):
    """Cross-attention from the frame to the identity's features at the same place, then spatial attention (CBAM, Woo
    2018). The projection begins at 0, and spatial attention near 1."""

    def __init__(self, channels: int, head_channels: int) -> None:
        super().__init__()
        self.heads = max(channels // head_channels, 1)
        self.norm, self.reference_norm = norm(channels), norm(channels)
        self.query, self.key_value = nn.Linear(channels, channels), nn.Linear(channels, 2 * channels)
        self.proj_out = zeroed(nn.Linear(channels, channels))
        self.spatial = nn.Conv2d(2, 1, KERNEL, padding=KERNEL // 2)
        nn.init.constant_(self.spatial.bias, OPEN)  # type: ignore[arg-type]

    def forward(
        self, x: Float[torch.Tensor, "b c h w"], reference: Float[torch.Tensor, "b c h w"]
    ) -> Float[torch.Tensor, "b c h w"]:
        query = self.query(self.norm(x).flatten(2).transpose(1, 2))
        key, value = self.key_value(self.reference_norm(reference).flatten(2).transpose(1, 2)).chunk(2, dim=-1)
        split = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value))
        read = F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        x = x + self.proj_out(read).transpose(1, 2).reshape(x.shape)
        seen = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return x * self.spatial(seen).sigmoid()


class EmoDiffHead(nn.Module):
    """Predicts noise and variance of a frame, from the frames before it, a picture of the person, sound and expression.

    ``backbone`` has guided-diffusion's names. ``reference_net`` is run once a video: `look` gives what `forward` reads.
    """

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.shape = shape
        conditions = ("time", "sound", "expression")
        self.backbone = GuidedUNet(replace(shape.unet, conditions=conditions))
        width = shape.unet.embedding
        self.sound_embed = embedder(shape.window * shape.sound, width)
        self.expression_embed = embedder(shape.window * shape.expression, width)
        self.fusion = nn.ModuleDict()
        if shape.reference:
            plain = replace(shape.unet, inputs=COLOURS, conditions=())
            self.reference_net = GuidedUNet(plain, until=min(shape.reference))
            sites = self.backbone.sites(shape.reference)
            self.fusion.update({name: ReferenceAttention(w, shape.unet.head_channels) for name, w in sites})

    def look(self, identity: Float[torch.Tensor, "b 3 side side"]) -> dict[str, torch.Tensor]:
        """The ReferenceNet's features of a picture, by place."""
        found: dict[str, torch.Tensor] = {}

        def keep(name: str, h: torch.Tensor) -> torch.Tensor:
            if name in self.fusion:
                found[name] = h
            return h

        if self.shape.reference:
            self.reference_net(identity, {}, keep)
        return found

    def forward(
        self,
        x: Float[torch.Tensor, "b 3 side side"],
        t: Int64[torch.Tensor, " b"],
        identity: Float[torch.Tensor, "b 3 side side"],
        motion: Float[torch.Tensor, "b 6 side side"],
        sound: Float[torch.Tensor, "b window features"],
        expression: Float[torch.Tensor, "b window numbers"],
        seen: Mapping[str, torch.Tensor] | None = None,
    ) -> Float[torch.Tensor, "b 6 side side"]:
        """Noise (first three channels) and variance; ``motion`` is the frame two before, then the one before.

        ``seen`` is what `look` gave of the identity; without it, it is looked at.
        """
        read = self.look(identity) if seen is None else seen
        given = {
            "time": self.backbone.embed_time(t),
            "sound": self.sound_embed(sound.flatten(1)),
            "expression": self.expression_embed(expression.flatten(1)),
        }

        def fuse(name: str, h: torch.Tensor) -> torch.Tensor:
            return self.fusion[name](h, read[name]) if name in self.fusion else h

        predicted: torch.Tensor = self.backbone(torch.cat([x, identity, motion], dim=1), given, fuse)
        return predicted


def embedder(inputs: int, width: int) -> nn.Sequential:
    """A window's rows, one after the other, to an embedding."""
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width))


def repeated(seen: Mapping[str, torch.Tensor], index: Sequence[int]) -> dict[str, torch.Tensor]:
    """Features of the pictures ``index``, in that order: one look serves many frames."""
    return {name: h[list(index)] for name, h in seen.items()}
