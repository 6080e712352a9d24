"""Inception v3 as FID means it: TensorFlow's network of 2015 in the layout of pytorch-fid.

It differs from torchvision's in its pooling: averages do not count the padding, and the last block takes the maximum
(Szegedy et al. 2016; Heusel et al. 2017). Names and shapes are those of ``pt_inception-2015-12-05-6726825d.pth``.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from talkface.errors import WeightsError
from talkface.nets.inference import fill, read_checkpoint

SIDE: Final = 299
FEATURES: Final = 2048

_average: Final = partial(functional.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
_maximum: Final = partial(functional.max_pool2d, kernel_size=3, stride=1, padding=1)
_halved: Final = partial(functional.max_pool2d, kernel_size=3, stride=2)


class Conv(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int | tuple[int, int], stride: int = 1, *, pad: bool = True):
        super().__init__()
        height, width = (size, size) if isinstance(size, int) else size
        padding = (height // 2, width // 2) if pad else 0
        self.conv = nn.Conv2d(inputs, outputs, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)), inplace=True)


class A(nn.Module):
    """Branches of 1 x 1, 5 x 5, two 3 x 3, and the average."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(inputs, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = Conv(inputs, 48, 1), Conv(48, 64, 5)
        self.branch3x3dbl_1 = Conv(inputs, 64, 1)
        self.branch3x3dbl_2, self.branch3x3dbl_3 = Conv(64, 96, 3), Conv(96, 96, 3)
        self.branch_pool = Conv(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        five = self.branch5x5_2(self.branch5x5_1(x))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(_average(x))], 1)


class B(nn.Module):
    """Halves the picture."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = Conv(inputs, 384, 3, 2, pad=False)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(inputs, 64, 1), Conv(64, 96, 3)
        self.branch3x3dbl_3 = Conv(96, 96, 3, 2, pad=False)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, _halved(x)], 1)


class C(nn.Module):
    """Branches of 1 x 7 and 7 x 1."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(inputs, 192, 1)
        self.branch7x7_1, self.branch7x7_2 = Conv(inputs, width, 1), Conv(width, width, (1, 7))
        self.branch7x7_3 = Conv(width, 192, (7, 1))
        self.branch7x7dbl_1, self.branch7x7dbl_2 = Conv(inputs, width, 1), Conv(width, width, (7, 1))
        self.branch7x7dbl_3, self.branch7x7dbl_4 = Conv(width, width, (1, 7)), Conv(width, width, (7, 1))
        self.branch7x7dbl_5 = Conv(width, 192, (1, 7))
        self.branch_pool = Conv(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(_average(x))], 1)


class D(nn.Module):
    """Halves the picture again."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = Conv(inputs, 192, 1), Conv(192, 320, 3, 2, pad=False)
        self.branch7x7x3_1, self.branch7x7x3_2 = Conv(inputs, 192, 1), Conv(192, 192, (1, 7))
        self.branch7x7x3_3, self.branch7x7x3_4 = Conv(192, 192, (7, 1)), Conv(192, 192, 3, 2, pad=False)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, _halved(x)], 1)


class E(nn.Module):
    """Branches that part in two; ``pool`` is what the two blocks of this kind differ in."""

    def __init__(self, inputs: int, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.pool = pool
        self.branch1x1 = Conv(inputs, 320, 1)
        self.branch3x3_1 = Conv(inputs, 384, 1)
        self.branch3x3_2a, self.branch3x3_2b = Conv(384, 384, (1, 3)), Conv(384, 384, (3, 1))
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(inputs, 448, 1), Conv(448, 384, 3)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = Conv(384, 384, (1, 3)), Conv(384, 384, (3, 1))
        self.branch_pool = Conv(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        parts = [self.branch3x3_2a(one), self.branch3x3_2b(one), self.branch3x3dbl_3a(two), self.branch3x3dbl_3b(two)]
        return torch.cat([self.branch1x1(x), *parts, self.branch_pool(self.pool(x))], 1)


class Inception(nn.Module):
    """Pictures to the 2048 numbers before the classifier, which the file holds too and which is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, 2, pad=False)
        self.Conv2d_2a_3x3, self.Conv2d_2b_3x3 = Conv(32, 32, 3, pad=False), Conv(32, 64, 3)
        self.Conv2d_3b_1x1, self.Conv2d_4a_3x3 = Conv(64, 80, 1), Conv(80, 192, 3, pad=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = A(192, 32), A(256, 64), A(288, 64)
        self.Mixed_6a = B(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = (C(768, w) for w in (128, 160, 160, 192))
        self.Mixed_7a, self.Mixed_7b, self.Mixed_7c = D(768), E(1280, _average), E(2048, _maximum)
        self.requires_grad_(requires_grad=False).eval()

    def forward(self, x: Float[Tensor, "n 3 299 299"]) -> Float[Tensor, "n 2048"]:
        """Features of pictures in -1..1, as `to_input` makes them."""
        x = _halved(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = _halved(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_6a(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean(dim=(2, 3))


def to_input(pictures: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 299 299"]:
    """Pictures as pytorch-fid resizes them: bilinear, corners not aligned, not smoothed before; -1..1."""
    resized = functional.interpolate(pictures.float() / 255, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return 2 * resized - 1


def load_inception(path: Path) -> Inception:
    """The network of ``pt_inception-2015-12-05-6726825d.pth``. Raises WeightsError for a file that is not it."""
    state = read_checkpoint(path)
    if not isinstance(state, dict):
        raise WeightsError(f"{path}: not Inception's weights: expected names and tensors, got {type(state).__name__}.")
    net = Inception()
    fill(net, {n: v for n, v in state.items() if not str(n).startswith("fc.")}, path, "Inception as FID uses it")
    return net
