"""Blocks of two and three dimensions that the networks share. `BatchNorm` everywhere, as published."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

SLOPE = 0.2
"""Of the leaky ReLU of SPADE and of the discriminator."""


class Same2d(nn.Module):
    """Convolution that keeps the size, normalisation, ReLU (leaky by 0.01 where asked)."""

    def __init__(self, given: int, made: int, kernel: int, *, leaky: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(given, made, kernel, padding=kernel // 2)
        self.norm = nn.BatchNorm2d(made)
        self.slope = 0.01 if leaky else 0.0

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.conv(x)), self.slope)


class Down2d(nn.Module):
    """Half the height and width."""

    def __init__(self, given: int, made: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(given, made, 3, padding=1)
        self.norm = nn.BatchNorm2d(made)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(F.relu(self.norm(self.conv(x))), 2)


class Up2d(nn.Module):
    """Twice the height and width."""

    def __init__(self, given: int, made: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(given, made, 3, padding=1)
        self.norm = nn.BatchNorm2d(made)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(F.interpolate(x, scale_factor=2))))


class Down3d(nn.Module):
    """Half the height and width, the depth as it is."""

    def __init__(self, given: int, made: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(given, made, 3, padding=1)
        self.norm = nn.BatchNorm3d(made)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool3d(F.relu(self.norm(self.conv(x))), (1, 2, 2))


class Up3d(nn.Module):
    """Twice the height and width, the depth as it is."""

    def __init__(self, given: int, made: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(given, made, 3, padding=1)
        self.norm = nn.BatchNorm3d(made)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(F.interpolate(x, scale_factor=(1, 2, 2)))))


class Residual(nn.Module):
    """Normalisation first, then ReLU and convolution, twice, added to the input."""

    def __init__(self, width: int, conv: type[nn.Module], norm: type[nn.Module]) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(width, width, 3, padding=1), conv(width, width, 3, padding=1)
        self.norm1, self.norm2 = norm(width), norm(width)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.conv1(F.relu(self.norm1(x)))
        made = self.conv2(F.relu(self.norm2(made)))
        return x + made


def residuals_2d(width: int, count: int) -> nn.Sequential:
    """A chain of `Residual` under the checkpoint's names."""
    chain = nn.Sequential()
    for i in range(count):
        chain.add_module(f"2dr{i}", Residual(width, nn.Conv2d, nn.BatchNorm2d))
    return chain


def residuals_3d(width: int, count: int) -> nn.Sequential:
    """A chain of three-dimensional `Residual` under the checkpoint's names."""
    chain = nn.Sequential()
    for i in range(count):
        chain.add_module(f"3dr{i}", Residual(width, nn.Conv3d, nn.BatchNorm3d))
    return chain


class SpectralConv2d(nn.Module):
    """A convolution whose weight is divided by its largest singular value, by one step of power iteration in training.

    Parameters are named as PyTorch's older `spectral_norm` names them: ``weight_orig``, ``weight_u``, ``weight_v``.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, given: int, made: int, kernel: int, *, padding: int = 0, bias: bool = True) -> None:
        super().__init__()
        plain = nn.Conv2d(given, made, kernel, bias=bias)
        self.weight_orig, self.bias, self.padding = plain.weight, plain.bias, padding
        self.register_buffer("weight_u", F.normalize(torch.randn(made), dim=0))
        self.register_buffer("weight_v", F.normalize(torch.randn(given * kernel * kernel), dim=0))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # singular values need more than bf16's 8 bits
            weight = self.weight()
        return F.conv2d(x, weight, self.bias, padding=self.padding)

    def weight(self) -> Tensor:
        """The weight over its largest singular value."""
        matrix = self.weight_orig.flatten(1)
        if self.training:
            self._iterate(matrix.detach())
        # Copies: the next forward pass writes over the buffers that this one's gradients need.
        return self.weight_orig / torch.dot(self.weight_u.clone(), matrix @ self.weight_v.clone())

    @torch.no_grad()
    def _iterate(self, matrix: Float[Tensor, "made given"]) -> None:
        self.weight_v.copy_(F.normalize(matrix.T @ self.weight_u, dim=0, eps=1e-12))
        self.weight_u.copy_(F.normalize(matrix @ self.weight_v, dim=0, eps=1e-12))
