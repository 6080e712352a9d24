"""The convolutions of AlexNet and VGG, from the files that torchvision gives: what perceptual distances look at.

Names and shapes are torchvision's (``features.N.weight``). The classifiers in those files are not used.
Krizhevsky 2014 ("One weird trick", AlexNet); Simonyan and Zisserman 2015 (VGG 16 and 19, without batch norm).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from jaxtyping import Float
from torch import Tensor, nn

from talkface.errors import WeightsError
from talkface.nets.inference import fill, read_checkpoint

Name = Literal["alexnet", "vgg16", "vgg19"]

POOL: Final = "pool"
_VGG16: Final = (64, 64, POOL, 128, 128, POOL, *(256,) * 3, POOL, *(512,) * 3, POOL, *(512,) * 3)
_VGG19: Final = (64, 64, POOL, 128, 128, POOL, *(256,) * 4, POOL, *(512,) * 4, POOL, *(512,) * 4)
_ALEXNET: Final = ((64, 11, 4, 2), POOL, (192, 5, 1, 2), POOL, (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1))

TAPS: Final = {
    "alexnet": (1, 4, 7, 9, 11),
    "vgg16": (3, 8, 15, 22, 29),
    "vgg19": (1, 6, 11, 20, 29),
}
"""After which of ``features`` to look: LPIPS's five of AlexNet and VGG 16, relu1_1 .. relu5_1 of VGG 19."""

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)
"""Of RGB in 0..1: what the networks were trained on."""


class Trunk(nn.Module):
    """A network's convolutions, up to the last tap. Weights take no gradient; pictures do."""

    def __init__(self, name: Name) -> None:
        super().__init__()
        self.taps: Sequence[int] = TAPS[name]
        self.features = _alexnet() if name == "alexnet" else _vgg(_VGG16 if name == "vgg16" else _VGG19)
        self.requires_grad_(requires_grad=False).eval()

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> list[Float[Tensor, "n _ _ _"]]:
        """Activations at the five taps, of pictures on the scale that the caller's distance asks for."""
        found = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                found.append(x)
            if index == self.taps[-1]:
                break
        return found


def _vgg(widths: Sequence[int | str]) -> nn.Sequential:
    layers: list[nn.Module] = []
    inputs = 3
    for width in widths:
        if isinstance(width, str):
            layers.append(nn.MaxPool2d(2, 2))
            continue
        layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers)


def _alexnet() -> nn.Sequential:
    layers: list[nn.Module] = []
    inputs = 3
    for made in _ALEXNET:
        if isinstance(made, str):
            layers.append(nn.MaxPool2d(3, 2))
            continue
        width, kernel, stride, padding = made
        layers += [nn.Conv2d(inputs, width, kernel, stride, padding), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers)


def load_trunk(name: Name, path: Path) -> Trunk:
    """The convolutions in torchvision's file, strictly. Raises WeightsError, with the difference, for another file."""
    state = read_checkpoint(path)
    if not isinstance(state, dict):
        raise WeightsError(f"{path}: not {name}'s weights: expected names and tensors, got {type(state).__name__}.")
    net = Trunk(name)
    fill(net, {n: v for n, v in state.items() if not str(n).startswith("classifier.")}, path, name)
    return net


def load_alexnet(path: Path) -> Trunk:
    """See `load_trunk`."""
    return load_trunk("alexnet", path)


def load_vgg16(path: Path) -> Trunk:
    """See `load_trunk`."""
    return load_trunk("vgg16", path)


def load_vgg19(path: Path) -> Trunk:
    """See `load_trunk`."""
    return load_trunk("vgg19", path)
