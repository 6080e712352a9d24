"""What a picture is to a diffusion model: its own pixels, folded, or the latents of an autoencoder."""

from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from jaxtyping import Float, UInt8

from talkface.errors import WeightsError

Latents = Float[torch.Tensor, "*clips c h w"]
Colours = UInt8[torch.Tensor, "*clips high wide 3"]

CHUNK = 4
"""Pictures that an autoencoder takes at once: its largest maps are 128 times as wide as a picture."""


class Codec(Protocol):
    """Pictures to what is diffused, and back; ``shrink`` is how many times smaller a side becomes."""

    channels: int
    shrink: int

    def encode(self, pictures: Colours) -> Latents: ...

    def decode(self, latents: Latents) -> Colours: ...


class Pixels:
    """Each square of ``shrink`` x ``shrink`` pixels as channels, -1..1. Nothing is lost, and no file is needed."""

    def __init__(self, shrink: int = 4) -> None:
        self.shrink, self.channels = shrink, 3 * shrink * shrink

    def encode(self, pictures: Colours) -> Latents:
        return F.pixel_unshuffle(to_unit(pictures), self.shrink)

    def decode(self, latents: Latents) -> Colours:
        return to_bytes(F.pixel_shuffle(latents, self.shrink))


class Vae:
    """Stable Diffusion's autoencoder: the mean of its posterior, scaled."""

    shrink = 8

    def __init__(self, net: AutoencoderKL) -> None:
        self.net, self.channels = net, int(net.config.latent_channels)
        self.scale = float(net.config.scaling_factor)

    @torch.no_grad()
    def encode(self, pictures: Colours) -> Latents:
        flat = to_unit(pictures).flatten(0, -4)
        made = [self.net.encode(part).latent_dist.mode() for part in flat.split(CHUNK)]
        return (torch.cat(made) * self.scale).unflatten(0, pictures.shape[:-3])

    @torch.no_grad()
    def decode(self, latents: Latents) -> Colours:
        flat = latents.flatten(0, -4) / self.scale
        made = torch.cat([self.net.decode(part).sample for part in flat.split(CHUNK)])
        return to_bytes(made).unflatten(0, latents.shape[:-3])


def open_vae(folder: str | Path) -> AutoencoderKL:
    """An autoencoder from a folder in diffusers layout. Raises WeightsError for one that cannot be read whole."""
    try:
        found, told = AutoencoderKL.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, low_cpu_mem_usage=False
        )
    except Exception as error:  # diffusers, safetensors and json raise whatever they like for files that are damaged
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(f"{folder}: no autoencoder in diffusers layout, or a damaged one ({why}).") from error
    if lacking := sorted(told["missing_keys"]):
        raise WeightsError(f"{folder}: the autoencoder lacks {lacking[0]} and {len(lacking) - 1} more. Copy it again.")
    return found


def to_unit(pictures: Colours) -> Float[torch.Tensor, "*clips 3 high wide"]:
    """Bytes to -1..1, channels first."""
    return pictures.movedim(-1, -3).float() / 127.5 - 1


def to_bytes(pictures: Float[torch.Tensor, "*clips 3 high wide"]) -> Colours:
    """-1..1 to bytes, channels last."""
    return ((pictures.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).movedim(-3, -1)
