"""Dense motion: from keypoints of source and driving frame to a flow for every cell of the volume."""

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from talkface.nets.facevid2vid.blocks import Down3d, Up3d
from talkface.nets.facevid2vid.design import Design, Widths
from talkface.nets.facevid2vid.geometry import gaussians, grid


class Flow(NamedTuple):
    """Where each cell of the warped volume is taken from, and how much of it is seen at all."""

    field: Float[Tensor, "batch depth height width 3"]
    occlusion: Float[Tensor, "batch 1 height width"]
    mask: Float[Tensor, "batch flows depth height width"]
    sparse: Float[Tensor, "batch flows depth height width 3"]


class Encoder3d(nn.Module):
    """Every level from the input down."""

    def __init__(self, given: int, widths: Widths) -> None:
        super().__init__()
        sizes = [given, *(widths.features(i + 1) for i in range(widths.blocks))]
        self.down_blocks = nn.ModuleList(Down3d(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = [x]
        for block in self.down_blocks:
            levels.append(block(levels[-1]))
        return levels


class Decoder3d(nn.Module):
    """Up again, each level joined to the encoder's."""

    def __init__(self, given: int, widths: Widths) -> None:
        super().__init__()
        ups = reversed(range(widths.blocks))
        doubled = [1 if i == widths.blocks - 1 else 2 for i in range(widths.blocks)]
        self.up_blocks = nn.ModuleList(Up3d(doubled[i] * widths.features(i + 1), widths.features(i)) for i in ups)
        self.made = widths.expansion + given
        self.conv, self.norm = nn.Conv3d(self.made, self.made, 3, padding=1), nn.BatchNorm3d(self.made)

    def forward(self, levels: list[Tensor]) -> Tensor:
        x = levels.pop()
        for block in self.up_blocks:
            x = torch.cat([block(x), levels.pop()], 1)
        return F.relu(self.norm(self.conv(x)))


class Hourglass3d(nn.Module):
    """Encoder and decoder under the checkpoint's names."""

    def __init__(self, given: int, widths: Widths) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder3d(given, widths), Decoder3d(given, widths)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.decoder(self.encoder(x))
        return made


class DenseMotion(nn.Module):
    """Weighs the flows of the keypoints, and one of rest, cell by cell, and says what is hidden in the source."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.hourglass = Hourglass3d((design.keypoints + 1) * (design.compress + 1), design.motion)
        made = self.hourglass.decoder.made
        self.mask = nn.Conv3d(made, design.keypoints + 1, design.mask_kernel, padding=design.mask_kernel // 2)
        self.compress = nn.Conv3d(design.volume, design.compress, 1)
        self.norm = nn.BatchNorm3d(design.compress)
        self.occlusion = nn.Conv2d(made * design.depth, 1, 7, padding=3)
        self.corners = design.corners

    def compressed(self, volume: Tensor) -> Tensor:
        """A few channels of the volume. Those of a source need to be made only once."""
        return F.relu(self.norm(self.compress(volume)))

    def forward(
        self,
        few: Float[Tensor, "batch few depth height width"],
        driving: Float[Tensor, "batch points 3"],
        source: Float[Tensor, "batch points 3"],
    ) -> Flow:
        size = few.shape[2:]
        sparse = self._sparse(size, driving, source)
        given = torch.cat([self._bumps(size, driving, source)[:, :, None], self._moved(few, sparse)], 2).flatten(1, 2)
        seen = self.hourglass(given)
        mask = F.softmax(self.mask(seen), dim=1)
        field = torch.einsum("bkdhw,bkdhwc->bdhwc", mask, sparse)
        return Flow(field, torch.sigmoid(self.occlusion(seen.flatten(1, 2))), mask, sparse)

    def _sparse(self, size: torch.Size, driving: Tensor, source: Tensor) -> Tensor:
        """One flow a keypoint, before them that of rest: the cell, less the driving keypoint, plus the source's."""
        shift = F.pad(source - driving, (0, 0, 1, 0))
        return grid(size, driving) + shift[:, :, None, None, None]

    def _bumps(self, size: torch.Size, driving: Tensor, source: Tensor) -> Tensor:
        bumps = gaussians(driving, size) - gaussians(source, size)
        return F.pad(bumps, (0, 0, 0, 0, 0, 0, 1, 0))

    def _moved(self, few: Tensor, sparse: Tensor) -> Float[Tensor, "batch flows few depth height width"]:
        """The few channels under each of the flows."""
        batch, flows = sparse.shape[:2]
        each = few[:, None].expand(-1, flows, -1, -1, -1, -1).flatten(0, 1)
        moved = warped(each, sparse.flatten(0, 1), self.corners)
        return moved.unflatten(0, (batch, flows))


def warped(
    volume: Float[Tensor, "batch channels depth height width"],
    field: Float[Tensor, "batch depth height width 3"],
    corners: bool,
) -> Float[Tensor, "batch channels depth height width"]:
    """A volume sampled where the field says; zero outside."""
    return F.grid_sample(volume, field, align_corners=corners)
