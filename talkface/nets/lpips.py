"""LPIPS: how far apart two pictures look (Zhang et al., CVPR 2018, version 0.1).

Activations of AlexNet or VGG 16 are brought to length 1 over channels; their squared differences are weighed by the
published heads and averaged over the picture; the five layers add up. The heads come with torchmetrics.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from talkface.errors import WeightsError
from talkface.nets.inference import read_checkpoint
from talkface.nets.vgg import Trunk

Net = Literal["alex", "vgg"]

TRUNKS: Final = {"alex": "alexnet", "vgg": "vgg16"}
SHIFT: Final = (-0.030, -0.088, -0.188)
SCALE: Final = (0.458, 0.448, 0.450)
"""Of RGB in -1..1."""
EPS: Final = 1e-10


class Lpips(nn.Module):
    """The distance over a trunk, with a head (1, channels, 1, 1) a tap."""

    shift: Tensor
    scale: Tensor

    def __init__(self, trunk: Trunk, heads: list[Tensor]) -> None:
        super().__init__()
        self.trunk, self.n_taps = trunk, len(heads)
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None])
        for index, head in enumerate(heads):
            self.register_buffer(f"head{index}", head)

    def forward(self, a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
        """Distances of pairs of RGB pictures in -1..1."""
        taps = zip(self._taps(a), self._taps(b), strict=True)
        layers = [self._layer(i, one, other) for i, (one, other) in enumerate(taps)]
        return torch.stack(layers).sum(dim=0)

    def _taps(self, x: Tensor) -> list[Tensor]:
        return [_unit(tap) for tap in self.trunk((x - self.shift) / self.scale)]

    def _layer(self, index: int, one: Tensor, other: Tensor) -> Tensor:
        head = self.get_buffer(f"head{index}")
        return ((one - other) ** 2 * head).sum(dim=1).mean(dim=(1, 2))


def _unit(x: Tensor) -> Tensor:
    return x / (torch.sqrt((x**2).sum(dim=1, keepdim=True)) + EPS)


def heads_file(net: Net) -> Path:
    """The published heads inside torchmetrics. Raises WeightsError where this version of it has none."""
    found = find_spec("torchmetrics")
    places = [] if found is None else list(found.submodule_search_locations or [])
    path = Path(places[0] if places else ".") / "functional" / "image" / "lpips_models" / f"{net}.pth"
    if not path.is_file():
        raise WeightsError('LPIPS\'s heads are not in this torchmetrics. Run: pip install "torchmetrics>=1.9"')
    return path


def load_heads(net: Net) -> list[Tensor]:
    """The five heads, each (1, channels, 1, 1)."""
    state = read_checkpoint(heads_file(net))
    return [state[f"lin{index}.model.1.weight"].float() for index in range(5)]
