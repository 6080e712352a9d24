"""Canonical keypoints: where they lie on a person whose head is straight and whose face is at rest."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from talkface.nets.facevid2vid.blocks import Down2d, Up3d
from talkface.nets.facevid2vid.design import Design
from talkface.nets.facevid2vid.geometry import grid


class SmallPicture(nn.Module):
    """A picture made smaller by a Gaussian and every n-th pixel; the Gaussian is a buffer of the checkpoint."""

    weight: Tensor

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        sigma = (1 / scale - 1) / 2
        half = max(round(sigma * 4), 1)
        row = torch.exp(-(torch.arange(-half, half + 1).float().square()) / (2 * sigma**2)) if sigma else torch.ones(1)
        bump = torch.outer(row, row)
        self.register_buffer("weight", (bump / bump.sum()).expand(channels, 1, -1, -1).clone())
        self.step = round(1 / scale)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Tensor:
        made = F.conv2d(x, self.weight, padding=self.weight.shape[-1] // 2, groups=x.shape[1])
        return made[..., :: self.step, :: self.step]


class Hourglass2dTo3d(nn.Module):
    """Features of two dimensions down to a few cells, opened into a volume, and up again in three."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        d, channels = design.detector, [design.detector.features(i) for i in range(design.detector.blocks + 1)]
        self.down_blocks, self.up_blocks = nn.Sequential(), nn.Sequential()
        for i in range(d.blocks):
            self.down_blocks.add_module(f"down{i}", Down2d(3 if i == 0 else channels[i], channels[i + 1]))
            self.up_blocks.add_module(f"up{i}", Up3d(channels[d.blocks - i], channels[d.blocks - i - 1]))
        self.conv = nn.Conv2d(channels[-1], channels[-1] * design.depth, 1)
        self.depth = design.depth

    def forward(self, x: Tensor) -> Tensor:
        made = self.conv(self.down_blocks(x)).unflatten(1, (-1, self.depth))
        opened: Tensor = self.up_blocks(made)
        return opened


class KeypointDetector(nn.Module):
    """A picture to canonical keypoints (x, y, z), the means of softmax heatmaps."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.predictor = Hourglass2dTo3d(design)
        self.kp = nn.Conv3d(design.detector.expansion, design.keypoints, 3, padding=1)
        self.down = SmallPicture(3, design.detector_scale)
        self.temperature = design.temperature

    def heatmaps(self, picture: Float[Tensor, "batch 3 height width"]) -> Tensor:
        """Logits of where each keypoint is."""
        made: Tensor = self.kp(self.predictor(self.down(picture)))
        return made

    def forward(self, picture: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch points 3"]:
        logits = self.heatmaps(picture)
        maps = F.softmax(logits.flatten(2) / self.temperature, dim=2)
        return maps @ grid(logits.shape[2:], maps).flatten(0, 2)
