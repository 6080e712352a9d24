"""What a picture is to a diffusion model: its own pixels, folded, or the latents of an autoencoder."""

from pathlib import Path
from typing import Any, Protocol

import diffusers
import torch
import torch.nn.functional as F
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


class Waves:
    """The slow waves of each square of 4 x 4 pixels (the cosines of JPEG, 10 of brightness and 3 of either colour),
    -2..4: a third of the numbers, and no file needed. What it cannot show costs about 34 dB on faces of 64 pixels."""

    shrink, channels = 4, 16

    def __init__(self) -> None:
        self.basis = wave_basis(10, 3)

    def encode(self, pictures: Colours) -> Latents:
        folded = F.pixel_unshuffle(to_unit(pictures), self.shrink)
        return torch.einsum("kc,...chw->...khw", self.basis.to(folded.device), folded)

    def decode(self, latents: Latents) -> Colours:
        folded = torch.einsum("kc,...khw->...chw", self.basis.to(latents.device), latents.float())
        return to_bytes(F.pixel_shuffle(folded, self.shrink))


def wave_basis(brightness: int, colour: int) -> Float[torch.Tensor, "waves folded"]:
    """Orthonormal waves over a square of 4 x 4 pixels as `pixel_unshuffle` folds it, the slowest first."""
    at = (torch.arange(4) + 0.5) * torch.pi / 4
    cosines = F.normalize(torch.stack([torch.cos(k * at) for k in range(4)]), dim=1)
    tones = F.normalize(torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]]), dim=1)
    slow = sorted(((u, v) for u in range(4) for v in range(4)), key=lambda uv: (sum(uv), uv))
    chosen = [(uv, k) for i, uv in enumerate(slow) for k in range(3) if i < (brightness if k == 0 else colour)]
    return torch.stack([torch.einsum("c,y,x->cyx", tones[k], cosines[u], cosines[v]).flatten() for (u, v), k in chosen])


class Vae:
    """Stable Diffusion's autoencoder: the mean of its posterior, scaled."""

    shrink = 8

    def __init__(self, net: Any) -> None:
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


def open_vae(folder: str | Path) -> Any:
    """An autoencoder from a folder in diffusers layout. Raises WeightsError for one that cannot be read whole."""
    try:
        found, told = diffusers.AutoencoderKL.from_pretrained(
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
