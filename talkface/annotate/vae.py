"""Latents of the clip's pictures, for training in latent space without decoding and encoding in each epoch."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from jaxtyping import Float16, UInt8
from pydantic import Field

from talkface.annotate.base import AnnotatorConfig, ClipView, Result
from talkface.clip import ColumnSpec
from talkface.errors import WeightsError
from talkface.nets.inference import device, inference
from talkface.weights import Models

LARGEST: Final = float(np.finfo(np.float16).max)


class VaeConfig(AnnotatorConfig):
    """Settings of the vae annotator."""

    model: str = Field("sd_vae", description="entry of the model registry, or a folder of an AutoencoderKL (diffusers)")
    side: int = Field(512, ge=16, multiple_of=8, description="pixels of the square that the whole crop is resized to")
    shrink: int = Field(8, ge=1, description="how many times smaller the model makes a side")
    channels: int = Field(4, ge=1, description="channels of a latent")
    batch: int = Field(4, ge=1, description="pictures that go through the network at once")


class Annotator:
    """Column ``latent``: of each frame the posterior's mean times the model's scaling factor.

    Latents are of the whole crop as it is: no zoom, light or mirror can be had with them.
    """

    name = "vae"
    version = 1
    columns: tuple[ColumnSpec, ...] = (
        ColumnSpec(
            name="latent",
            dtype="float16",
            shape=(4, 64, 64),
            unit="none",
            clock="frame",
            description="AutoencoderKL's posterior mean times its scaling factor, of the whole crop, RGB in -1..1",
        ),
    )
    scores = ()
    needs = ()
    reads = ("mp4",)
    weights: tuple[tuple[str, ...], ...] = (("sd_vae",),)
    packages = ("diffusers",)
    licence = "MIT"
    on_gpu = True
    Config = VaeConfig

    def __init__(self, config: VaeConfig) -> None:
        self.config = config
        self.weights = ((config.model,),)
        small = config.side // config.shrink
        (spec,) = type(self).columns
        self.columns = (ColumnSpec(**{**vars(spec), "shape": (config.channels, small, small)}),)

    def open(self, models: Models) -> None:
        """Raises WeightsError if the model cannot be had, or its latents are not of the size that settings say."""
        path = models.get(self.config.model)
        self._device = device()
        self._net = load_autoencoder(path).to(self._device)
        about = self._net.config
        found = (int(about.latent_channels), 2 ** (len(about.block_out_channels) - 1))
        if found != (self.config.channels, self.config.shrink):
            raise WeightsError(
                f"vae: {path}: gives {found[0]} channels and shrinks {found[1]} times, the settings say "
                f"{self.config.channels} and {self.config.shrink}. Correct them."
            )

    def clip(self, view: ClipView) -> Result:
        """The clip's ``latent``."""
        (spec,) = self.columns
        rows = [self._encoded(part) for part in _batches(self._pictures(view), self.config.batch)]
        empty = np.zeros((0, *spec.shape), np.float16)
        return Result(columns={"latent": np.concatenate([empty, *rows])})

    def _pictures(self, view: ClipView) -> Iterator[UInt8[np.ndarray, "side side 3"]]:
        side = self.config.side
        for picture in view.pictures():
            smaller = side < len(picture)
            how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
            yield picture if len(picture) == side else np.asarray(cv2.resize(picture, (side, side), interpolation=how))

    def _encoded(self, pictures: list[UInt8[np.ndarray, "side side 3"]]) -> Float16[np.ndarray, "n c h w"]:
        with inference():
            x = torch.from_numpy(np.stack(pictures)).to(self._device).permute(0, 3, 1, 2).float() / 127.5 - 1
            latent = self._net.encode(x).latent_dist.mode() * self._net.config.scaling_factor
            made: np.ndarray = latent.clamp(-LARGEST, LARGEST).half().cpu().numpy()
        return made


def _batches(pictures: Iterator[np.ndarray], count: int) -> Iterator[list[np.ndarray]]:
    while part := list(islice(pictures, count)):
        yield part


def load_autoencoder(path: Path) -> Any:
    """An AutoencoderKL from a folder in diffusers layout, in evaluation mode. Raises WeightsError for anything else."""
    try:
        from diffusers import AutoencoderKL  # noqa: PLC0415 (an optional dependency, and seconds to import)
    except ImportError as error:
        raise WeightsError(f"autoencoders need diffusers. Run: pip install 'talkface[train]' ({error})") from error
    try:
        net, told = AutoencoderKL.from_pretrained(
            path, local_files_only=True, output_loading_info=True, low_cpu_mem_usage=False
        )
    except Exception as error:  # diffusers, safetensors and json raise many kinds for damaged files
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path}: no autoencoder in diffusers layout, or a damaged one ({why[:160]}).") from error
    if lacking := sorted(told["missing_keys"]):
        raise WeightsError(f"{path}: the autoencoder lacks {lacking[0]} and {len(lacking) - 1} more. Copy it again.")
    return net.eval()
