"""The discriminator: patches of one scale, spectral normalisation."""

from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from talkface.nets.facevid2vid.blocks import SLOPE, SpectralConv2d
from talkface.nets.facevid2vid.design import Design


class Judged(NamedTuple):
    """The score of every patch, and the features of every level below it."""

    scores: Float[Tensor, "batch 1 height width"]
    features: list[Tensor]


class CriticBlock(nn.Module):
    """Convolution without padding, instance normalisation (not in the first), leaky ReLU, half the size (not last)."""

    def __init__(self, given: int, made: int, *, norm: bool, pool: bool) -> None:
        super().__init__()
        self.conv = SpectralConv2d(given, made, 4)
        self.norm = nn.InstanceNorm2d(made, affine=True) if norm else nn.Identity()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.norm(self.conv(x)), SLOPE)
        return F.avg_pool2d(x, 2) if self.pool else x


class Critic(nn.Module):
    """One scale of the discriminator."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        w = design.critic
        sizes = [3, *(w.features(i + 1) for i in range(w.blocks))]
        self.down_blocks = nn.ModuleList(
            CriticBlock(sizes[i], sizes[i + 1], norm=i > 0, pool=i < w.blocks - 1) for i in range(w.blocks)
        )
        self.conv = SpectralConv2d(sizes[-1], 1, 1)

    def forward(self, picture: Float[Tensor, "batch 3 height width"]) -> Judged:
        features = [picture]
        for block in self.down_blocks:
            features.append(block(features[-1]))
        return Judged(self.conv(features[-1]), features[1:])


class Discriminator(nn.Module):
    """`Critic` under the checkpoint's name: one scale, full size."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.discs = nn.ModuleDict({"1": Critic(design)})

    def forward(self, picture: Float[Tensor, "batch 3 height width"]) -> Judged:
        made: Judged = self.discs["1"](picture)
        return made
