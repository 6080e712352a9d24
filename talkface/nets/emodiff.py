"""The denoiser of EmoDiff: a transformer over the frames of a window."""

import math
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import nn


class Denoiser(nn.Module):
    """Predicts the noise in a window of states.

    ``concat`` (after DiffGesture, which the papers refer to): per frame, state, time, condition and sound side by side.
    ``cross``: state and time only; each frame looks across at the sound of the frames around it and at the four rows
    that the condition matrix holds.
    """

    def __init__(
        self, *, state: int, frames: int, sound: int, width: int = 512, layers: int = 8, heads: int = 8,
        sound_width: int = 64, time_width: int = 64, dropout: float = 0.0,
        conditioning: Literal["concat", "cross"] = "concat", reach: int = 2, fade: float = 0.0,
    ) -> None:  # fmt: skip
        """With ``fade`` (frames) it predicts x0, as `Fade` says."""
        super().__init__()
        self.fade = Fade(frames, fade) if fade else None
        self.conditioning, self.time_width = conditioning, time_width
        self.sound = nn.Linear(sound, sound_width)
        self.time = nn.Sequential(nn.Linear(time_width, time_width), nn.SiLU(), nn.Linear(time_width, time_width))
        given = state + 1 + sound_width
        self.null = nn.Parameter(torch.zeros(given))
        into = state + time_width + (given if conditioning == "concat" else 0)
        self.enter = nn.Linear(into, width)
        self.positions = nn.Parameter(torch.randn(frames, width) * 0.02)
        settings: dict[str, Any] = {"dropout": dropout, "activation": "gelu", "batch_first": True, "norm_first": True}
        self.blocks: nn.Module
        if conditioning == "concat":
            layer = nn.TransformerEncoderLayer(width, heads, 4 * width, **settings)
            self.blocks = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        else:
            self.sound_memory, self.condition_memory = nn.Linear(sound_width, width), nn.Linear(state + 1, width)
            decoder = nn.TransformerDecoderLayer(width, heads, 4 * width, **settings)
            self.blocks = nn.TransformerDecoder(decoder, layers, nn.LayerNorm(width))
            self.register_buffer("barrier", alignment(frames, reach), persistent=False)
        self.leave = nn.Sequential(nn.Linear(width, width // 2), nn.GELU(), nn.Linear(width // 2, state))

    def forward(
        self,
        x: Float[torch.Tensor, "batch frames state"],
        t: Int64[torch.Tensor, " batch"],
        condition: Float[torch.Tensor, "batch frames flagged"],
        sound: Float[torch.Tensor, "batch frames sound"],
        drop: Bool[torch.Tensor, " batch"],
    ) -> Float[torch.Tensor, "batch frames state"]:
        """Where ``drop`` is true, condition and sound together give way to the learned null."""
        given = torch.cat([condition, self.sound(sound)], dim=-1)
        given = torch.where(drop[:, None, None], self.null.to(given.dtype), given)
        time = self.time(sinusoids(t, self.time_width))[:, None].expand(-1, x.shape[1], -1)
        if self.conditioning == "concat":
            hidden = self.enter(torch.cat([x, time, given], dim=-1)) + self.positions
            return self.faded(self.leave(self.blocks(hidden)), condition, drop)
        hidden = self.enter(torch.cat([x, time], dim=-1)) + self.positions
        state_1 = condition.shape[-1]
        memory = torch.cat(
            [
                self.sound_memory(given[..., state_1:]) + self.positions,
                self.condition_memory(given[..., :state_1]) + self.positions,
            ],
            dim=1,
        )
        return self.faded(self.leave(self.blocks(hidden, memory, memory_mask=self.barrier)), condition, drop)

    def faded(self, said: torch.Tensor, condition: torch.Tensor, drop: torch.Tensor) -> torch.Tensor:
        """What it predicts, from what its last layer said; without a condition there is nothing to start from."""
        return said if self.fade is None else torch.where(drop[:, None, None], said, self.fade(said, condition))


class Fade(nn.Module):
    """x0 = a_i initial + (1 - a_i) (mean of the style frames + change), with a_i = exp(-i / fade) at frame i.

    A person who was never seen rests elsewhere than all who were: the network need not say where, only how the face
    moves. The initial frame is given, and the less can change the nearer it is: no seam shows between windows.
    """

    held: torch.Tensor

    def __init__(self, frames: int, fade: float) -> None:
        super().__init__()
        self.register_buffer("held", held_share(frames, fade), persistent=False)

    def forward(
        self, change: Float[torch.Tensor, "batch frames state"], condition: Float[torch.Tensor, "batch frames flagged"]
    ) -> Float[torch.Tensor, "batch frames state"]:
        """Frames that are missing (flag 0) have no part."""
        initial, *style = condition[:, condition_rows(change.shape[1])].split(1, dim=1)
        there = sum(row[..., -1:] for row in style)
        free = change + sum(row[..., :-1] for row in style) / torch.clamp(there, min=1)
        held = self.held * initial[..., -1:]
        return held * initial[..., :-1] + (1 - held) * free


def held_share(frames: int, fade: float) -> Float[torch.Tensor, "frames 1"]:
    """How much of each frame is the initial frame: ``exp(-i / fade)``; nothing where nothing fades."""
    at = torch.arange(float(frames))[:, None]
    return torch.exp(-at / fade) if fade else torch.zeros_like(at)


def alignment(frames: int, reach: int) -> Bool[torch.Tensor, "frames memory"]:
    """True where a frame may not look: sound more than ``reach`` frames away, and empty rows of the condition."""
    at = torch.arange(frames)
    sound = (at[:, None] - at[None]).abs() > reach
    empty = torch.ones(frames, dtype=torch.bool)
    empty[condition_rows(frames)] = False
    return torch.cat([sound, empty.expand(frames, -1)], dim=1)


def condition_rows(frames: int) -> list[int]:
    """Rows of the condition matrix that are filled (Fig. 3): the first, and the three in the middle."""
    middle = frames // 2
    return [0, middle - 1, middle, middle + 1]


def sinusoids(t: Int64[torch.Tensor, " batch"], width: int) -> Float[torch.Tensor, "batch width"]:
    """Sines and cosines of t at periods from 2 pi to 2 pi 10000 (Vaswani 2017)."""
    rates = torch.exp(-math.log(10_000) * torch.arange(width // 2, device=t.device) / (width // 2))
    angles = t[:, None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
