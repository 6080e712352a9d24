"""DECA's coarse encoder: one picture of a face to FLAME's parameters.

Feng, Feng, Black, Bolkart, Learning an animatable detailed 3D face model from in-the-wild images, SIGGRAPH 2021, and
the parameter names of its published ``deca_model.tar``. The network is a ResNet-50 (He et al., 2016; the stride is in
the 3 x 3 convolution) and two linear layers.
"""

from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from talkface.errors import WeightsError
from talkface.nets.inference import fill, read_checkpoint

SIDE: Final = 224
"""Pixels of the network's square input."""
MARGIN: Final = 1.25 * 1.1
"""Side of the square in mean sides of the 68 points' box."""

OUTPUT: Final = {"shape": 100, "texture": 50, "expression": 50, "pose": 6, "camera": 3, "light": 27}
"""What the 236 outputs are, in order."""

Points = Float[np.ndarray, "68 2"]


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions around a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: Float[Tensor, "n inputs h w"]) -> Float[Tensor, "n outputs h2 w2"]:
        """Residual and shortcut, then ReLU."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        return functional.relu(self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x)))


class ResNet50(nn.Module):
    """Pictures to 2048 features: the mean of the last map, no classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False), nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, 3, stride=1)
        self.layer2 = _stage(256, 128, 4, stride=2)
        self.layer3 = _stage(512, 256, 6, stride=2)
        self.layer4 = _stage(1024, 512, 3, stride=2)

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 2048"]:
        """Features of each picture."""
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, padding=1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean(dim=(2, 3))


def _stage(inputs: int, width: int, blocks: int, *, stride: int) -> nn.Sequential:
    rest = (Bottleneck(4 * width, width, 1) for _ in range(blocks - 1))
    return nn.Sequential(Bottleneck(inputs, width, stride), *rest)


class Encoder(nn.Module):
    """``E_flame``: RGB 224 x 224 in 0..1, no mean subtracted, to the 236 numbers of ``OUTPUT``."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ResNet50()
        self.layers = nn.Sequential(nn.Linear(2048, 1024), nn.ReLU(), nn.Linear(1024, sum(OUTPUT.values())))

    def forward(self, x: Float[Tensor, "n 3 224 224"]) -> Float[Tensor, "n 236"]:
        """All parameters of each picture."""
        return self.layers(self.encoder(x))


def load_encoder(path: Path) -> Encoder:
    """The encoder of ``deca_model.tar``. Raises WeightsError, with the difference, for a file that is not it."""
    checkpoint = read_checkpoint(path)
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("E_flame"), dict):
        found = ", ".join(map(str, checkpoint))[:120] if isinstance(checkpoint, dict) else type(checkpoint).__name__
        raise WeightsError(f"{path}: not DECA's model: expected the key E_flame, found {found or 'nothing'}.")
    with torch.device("meta"):
        encoder = Encoder()
    encoder.to_empty(device="cpu")
    for norm in (m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.reset_running_stats()
    fill(encoder, checkpoint["E_flame"], path, "DECA's E_flame")
    return encoder.eval()


def split(parameters: Float[Tensor, "n 236"]) -> dict[str, Float[Tensor, "n _"]]:
    """The encoder's output by name."""
    return dict(zip(OUTPUT, parameters.split(list(OUTPUT.values()), dim=1), strict=True))


def face_square(points: Points) -> tuple[Float[np.ndarray, " 2"], float]:
    """Centre and side of the square around the 68 points that the encoder sees, in the points' own pixels."""
    low, high = points.min(axis=0), points.max(axis=0)
    return (low + high) / 2, float(MARGIN * (high - low).mean())


def to_input(points: Points) -> Float[np.ndarray, "2 3"]:
    """From the points' pixels to the encoder's: the square's corners fall on the centres of the corner pixels.

    Both count from the corner of the first pixel, whose centre is at 0.5.
    """
    centre, side = face_square(points)
    scale = (SIDE - 1) / side
    return np.array(
        [[scale, 0, 0.5 + scale * (side / 2 - centre[0])], [0, scale, 0.5 + scale * (side / 2 - centre[1])]]
    )


def cut_face(picture: UInt8[np.ndarray, "height width 3"], points: Points) -> UInt8[np.ndarray, "224 224 3"]:
    """What the encoder sees of a picture: bilinear samples, black outside."""
    matrix = to_input(points)
    matrix[:, 2] += 0.5 * matrix[:, 0:2].sum(axis=1) - 0.5  # OpenCV counts from the centre of the first pixel
    return np.asarray(cv2.warpAffine(picture, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR))
