"""Head pose and expression of a picture: a ResNet of bottlenecks with five heads."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from talkface.nets.facevid2vid.design import Design
from talkface.nets.facevid2vid.geometry import degrees_of, rotation


class Pose(NamedTuple):
    """How the head of each picture is: angles in degrees, translation and what the expression adds to keypoints."""

    angles: Float[Tensor, "batch 3"]
    translation: Float[Tensor, "batch 3"]
    expression: Float[Tensor, "batch points 3"]

    @property
    def turn(self) -> Float[Tensor, "batch 3 3"]:
        """The rotation of yaw, pitch and roll."""
        return rotation(*self.angles.unbind(1))


class Bottleneck(nn.Module):
    """A residual block over a quarter of the channels; a stride of 2 halves the size."""

    def __init__(self, width: int, stride: int = 1) -> None:
        super().__init__()
        inner = width // 4
        self.conv1, self.conv3 = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1)
        self.norm1, self.norm2 = nn.BatchNorm2d(inner), nn.BatchNorm2d(inner)
        self.norm3 = nn.BatchNorm2d(width)
        self.halves = stride > 1
        if self.halves:
            self.skip, self.norm4 = nn.Conv2d(width, width, 1, stride=stride), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        made = F.relu(self.norm1(self.conv1(x)))
        made = F.relu(self.norm2(self.conv2(made)))
        kept = self.norm4(self.skip(x)) if self.halves else x
        return F.relu(self.norm3(self.conv3(made)) + kept)


class PoseEstimator(nn.Module):
    """A picture to `Pose`.

    In the public checkpoints yaw comes from the layer ``fc_roll`` and roll from ``fc_yaw``: the names are kept so that
    they load, the values are called what they are.
    """

    def __init__(self, design: Design) -> None:
        super().__init__()
        widths, repeats = design.pose_widths, design.pose_repeats
        first = design.pose_first
        self.conv1, self.norm1 = nn.Conv2d(3, first, 7, stride=2, padding=3), nn.BatchNorm2d(first)
        self.stages = len(widths)
        for stage, width in enumerate(widths):
            self._add_stage(stage, first if stage == 0 else widths[stage - 1], width, repeats[stage])
        bins = design.bins
        self.fc_roll, self.fc_pitch, self.fc_yaw = (nn.Linear(widths[-1], bins) for _ in range(3))
        self.fc_t, self.fc_exp = nn.Linear(widths[-1], 3), nn.Linear(widths[-1], 3 * design.keypoints)
        self.centre = design.centre

    def _add_stage(self, stage: int, given: int, width: int, repeats: int) -> None:
        """A 1 x 1 convolution to the stage's width, a block that halves the size (after the first stage), and more."""
        self.add_module(f"conv{stage + 2}", nn.Conv2d(given, width, 1))
        self.add_module(f"norm{stage + 2}", nn.BatchNorm2d(width))
        if stage > 0:
            self.add_module(f"block{2 * stage}", Bottleneck(width, stride=2))
        chain, number = nn.Sequential(), 2 * stage + 1
        for i in range(repeats):
            chain.add_module(f"b{number}_{i}", Bottleneck(width))
        self.add_module(f"block{number}", chain)

    def features(self, picture: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch features"]:
        """What the heads are given."""
        x = F.max_pool2d(F.relu(self.norm1(self.conv1(picture))), 3, stride=2, padding=1)
        for stage in range(self.stages):
            conv, norm = self.get_submodule(f"conv{stage + 2}"), self.get_submodule(f"norm{stage + 2}")
            x = F.relu(norm(conv(x)))
            x = x if stage == 0 else self.get_submodule(f"block{2 * stage}")(x)
            x = self.get_submodule(f"block{2 * stage + 1}")(x)
        return F.adaptive_avg_pool2d(x, 1).flatten(1)

    def forward(self, picture: Float[Tensor, "batch 3 height width"]) -> Pose:
        x = self.features(picture)
        logits = self.fc_roll(x), self.fc_pitch(x), self.fc_yaw(x)
        angles = torch.stack([degrees_of(each, self.centre) for each in logits], 1)
        return Pose(angles, self.fc_t(x), self.fc_exp(x).unflatten(1, (-1, 3)))
