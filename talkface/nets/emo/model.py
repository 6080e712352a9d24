"""The whole of EMO: backbone, ReferenceNet and conditions, and what each of its three stages trains."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import nn

from talkface.nets.emo.blocks import Reading
from talkface.nets.emo.conditions import AudioProjector, FaceLocator, SpeedEncoder
from talkface.nets.emo.unet import Given, Parts, Sizes, UNet, Visit, walk

Keep = Bool[torch.Tensor, " batch"] | None


@dataclass(frozen=True)
class Design:
    """Everything that decides EMO's parameters but the stage.

    ``sound`` numbers a frame of sound (neighbours, layers, channels), as ``tokens`` of ``token_width``; ``n`` motion
    frames; ``locator`` the widths of its convolutions; ``centres`` and ``radii`` (degrees a frame) of the speeds.
    """

    sizes: Sizes = field(default_factory=Sizes)
    reading: Reading = "replace"
    sound: int = 5 * 12 * 768
    sound_inner: int = 512
    tokens: int = 32
    token_width: int = 768
    n: int = 4
    locator: Sequence[int] = (16, 32, 64, 128)
    centres: Sequence[float] = (0.0,) * 9
    radii: Sequence[float] = (1.0,) * 9
    m: int = 2
    speed_width: int = 256


class Emo(nn.Module):
    """EMO at one of its stages; parts of later stages are not there.

    1: pictures (backbone, ReferenceNet, locator). 2: and video (temporal modules, audio). 3: and the head's speed.
    """

    def __init__(self, design: Design, stage: int) -> None:
        super().__init__()
        self.n, self.stage = design.n, stage
        video, speedy = stage >= 2, stage >= 3
        parts = Parts(
            design.reading, video, design.token_width if video else None, design.speed_width if speedy else None
        )
        self.backbone = UNet(design.sizes, parts)
        self.reference = UNet(design.sizes, Parts())
        self.locator = FaceLocator(design.sizes.widths[0], design.locator)
        if video:
            self.projector = AudioProjector(
                design.sound, inner=design.sound_inner, tokens=design.tokens, width=design.token_width
            )
        if speedy:
            self.speed = SpeedEncoder(design.centres, design.radii, m=design.m, width=design.speed_width)
        for name in frozen(self):
            self.get_parameter(name).requires_grad_(False)

    def forward(
        self,
        x: Float[torch.Tensor, "batch frames c h w"],
        t: Int64[torch.Tensor, " batch"],
        reference: Float[torch.Tensor, "batch c h w"],
        mask: Float[torch.Tensor, "batch 1 high wide"],
        motion: Float[torch.Tensor, "batch n c h w"] | None = None,
        audio: Float[torch.Tensor, "batch frames sound"] | None = None,
        speed: Float[torch.Tensor, "batch frames"] | None = None,
        *,
        keep_reference: Keep = None,
        keep_motion: Keep = None,
        keep_audio: Keep = None,
        keep_speed: Keep = None,
    ) -> Float[torch.Tensor, "batch frames c h w"]:
        """What is predicted for the noisy frames ``x`` at steps ``t``; ``keep_*`` is false where a clip goes without
        a condition."""
        given = self.conditions(
            reference, mask, motion, audio, speed, frames=x.shape[1], keep_reference=keep_reference,
            keep_motion=keep_motion, keep_audio=keep_audio, keep_speed=keep_speed,
        )  # fmt: skip
        return self.denoise(x, t, given)

    def denoise(
        self, x: Float[torch.Tensor, "batch frames c h w"], t: Int64[torch.Tensor, " batch"], given: Given
    ) -> Float[torch.Tensor, "batch frames c h w"]:
        """One step, with conditions that were made before the first one."""
        batch, frames = x.shape[:2]
        said, _, _ = walk(self.backbone, x.flatten(0, 1), t.repeat_interleave(frames), given, frames=frames)
        return said.unflatten(0, (batch, frames))

    def conditions(
        self,
        reference: Float[torch.Tensor, "batch c h w"],
        mask: Float[torch.Tensor, "batch 1 high wide"],
        motion: Float[torch.Tensor, "batch n c h w"] | None = None,
        audio: Float[torch.Tensor, "batch frames sound"] | None = None,
        speed: Float[torch.Tensor, "batch frames"] | None = None,
        *,
        frames: int,
        keep_reference: Keep = None,
        keep_motion: Keep = None,
        keep_audio: Keep = None,
        keep_speed: Keep = None,
    ) -> Given:
        """What does not change from step to step, made once a window."""
        bank, sites = self.encode(reference, motion if self.stage >= 2 else None)
        placed = self.locator(mask.expand(-1, 3, -1, -1))
        given = Given(added=placed.repeat_interleave(frames, dim=0), read=bank, keep=keep_reference)
        if self.stage >= 2:
            assert audio is not None, "frames without sound are NaN, not absent"
            tokens = self.projector(audio, keep_audio).flatten(0, 1)
            given = replace(given, audio=tokens, motion=[_kept(site, keep_motion) for site in sites])
        if self.stage >= 3:
            assert speed is not None, "a speed that is not known is NaN"
            given = replace(given, speed=self.speed(speed, keep_speed))
        return given

    def encode(
        self, reference: Float[torch.Tensor, "batch c h w"], motion: Float[torch.Tensor, "batch n c h w"] | None
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """One pass of the ReferenceNet at t = 0: tokens of the reference picture a block, and maps (batch, n, c, h, w)
        of the motion frames a site, zeros where there are none (the first clip)."""
        whole = reference[:, None] if motion is None else torch.cat([reference[:, None], motion], dim=1)
        batch, pictures = whole.shape[:2]
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.stage == 1):
            t = torch.zeros(batch * pictures, dtype=torch.long, device=whole.device)
            _, bank, sites = walk(self.reference, whole.flatten(0, 1), t)
        bank, sites = ([one.unflatten(0, (batch, pictures)) for one in some] for some in (bank, sites))
        if motion is None:
            return [b[:, 0] for b in bank], [s.new_zeros(batch, self.n, *s.shape[2:]) for s in sites]
        return [b[:, 0] for b in bank], [s[:, 1:] for s in sites]


def _kept(maps: Float[torch.Tensor, "batch n c h w"], keep: Keep) -> Float[torch.Tensor, "batch n c h w"]:
    return maps if keep is None else maps * keep[:, None, None, None, None].to(maps.dtype)


def frozen(net: Emo) -> list[str]:
    """Names of the parameters that the stage does not train, the dead ones among them."""
    dead = set(dead_tail(net.reference)) if net.stage == 1 else set()
    return [name for name, _ in net.named_parameters() if not _trained(name, net.stage, dead)]


def _trained(name: str, stage: int, dead: set[str]) -> bool:
    """The table of stages: 1 pictures, 2 temporal modules and sound, 3 temporal modules and speed."""
    if stage == 1:
        return name.removeprefix("reference.") not in dead or not name.startswith("reference.")
    if stage == 2:
        return "motion_modules." in name or ".audio_" in name or name.startswith("projector.")
    return "motion_modules." in name or name.startswith("speed.")


def dead_tail(unet: UNet) -> list[str]:
    """Parameters of a ReferenceNet behind the last tokens that it gives away: no gradient of stage 1 reaches them."""
    steps = list(_steps(unet))
    last = max(i for i, (name, _) in enumerate(steps) if name.endswith(".norm1") and ".transformer_blocks." in name)
    return [f"{name}.{key}" for name, module in steps[last + 1 :] for key, _ in module.named_parameters()]


def _steps(unet: UNet) -> Iterator[tuple[str, nn.Module]]:
    """The ReferenceNet's modules in the order in which they are run."""
    for way, levels in (("down_blocks", unet.down()), ("mid_block", []), ("up_blocks", unet.up())):
        for i, level in enumerate(levels):
            for j, place in enumerate(level.visits()):
                yield from _steps_of(place, f"{way}.{i}", j)
            yield from ((f"{way}.{i}.downsamplers.0", half) for half in level.downsamplers)
            yield from ((f"{way}.{i}.upsamplers.0", double) for double in level.upsamplers)
        if way == "mid_block":
            place, last = unet.mid_block.middle()
            yield from _steps_of(place, way, 0)
            yield f"{way}.resnets.1", last
    yield "conv_norm_out", unet.conv_norm_out
    yield "conv_out", unet.conv_out


def _steps_of(place: Visit, level: str, number: int) -> Iterator[tuple[str, nn.Module]]:
    yield f"{level}.resnets.{number}", place.resnet
    if place.attention is not None:
        at, block = f"{level}.attentions.{number}", place.attention.transformer_blocks[0]
        yield from ((f"{at}.{name}", getattr(place.attention, name)) for name in ("norm", "proj_in"))
        inner = ("norm1", "attn1", "norm3", "ff")
        yield from ((f"{at}.transformer_blocks.0.{name}", getattr(block, name)) for name in inner)
        yield f"{at}.proj_out", place.attention.proj_out
