"""Stable Diffusion's UNet, and one walk through it that serves the backbone and the ReferenceNet alike."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import nn

from talkface.nets.emo.blocks import Heard, Reading, SpatialTransformer
from talkface.nets.emo.layers import Downsample, Resnet, TimeEmbedding, Upsample
from talkface.nets.emo.temporal import Temporal

Maps = Float[torch.Tensor, "rows c h w"]


@dataclass(frozen=True)
class Sizes:
    """How large a UNet is; the defaults are Stable Diffusion 1.5's.

    ``attention`` says at which levels of ``widths`` pixels look at each other, ``layers`` how many resnets a level
    has on the way down (one more on the way up), ``longest`` how many frames, motion frames among them, have a place.
    """

    latent: int = 4
    widths: tuple[int, ...] = (320, 640, 1280, 1280)
    attention: tuple[bool, ...] = (True, True, True, False)
    layers: int = 2
    heads: int = 8
    groups: int = 32
    longest: int = 32

    @property
    def time(self) -> int:
        return 4 * self.widths[0]

    @property
    def shrink(self) -> int:
        """How many times smaller the smallest map is."""
        return 1 << (len(self.widths) - 1)


@dataclass(frozen=True)
class Parts:
    """What a UNet has beside Stable Diffusion's: the attentions' widths (None: not there)."""

    reading: Reading | None = None
    temporal: bool = False
    audio: int | None = None
    speed: int | None = None


class Visit(NamedTuple):
    """One place on the walk: a `Resnet`, and where the level has them, a `SpatialTransformer` and a `Temporal`."""

    resnet: Any
    attention: Any = None
    temporal: Any = None


class Level(nn.Module):
    """The resnets of one resolution with their attentions and temporal modules, and the way to the next one."""

    def __init__(
        self,
        channels: list[tuple[int, int]],
        sizes: Sizes,
        parts: Parts,
        *,
        attention: bool,
        motions: int | None = None,
    ) -> None:
        """``channels`` (in, out) a resnet; ``motions`` temporal modules, one a resnet unless told."""
        super().__init__()
        attended = channels[1:] if motions is not None else channels
        self.attentions = nn.ModuleList(
            SpatialTransformer(c, sizes.heads, sizes.groups, parts.reading, parts.audio)
            for _, c in (attended if attention else [])
        )
        self.resnets = nn.ModuleList(Resnet(a, b, sizes.time, sizes.groups) for a, b in channels)
        self.motion_modules = nn.ModuleList(
            Temporal(c, heads=sizes.heads, groups=sizes.groups, longest=sizes.longest, speed=parts.speed)
            for _, c in (channels[:motions] if parts.temporal else [])
        )
        self.downsamplers, self.upsamplers = nn.ModuleList(), nn.ModuleList()

    def visits(self) -> Iterator[Visit]:
        """The places in their order."""
        none = [None] * len(self.resnets)
        for place in zip(self.resnets, self.attentions or none, self.motion_modules or none, strict=True):
            yield Visit(*place)

    def middle(self) -> tuple[Visit, nn.Module]:
        """As the middle of the UNet: its attention stands between its resnets."""
        first, last = self.resnets
        temporal = self.motion_modules[0] if self.motion_modules else None
        return Visit(first, self.attentions[0], temporal), last


class UNet(nn.Module):
    """The UNet's modules under Stable Diffusion's names; `walk` goes through them."""

    def __init__(self, sizes: Sizes, parts: Parts) -> None:
        super().__init__()
        w, n = sizes.widths, sizes.layers
        self.conv_in = nn.Conv2d(sizes.latent, w[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(w[0], sizes.time)
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        skips = [w[0]]
        for i, (before, out) in enumerate(pairwise((w[0], *w))):
            level = Level([(before, out), *[(out, out)] * (n - 1)], sizes, parts, attention=sizes.attention[i])
            skips += [out] * n
            if i < len(w) - 1:
                level.downsamplers.append(Downsample(out))
                skips.append(out)
            self.down_blocks.append(level)
        self.mid_block = Level([(w[-1], w[-1])] * 2, sizes, parts, attention=True, motions=1)
        before = w[-1]
        for i, out in reversed(list(enumerate(w))):
            channels = [(before + skips.pop(), out), *((out + skips.pop(), out) for _ in range(n))]
            level = Level(channels, sizes, parts, attention=sizes.attention[i])
            if i > 0:
                level.upsamplers.append(Upsample(out))
            self.up_blocks.append(level)
            before = out
        self.conv_norm_out = nn.GroupNorm(sizes.groups, w[0], eps=1e-5)
        self.conv_out = nn.Conv2d(w[0], sizes.latent, 3, padding=1)

    def down(self) -> list[Level]:
        """From the largest map to the smallest."""
        return cast(list[Level], list(self.down_blocks))

    def up(self) -> list[Level]:
        """From the smallest map to the largest."""
        return cast(list[Level], list(self.up_blocks))


@dataclass(frozen=True)
class Given:
    """What the backbone is given beside the noisy picture; rows are frames, those of a clip one after the other.

    ``added`` goes onto the first map, ``read`` is the reference's tokens block by block, ``keep`` false where they are
    left out, ``audio`` the sound's tokens a row, ``motion`` the motion frames' maps site by site.
    """

    added: Maps | None = None
    read: list[torch.Tensor] | None = None
    keep: Bool[torch.Tensor, " batch"] | None = None
    audio: Float[torch.Tensor, "rows tokens width"] | None = None
    motion: list[torch.Tensor] | None = None
    speed: Float[torch.Tensor, "batch frames l"] | None = None


NOTHING = Given()


@dataclass
class Walk:
    """One walk: what it made so far, and how far it is along the lists it was given.

    ``bank`` holds what each transformer block read of itself, ``sites`` the maps before each temporal module: what the
    ReferenceNet gives to the backbone.
    """

    time: Float[torch.Tensor, "rows time"]
    frames: int
    given: Given
    bank: list[torch.Tensor] = field(default_factory=list)
    sites: list[torch.Tensor] = field(default_factory=list)

    def visit(self, place: Visit, h: Float[torch.Tensor, "rows before h w"]) -> Maps:
        """Resnet, attention, temporal module."""
        return self.move(place.temporal, self.look(place.attention, place.resnet(h, self.time)))

    def look(self, attention: SpatialTransformer | None, h: Maps) -> Maps:
        """An attention over the pixels, if there is one here."""
        if attention is None:
            return h
        given, at = self.given, len(self.bank)
        read = None if given.read is None else given.read[at]
        h, written = attention(h, Heard(read, given.keep, given.audio))
        self.bank.append(written)
        return h

    def move(self, temporal: Temporal | None, h: Maps) -> Maps:
        """A temporal module, if there is one here; the site counts either way."""
        at = len(self.sites)
        self.sites.append(h)
        if temporal is None:
            return h
        motion = None if self.given.motion is None else self.given.motion[at]
        return temporal(h.unflatten(0, (-1, self.frames)), motion, self.given.speed).flatten(0, 1)


def walk(
    unet: UNet, x: Maps, t: Int64[torch.Tensor, " rows"], given: Given = NOTHING, *, frames: int = 1
) -> tuple[Maps, list[torch.Tensor], list[torch.Tensor]]:
    """What the network says of ``x`` at steps ``t``, its bank, and its sites; ``frames`` rows belong to one clip."""
    way = Walk(unet.time_embedding(t), frames, given)
    h = unet.conv_in(x)
    h = h if given.added is None else h + given.added
    skips = [h]
    for level in unet.down():
        for place in level.visits():
            h = way.visit(place, h)
            skips.append(h)
        for half in level.downsamplers:
            h = half(h)
            skips.append(h)
    place, last = unet.mid_block.middle()
    h = last(way.visit(place, h), way.time)
    for level in unet.up():
        for place in level.visits():
            h = way.visit(place, torch.cat([h, skips.pop()], dim=1))
        for double in level.upsamplers:
            h = double(h)
    return unet.conv_out(F.silu(unet.conv_norm_out(h))), way.bank, way.sites
