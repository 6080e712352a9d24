"""EMOdiffhead's generator of expressions and its two discriminators (Eq. 17 to 19)."""

from itertools import pairwise
from typing import Final

import torch
from jaxtyping import Float
from torch import nn
from torch.nn.utils.parametrize import register_parametrization

KERNEL: Final = 3
SLOPE: Final = 0.2
SMALL: Final = 1e-6
ROUNDS: Final = 6


class LargestIsOne(nn.Module):
    """Spectral norm (Miyato 2018): a weight over its largest singular value.

    Power iteration starts from the same vector each time, so that a pass changes nothing and gives the same again.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("start", nn.functional.normalize(torch.randn(len(weight)), dim=0))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        flat = weight.flatten(1)
        with torch.no_grad():
            u: torch.Tensor = self.start  # type: ignore[assignment]
            for _ in range(ROUNDS):
                v = nn.functional.normalize(flat.T @ u, dim=0)
                u = nn.functional.normalize(flat @ v, dim=0)
        return weight / (u @ flat @ v).clamp(min=SMALL)


def spectral_norm(layer: nn.Module) -> nn.Module:
    assert isinstance(layer.weight, torch.Tensor)
    register_parametrization(layer, "weight", LargestIsOne(layer.weight))
    return layer


class Generator(nn.Module):
    """An LSTM: the expression before, emotion and noise to the next expression.

    One noise vector serves a whole sequence. Without ``teacher`` it goes on from what it made itself.
    """

    def __init__(self, numbers: int, emotions: int, noise: int = 64, width: int = 256, layers: int = 2) -> None:
        super().__init__()
        self.numbers, self.noise = numbers, noise
        self.lstm = nn.LSTM(numbers + emotions + noise, width, layers, batch_first=True)
        self.out = nn.Linear(width, numbers)

    def forward(
        self,
        emotion: Float[torch.Tensor, "b emotions"],
        noise: Float[torch.Tensor, "b noise"],
        frames: int,
        teacher: Float[torch.Tensor, "b frames numbers"] | None = None,
    ) -> Float[torch.Tensor, "b frames numbers"]:
        """``teacher`` is the real sequence: frame i then comes from its frame i - 1. Frame 0 comes from zeros."""
        # oneDNN has no LSTM in bfloat16 on all processors, and what is fed back should not be rounded.
        with torch.autocast(emotion.device.type, enabled=False):
            return self._make(torch.cat([emotion, noise], dim=1).float(), frames, teacher)

    def _make(self, given: torch.Tensor, frames: int, teacher: torch.Tensor | None) -> torch.Tensor:
        if teacher is not None:
            before = torch.cat([torch.zeros_like(teacher[:, :1]), teacher[:, :-1]], dim=1)
            states, _ = self.lstm(torch.cat([before, given[:, None].expand(-1, frames, -1)], dim=2))
            taught: torch.Tensor = self.out(states)
            return taught
        made, state = [given.new_zeros(len(given), self.numbers)], None
        for _ in range(frames):
            hidden, state = self.lstm(torch.cat([made[-1], given], dim=1)[:, None], state)
            made.append(self.out(hidden[:, 0]))
        return torch.stack(made[1:], dim=1)


class GlobalDiscriminator(nn.Module):
    """A temporal convolutional network over a whole sequence: how real it is given its emotion, and which emotion it
    is. ``temporal=False`` has no dilations (the paper's "standard convolution", Table 4)."""

    def __init__(
        self, numbers: int, emotions: int, width: int = 128, dilations: tuple[int, ...] = (1, 2, 4, 8),
        temporal: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        spread = dilations if temporal else (1,)
        self.first = spectral_norm(nn.Conv1d(numbers, width, 1))
        self.blocks = nn.ModuleList(
            spectral_norm(nn.Conv1d(width, width, KERNEL, padding=d * (KERNEL // 2), dilation=d)) for d in spread
        )
        self.real = spectral_norm(nn.Linear(2 * width, 1))
        self.condition = spectral_norm(nn.Linear(emotions, 2 * width, bias=False))
        self.emotion = spectral_norm(nn.Linear(2 * width, emotions))
        self.act = nn.LeakyReLU(SLOPE)

    def forward(
        self, sequence: Float[torch.Tensor, "b frames numbers"], emotion: Float[torch.Tensor, "b emotions"]
    ) -> tuple[Float[torch.Tensor, " b"], Float[torch.Tensor, "b emotions"]]:
        """Logits of being real (with a projection of the emotion, Miyato 2018) and of each emotion."""
        h = self.act(self.first(sequence.transpose(1, 2)))
        for block in self.blocks:
            h = h + self.act(block(h))
        # The deviation over time shows whether anything moves.
        middle = h.mean(2, keepdim=True)
        pooled = torch.cat([middle[..., 0], ((h - middle).square().mean(2) + SMALL).sqrt()], dim=1)
        real = self.real(pooled)[:, 0] + (self.condition(emotion) * pooled).sum(1)
        return real, self.emotion(pooled)


class LocalDiscriminator(nn.Module):
    """An MLP: is one frame's expression real, given its emotion?"""

    def __init__(self, numbers: int, emotions: int, width: int = 128) -> None:
        super().__init__()
        sizes = (numbers + emotions, width, width // 2, 1)
        linear = [spectral_norm(nn.Linear(a, b)) for a, b in pairwise(sizes)]
        self.layers = nn.Sequential(linear[0], nn.LeakyReLU(SLOPE), linear[1], nn.LeakyReLU(SLOPE), linear[2])

    def forward(
        self, sequence: Float[torch.Tensor, "b frames numbers"], emotion: Float[torch.Tensor, "b emotions"]
    ) -> Float[torch.Tensor, "b frames"]:
        with_emotion = torch.cat([sequence, emotion[:, None].expand(-1, sequence.shape[1], -1)], dim=2)
        logits: torch.Tensor = self.layers(with_emotion)
        return logits[..., 0]


class ExpressionGan(nn.Module):
    """Both sides in one: ``generator.*`` and ``discriminator.*`` are the names that training steps apart.

    ``local=False`` and ``temporal=False`` are the ablation of the paper's Table 4.
    """

    def __init__(
        self, numbers: int, emotions: int, *, noise: int = 64, width: int = 256, layers: int = 2, features: int = 128,
        dilations: tuple[int, ...] = (1, 2, 4, 8), local: bool = True, temporal: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.generator = Generator(numbers, emotions, noise, width, layers)
        parts: dict[str, nn.Module] = {
            "whole": GlobalDiscriminator(numbers, emotions, features, dilations, temporal),
        }
        if local:
            parts["frame"] = LocalDiscriminator(numbers, emotions, features)
        self.discriminator = nn.ModuleDict(parts)

    def make(
        self, emotion: torch.Tensor, noise: torch.Tensor, frames: int, teacher: torch.Tensor | None = None
    ) -> torch.Tensor:
        made: torch.Tensor = self.generator(emotion, noise, frames, teacher)
        return made

    def judge(
        self, sequence: torch.Tensor, emotion: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Logits of being real, of each emotion, and (with the local discriminator) of each frame being real."""
        real, which = self.discriminator["whole"](sequence, emotion)
        frames = self.discriminator["frame"](sequence, emotion) if "frame" in self.discriminator else None
        return real, which, frames

    def forward(self, what: str, *arguments: torch.Tensor | int | None) -> object:
        """``make`` or ``judge`` by name: one entry for whatever wraps the network."""
        return {"make": self.make, "judge": self.judge}[what](*arguments)  # type: ignore[operator]
