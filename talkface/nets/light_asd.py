"""Light-ASD: who in the picture speaks, from a face and the sound.

Liao et al., A light weight model for active speaker detection, CVPR 2023. Layer sizes and parameter names are those of
its published weights: blocks that split each convolution in space (or bands) and time, two kernel sizes side by side,
and a gated recurrent unit in each direction.
"""

from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from talkface.errors import WeightsError
from talkface.nets.inference import device, fill, inference, read_checkpoint

SIDE: Final = 112
ROWS: Final = 4
"""Rows of MFCC a picture."""
MEAN, DEVIATION = 0.4161, 0.1688
"""Of grey pictures in 0..1."""
WIDTHS: Final = (32, 64, 128)
REACH: Final = 6
"""Pictures on either side that one picture's features depend on."""
PIECE: Final = 50
"""Pictures that go through the convolutions at once: more would only take more memory."""
LENGTHS: Final = tuple(range(25, 151, 25))
"""Pictures of the windows in which the recurrent units listen: of one to six seconds, as the authors test it. A window
forgets what was before it; the mean over all lengths turns quickly where speakers take turns."""


def _norm(kind: type[nn.BatchNorm2d] | type[nn.BatchNorm3d], channels: int) -> nn.Module:
    return kind(channels, momentum=0.01, eps=0.001)


class FaceBlock(nn.Module):
    """3 x 3 and 5 x 5 in space, then 3 and 5 in time, summed."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        for size in (3, 5):
            pad = size // 2
            space = nn.Conv3d(inputs, outputs, (1, size, size), (1, stride, stride), (0, pad, pad), bias=False)
            time = nn.Conv3d(outputs, outputs, (size, 1, 1), padding=(pad, 0, 0), bias=False)
            for name, layer in ((f"s_{size}", space), (f"t_{size}", time)):
                self.add_module(name, layer)
                self.add_module(f"bn_{name}", _norm(nn.BatchNorm3d, outputs))
        self.last, self.bn_last = nn.Conv3d(outputs, outputs, 1, bias=False), _norm(nn.BatchNorm3d, outputs)

    def forward(self, x: Float[Tensor, "n inputs time h w"]) -> Float[Tensor, "n outputs time h2 w2"]:
        """Both branches, then the last layer."""
        return _branches(self, x, "s")


class SoundBlock(nn.Module):
    """3 and 5 over the cepstra, then 3 and 5 in time, summed."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        for size in (3, 5):
            pad = size // 2
            bands = nn.Conv2d(inputs, outputs, (size, 1), padding=(pad, 0), bias=False)
            time = nn.Conv2d(outputs, outputs, (1, size), padding=(0, pad), bias=False)
            for name, layer in ((f"m_{size}", bands), (f"t_{size}", time)):
                self.add_module(name, layer)
                self.add_module(f"bn_{name}", _norm(nn.BatchNorm2d, outputs))
        self.last, self.bn_last = nn.Conv2d(outputs, outputs, 1, bias=False), _norm(nn.BatchNorm2d, outputs)

    def forward(self, x: Float[Tensor, "n inputs bands time"]) -> Float[Tensor, "n outputs bands time"]:
        """Both branches, then the last layer."""
        return _branches(self, x, "m")


def _branches(block: nn.Module, x: Tensor, first: str) -> Tensor:
    def step(name: str, y: Tensor) -> Tensor:
        return functional.relu(block.get_submodule(f"bn_{name}")(block.get_submodule(name)(y)))

    small, large = (step(f"t_{size}", step(f"{first}_{size}", x)) for size in (3, 5))
    return step("last", small + large)


class FaceEncoder(nn.Module):
    """Pictures to a feature vector each."""

    def __init__(self) -> None:
        super().__init__()
        self.block1, self.block2, self.block3 = (
            FaceBlock(inputs, outputs, stride)
            for inputs, outputs, stride in zip((1, *WIDTHS), WIDTHS, (2, 1, 1), strict=False)
        )

    def forward(self, x: Float[Tensor, "1 1 time 112 112"]) -> Float[Tensor, "1 time 128"]:
        """The largest response anywhere in the picture."""
        x = _halved(_halved(x, self.block1), self.block2)
        return self.block3(x).amax(dim=(3, 4)).transpose(1, 2)


def _halved(x: Tensor, block: nn.Module) -> Tensor:
    return functional.max_pool3d(block(x), (1, 3, 3), (1, 2, 2), (0, 1, 1))


class SoundEncoder(nn.Module):
    """Four rows of MFCC to one feature vector."""

    def __init__(self) -> None:
        super().__init__()
        self.block1, self.block2, self.block3 = (
            SoundBlock(inputs, outputs) for inputs, outputs in zip((1, *WIDTHS), WIDTHS, strict=False)
        )

    def forward(self, x: Float[Tensor, "1 1 13 rows"]) -> Float[Tensor, "1 time 128"]:
        """The mean over the cepstra."""
        for block in (self.block1, self.block2):
            x = functional.max_pool2d(block(x), (1, 3), (1, 2), (0, 1))
        return self.block3(x).mean(dim=2).transpose(1, 2)


class BothWays(nn.Module):
    """A recurrent unit forwards, and one backwards over what it said."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gru_forward = nn.GRU(width, width, batch_first=True)
        self.gru_backward = nn.GRU(width, width, batch_first=True)

    def forward(self, x: Float[Tensor, "1 time width"]) -> Float[Tensor, "1 time width"]:
        """GELU after each."""
        x = functional.gelu(self.gru_forward(x)[0])
        return functional.gelu(self.gru_backward(x.flip(1))[0].flip(1))


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visualEncoder, self.audioEncoder = FaceEncoder(), SoundEncoder()
        self.GRU = BothWays(WIDTHS[-1])


class _Decision(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.FC = nn.Linear(WIDTHS[-1], 2)


class LightASD(nn.Module):
    """The whole model; ``lossV``, which training alone uses, is loaded and not run."""

    def __init__(self) -> None:
        super().__init__()
        self.model, self.lossAV, self.lossV = _Net(), _Decision(), _Decision()

    def forward(
        self, pictures: Float[Tensor, "1 time 112 112"], rows: Float[Tensor, "1 rows 13"]
    ) -> Float[Tensor, " time"]:
        """Log-odds of speaking at each picture (grey 0..255), from four times as many rows of MFCC."""
        heard = self.model.audioEncoder(rows.transpose(1, 2)[:, None])
        both = self.seen(pictures) + heard
        return torch.stack([self.decided(both, length) for length in LENGTHS]).mean(dim=0)

    def decided(self, both: Float[Tensor, "1 time 128"], length: int) -> Float[Tensor, " time"]:
        """Log-odds from windows of ``length`` pictures, the last one shorter."""
        windows = torch.cat([self.model.GRU(window) for window in both.split(length, dim=1)], dim=1)
        silent, speaks = self.lossAV.FC(windows)[0].unbind(1)
        return speaks - silent

    def seen(self, pictures: Float[Tensor, "1 time 112 112"]) -> Float[Tensor, "1 time 128"]:
        """Features of the pictures, in pieces that overlap by what a feature depends on."""
        x = (pictures / 255 - MEAN) / DEVIATION
        parts = []
        for start in range(0, x.shape[1], PIECE):
            first = max(0, start - REACH)
            part = self.model.visualEncoder(x[:, None, first : start + PIECE + REACH])
            parts.append(part[:, start - first :][:, :PIECE])
        return torch.cat(parts, dim=1)


def load_light_asd(path: Path) -> LightASD:
    """The network of Light-ASD's weights. Raises WeightsError, with the difference, for a file that is not it."""
    state = read_checkpoint(path)
    if not isinstance(state, dict):
        raise WeightsError(f"{path}: not Light-ASD's weights: expected names and tensors, got {type(state).__name__}.")
    net = LightASD()
    fill(net, state, path, "Light-ASD")
    return net.eval()


def log_odds(
    net: LightASD, grey: UInt8[np.ndarray, "pictures 112 112"], rows: Float[np.ndarray, "rows 13"]
) -> Float[np.ndarray, " pictures"]:
    """Log-odds of speaking at each picture; where the sound ends before the pictures, the last one holds."""
    n = min(len(grey), len(rows) // ROWS)
    on = device()
    net.to(on)
    with inference():
        pictures = torch.from_numpy(grey[:n]).to(on).float()[None]
        sound = torch.from_numpy(rows[: ROWS * n].astype(np.float32)).to(on)[None]
        found = net(pictures, sound).float().cpu().numpy()
    return np.asarray(np.pad(found, (0, len(grey) - n), mode="edge"), np.float32)
