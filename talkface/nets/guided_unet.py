"""The UNet of guided-diffusion (Dhariwal and Nichol 2021), with room for more conditions in its residual blocks.

Names and shapes are those of openai/guided-diffusion (``UNetModel`` with scale-shift norm and resampling residual
blocks), so that its weights load strictly. Sound and expression are conditions of EMOdiffhead (Eq. 12, 13).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import torch
from jaxtyping import Float, Int64
from torch import nn
from torch.nn import functional as F

GROUPS: Final = 32
PERIOD: Final = 10_000.0

Gain = Literal["one_plus", "printed"]
Embeddings = Mapping[str, torch.Tensor]
"""What conditions a block, by name: (batch, embedding)."""
Visit = Callable[[str, torch.Tensor], torch.Tensor]
"""Called with the name and the output of a residual block (its attention included); what it returns goes on."""


@dataclass(frozen=True)
class UNetShape:
    """Sizes. ``attention`` and ``sites`` are downsampling factors: 4 is a quarter of the input's side."""

    inputs: int
    outputs: int
    channels: int = 256
    multiples: tuple[int, ...] = (1, 2, 3)
    blocks: int = 2
    attention: tuple[int, ...] = (4,)
    head_channels: int = 64
    dropout: float = 0.1
    conditions: tuple[str, ...] = ("time",)
    gain: Gain = "one_plus"

    @property
    def embedding(self) -> int:
        return 4 * self.channels


class GroupNorm32(nn.GroupNorm):
    """In float32, whatever the input is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.float()).to(x.dtype)


def norm(channels: int) -> GroupNorm32:
    return GroupNorm32(GROUPS, channels)


def zeroed(module: nn.Module) -> nn.Module:
    """The module with parameters of 0: what begins with no effect."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def sinusoids(t: Int64[torch.Tensor, " batch"], width: int) -> Float[torch.Tensor, "batch width"]:
    """Cosines, then sines, of frequencies 1 to 1 / 10000, the exponent divided by half of ``width``."""
    half = width // 2
    frequencies = torch.exp(-math.log(PERIOD) / half * torch.arange(half, device=t.device, dtype=torch.float32))
    angles = t[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class ResBlock(nn.Module):
    """Two convolutions; each condition scales and shifts between them, in the order of ``shape.conditions``.

    ``one_plus``: ``h = (1 + s) h + b``, as the code of both ancestors has it. ``printed``: ``h = s h + b`` as in Eq. 12
    and 13, where the biases of s begin at 1, since 0 would erase the picture.
    """

    def __init__(self, shape: UNetShape, inputs: int, outputs: int, resample: Literal["", "up", "down"] = "") -> None:
        super().__init__()
        self.resample, self.conditions, self.one_plus = resample, shape.conditions, shape.gain == "one_plus"
        self.in_layers = nn.Sequential(norm(inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        for name in shape.conditions:
            self.add_module(layer_name(name), self._condition(shape, name, outputs))
        last = zeroed(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.out_layers = nn.Sequential(norm(outputs), nn.SiLU(), nn.Dropout(shape.dropout), last)
        self.skip_connection = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def _condition(self, shape: UNetShape, name: str, outputs: int) -> nn.Sequential:
        linear = nn.Linear(shape.embedding, 2 * outputs)
        if name != "time":
            zeroed(linear)
        if not self.one_plus:
            with torch.no_grad():
                linear.bias[:outputs] += 1
        return nn.Sequential(nn.SiLU(), linear)

    def forward(self, x: Float[torch.Tensor, "b c h w"], given: Embeddings) -> Float[torch.Tensor, "b d i j"]:
        act, convolve = self.in_layers[:-1], self.in_layers[-1]
        h = convolve(resampled(act(x), self.resample))
        h = self.out_layers[0](h)
        for name in self.conditions:
            scale, shift = self.get_submodule(layer_name(name))(given[name])[..., None, None].chunk(2, dim=1)
            h = h * (scale + self.one_plus) + shift
        residual: torch.Tensor = self.skip_connection(resampled(x, self.resample)) + self.out_layers[1:](h)
        return residual


def layer_name(condition: str) -> str:
    """guided-diffusion calls the layers of time ``emb_layers``."""
    return "emb_layers" if condition == "time" else f"{condition}_layers"


def resampled(x: torch.Tensor, how: Literal["", "up", "down"]) -> torch.Tensor:
    """Nearest neighbours twice as large, or means of 2 x 2."""
    if how == "up":
        return F.interpolate(x, scale_factor=2, mode="nearest")
    return F.avg_pool2d(x, 2) if how == "down" else x


class AttentionBlock(nn.Module):
    """Self-attention over pixels; the projection holds q, k and v of one head after the other (``new``: all q, all k,
    all v)."""

    def __init__(self, channels: int, head_channels: int, order: Literal["legacy", "new"] = "legacy") -> None:
        super().__init__()
        self.heads, self.order = max(channels // head_channels, 1), order
        self.norm = norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Float[torch.Tensor, "b c h w"]) -> Float[torch.Tensor, "b c h w"]:
        flat = x.flatten(2)
        qkv = self.qkv(self.norm(flat))
        if self.order == "legacy":
            q, k, v = qkv.unflatten(1, (self.heads, 3, -1)).unbind(2)
        else:
            q, k, v = qkv.unflatten(1, (3, self.heads, -1)).unbind(1)
        read = F.scaled_dot_product_attention(*(part.transpose(2, 3) for part in (q, k, v)))
        out: torch.Tensor = flat + self.proj_out(read.transpose(2, 3).flatten(1, 2))
        return out.reshape(x.shape)


class Site(nn.ModuleList):
    """One entry of the UNet's lists: layers one after the other. Resampling that goes up is a layer of its own."""

    def forward(self, x: torch.Tensor, given: Embeddings, visit: Visit | None = None) -> torch.Tensor:
        layers = list(self)
        up = layers.pop() if isinstance(layers[-1], ResBlock) and layers[-1].resample == "up" else None
        for layer in layers:
            x = layer(x, given) if isinstance(layer, ResBlock) else layer(x)
        x = x if visit is None else visit("", x)
        return x if up is None else up(x, given)


class GuidedUNet(nn.Module):
    """A UNet on square pictures; without ``time`` among the conditions there is no time embedding either.

    ``until`` (a downsampling factor) leaves out all that comes after the last block of that size: what is left is only
    good for its features.
    """

    def __init__(self, shape: UNetShape, until: int = 1) -> None:
        super().__init__()
        self.shape, self.until = shape, until
        if "time" in shape.conditions:
            width = shape.embedding
            self.time_embed = nn.Sequential(nn.Linear(shape.channels, width), nn.SiLU(), nn.Linear(width, width))
        self.factors: dict[str, int] = {}
        self.widths: dict[str, int] = {}
        self.input_blocks, held = self._down()
        self.middle_block = self._middle(held[-1])
        self.output_blocks = self._up(held)
        if until == 1:
            last = zeroed(nn.Conv2d(shape.channels * shape.multiples[0], shape.outputs, 3, padding=1))
            self.out = nn.Sequential(norm(shape.channels * shape.multiples[0]), nn.SiLU(), last)

    def _down(self) -> tuple[nn.ModuleList, list[int]]:
        s, width = self.shape, self.shape.channels * self.shape.multiples[0]
        sites, held, factor = [Site([nn.Conv2d(s.inputs, width, 3, padding=1)])], [width], 1
        for level, multiple in enumerate(s.multiples):
            for _ in range(s.blocks):
                layers = self._layers(held[-1], s.channels * multiple, factor)
                sites.append(self._note(f"input_{len(sites)}", Site(layers), s.channels * multiple, factor))
                held.append(s.channels * multiple)
            if level < len(s.multiples) - 1:
                factor *= 2
                down = Site([ResBlock(s, held[-1], held[-1], "down")])
                sites.append(self._note(f"input_{len(sites)}", down, held[-1], factor))
                held.append(held[-1])
        return nn.ModuleList(sites), held

    def _middle(self, width: int) -> Site:
        s = self.shape
        layers = [ResBlock(s, width, width), AttentionBlock(width, s.head_channels), ResBlock(s, width, width)]
        return self._note("middle", Site(layers), width, 2 ** (len(s.multiples) - 1))

    def _up(self, held: Sequence[int]) -> nn.ModuleList:
        s, skips, width, sites = self.shape, list(held), held[-1], nn.ModuleList()
        for level, multiple in reversed(list(enumerate(s.multiples))):
            if 2**level < self.until:
                break
            for number in range(s.blocks + 1):
                layers = self._layers(width + skips.pop(), s.channels * multiple, 2**level)
                width = s.channels * multiple
                if number == s.blocks and 2**level > self.until:
                    layers.append(ResBlock(s, width, width, "up"))
                sites.append(self._note(f"output_{len(sites)}", Site(layers), width, 2**level))
        return sites

    def _layers(self, inputs: int, outputs: int, factor: int) -> list[nn.Module]:
        attention = [AttentionBlock(outputs, self.shape.head_channels)] if factor in self.shape.attention else []
        return [ResBlock(self.shape, inputs, outputs), *attention]

    def _note(self, name: str, site: Site, width: int, factor: int) -> Site:
        self.factors[name], self.widths[name] = factor, width
        return site

    def sites(self, factors: Sequence[int]) -> Iterator[tuple[str, int]]:
        """Names and channels of the places with pictures of these sizes."""
        return ((name, self.widths[name]) for name, factor in self.factors.items() if factor in factors)

    def embed_time(self, t: Int64[torch.Tensor, " batch"]) -> Float[torch.Tensor, "batch embedding"]:
        embedded: torch.Tensor = self.time_embed(sinusoids(t, self.shape.channels))
        return embedded

    def forward(
        self, x: Float[torch.Tensor, "b c side side"], given: Embeddings, visit: Visit | None = None
    ) -> Float[torch.Tensor, "b d i i"]:
        """``given`` holds an embedding a condition; ``visit`` sees, and may change, the output of each place."""

        def at(name: str) -> Visit | None:
            return None if visit is None else lambda _, h: visit(name, h)

        skips = [self.input_blocks[0](x, given)]
        for number, site in enumerate(self.input_blocks[1:], 1):
            skips.append(site(skips[-1], given, at(f"input_{number}")))
        h = self.middle_block(skips[-1], given, at("middle"))
        for number, site in enumerate(self.output_blocks):
            h = site(torch.cat([h, skips.pop()], dim=1), given, at(f"output_{number}"))
        return self.out(h) if self.until == 1 else h
