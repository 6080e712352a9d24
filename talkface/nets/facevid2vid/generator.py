"""Appearance of the source as a volume, warped by the motion and painted."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from talkface.nets.facevid2vid.blocks import Down2d, Same2d, Up2d, residuals_2d, residuals_3d
from talkface.nets.facevid2vid.design import Design
from talkface.nets.facevid2vid.motion import DenseMotion, Flow, warped
from talkface.nets.facevid2vid.spade import SpadeDecoder


class Appearance(NamedTuple):
    """What is made of a source picture once and used for every frame."""

    volume: Float[Tensor, "batch channels depth height width"]
    few: Float[Tensor, "batch few depth height width"]

    def repeated(self, times: int) -> "Appearance":
        """One source for so many frames; no copy is made."""
        return Appearance(*(each.expand(times, *each.shape[1:]) for each in self))


class Painted(NamedTuple):
    """A picture in 0..1 and the flow that it was made with."""

    picture: Float[Tensor, "batch 3 height width"]
    flow: Flow


class Generator(nn.Module):
    """A source's `Appearance`, and its pictures under the motion from source keypoints to driving ones."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        a = design.appearance
        deep, flat = a.features(a.blocks), design.volume * design.depth
        self.dense_motion_network = DenseMotion(design)
        self.first = Same2d(3, a.expansion, 3 if design.spade else 7)
        self.down_blocks = nn.ModuleList(Down2d(a.features(i), a.features(i + 1)) for i in range(a.blocks))
        self.second = nn.Conv2d(deep, flat, 1)
        self.resblocks_3d = residuals_3d(design.volume, design.residuals)
        inner = a.expansion * 2**a.blocks
        self.third, self.fourth = Same2d(flat, inner, 3, leaky=True), nn.Conv2d(inner, inner, 1)
        self.spade = design.spade
        if design.spade:
            self.decoder = SpadeDecoder(design)
        else:
            self._plain_decoder(design)
        self.depth, self.corners = design.depth, design.corners

    def _plain_decoder(self, design: Design) -> None:
        a, last = design.appearance, design.appearance.blocks - 1
        self.resblocks_2d = residuals_2d(a.expansion * 2**a.blocks, design.residuals)
        sizes = [(a.expansion * 2 ** (last - i + 1), a.expansion * 2 ** (last - i)) for i in range(a.blocks)]
        self.up_blocks = nn.ModuleList(Up2d(given, made) for given, made in sizes)
        self.final = nn.Conv2d(a.expansion, 3, 7, padding=3)

    def appearance(self, source: Float[Tensor, "batch 3 height width"]) -> Appearance:
        """The volume of a picture in 0..1."""
        x = self.first(source)
        for block in self.down_blocks:
            x = block(x)
        volume = self.resblocks_3d(self.second(x).unflatten(1, (-1, self.depth)))
        return Appearance(volume, self.dense_motion_network.compressed(volume))

    def paint(
        self,
        of: Appearance,
        driving: Float[Tensor, "batch points 3"],
        source: Float[Tensor, "batch points 3"],
    ) -> Painted:
        """The picture that the driving keypoints ask for."""
        flow = self.dense_motion_network(of.few, driving, source)
        x = warped(of.volume, flow.field, self.corners).flatten(1, 2)
        return Painted(self._decode(self.fourth(self.third(x)) * flow.occlusion), flow)

    def _decode(self, x: Tensor) -> Tensor:
        if self.spade:
            return torch.sigmoid(self.decoder(x))
        x = self.resblocks_2d(x)
        for block in self.up_blocks:
            x = block(x)
        return torch.sigmoid(self.final(x))

    def forward(self, picture: Tensor, driving: Tensor, source: Tensor) -> Painted:
        return self.paint(self.appearance(picture), driving, source)
