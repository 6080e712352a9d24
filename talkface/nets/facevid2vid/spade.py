"""The larger decoder: every normalisation is told by the warped features how to scale and shift (SPADE)."""

import torch.nn.functional as F
from torch import Tensor, nn

from talkface.nets.facevid2vid.blocks import SLOPE, SpectralConv2d
from talkface.nets.facevid2vid.design import Design


class Spade(nn.Module):
    """Instance normalisation with gain and bias from a map."""

    def __init__(self, width: int, told: int, hidden: int) -> None:
        super().__init__()
        self.mlp_shared = nn.Sequential(nn.Conv2d(told, hidden, 3, padding=1), nn.ReLU())
        self.mlp_gamma, self.mlp_beta = (nn.Conv2d(hidden, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        hidden = self.mlp_shared(F.interpolate(told, size=x.shape[2:], mode="nearest"))
        made: Tensor = F.instance_norm(x) * (1 + self.mlp_gamma(hidden)) + self.mlp_beta(hidden)
        return made


class SpadeResidual(nn.Module):
    """Two convolutions under `Spade`; the way past them is learned where the width changes."""

    def __init__(self, given: int, made: int, told: int, hidden: int) -> None:
        super().__init__()
        middle = min(given, made)
        self.conv_0 = SpectralConv2d(given, middle, 3, padding=1)
        self.conv_1 = SpectralConv2d(middle, made, 3, padding=1)
        self.norm_0, self.norm_1 = Spade(given, told, hidden), Spade(middle, told, hidden)
        self.widens = given != made
        if self.widens:
            self.conv_s, self.norm_s = SpectralConv2d(given, made, 1, bias=False), Spade(given, told, hidden)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        past: Tensor = self.conv_s(self.norm_s(x, told)) if self.widens else x
        made = self.conv_0(F.leaky_relu(self.norm_0(x, told), SLOPE))
        made = self.conv_1(F.leaky_relu(self.norm_1(made, told), SLOPE))
        return past + made


class SpadeDecoder(nn.Module):
    """Warped features to a picture of four times the size, before the sigmoid."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        wide, narrow = design.spade_widths
        for i in range(6):
            self.add_module(f"G_middle_{i}", SpadeResidual(2 * wide, 2 * wide, wide, design.spade_hidden))
        self.fc = nn.Conv2d(wide, 2 * wide, 3, padding=1)
        self.up_0 = SpadeResidual(2 * wide, wide, wide, design.spade_hidden)
        self.up_1 = SpadeResidual(wide, narrow, wide, design.spade_hidden)
        self.conv_img = nn.Conv2d(narrow, 3, 3, padding=1)

    def forward(self, told: Tensor) -> Tensor:
        x = self.fc(told)
        for i in range(6):
            x = self.get_submodule(f"G_middle_{i}")(x, told)
        for block in (self.up_0, self.up_1):
            x = block(F.interpolate(x, scale_factor=2), told)
        made: Tensor = self.conv_img(F.leaky_relu(x, SLOPE))
        return made
