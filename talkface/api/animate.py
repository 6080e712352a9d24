"""``talkface.animate``: from a portrait and a sound to a talking face, each paper's whole way."""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from jaxtyping import UInt8

from talkface.api.sample import opened, sample
from talkface.api.weights import store_of
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError
from talkface.generate import transfer as transfers
from talkface.generate.extract import read_portrait
from talkface.generate.video import Video
from talkface.motion import Motion
from talkface.render.talk import end_ns, read_audio
from talkface.train.checkpoint import Model
from talkface.train.protocols import Picture
from talkface.weights import Models

Upscale = Callable[[UInt8[np.ndarray, "height width 3"]], UInt8[np.ndarray, "tall wide 3"]]
FULL: Final = 512
"""Side of the built-in upscaler's pictures, DREAM-Talk 3.4's."""


def animate(
    picture: str | Path,
    audio: str | Path,
    *,
    motion: str | Path | Model,
    transfer: str | Path | Model,
    lip: str | Path | Model | None = None,
    style: str | Path | None = None,
    data: str | Dataset | None = None,
    emotion: str | None = None,
    intensity: int | None = None,
    upscaler: str | None = None,
    keep: str | Path | None = None,
    seed: int = 0,
    models: str | Path | Models | None = None,
    offline: bool = False,
    device: str = "cpu",
) -> Video:
    """DREAM-Talk whole: motion for the sound, its mouth refined, drawn on a rig, and moved onto the portrait.

    ``motion`` is a run that makes motion (emodiff), ``transfer`` one that moves a portrait (facevid2vid). ``keep`` is a
    folder for what lies between: ``motion.npz`` and ``rig.mp4``. The video's provenance names every checkpoint.
    """
    store = store_of(models, offline)
    mover = opened(transfer, "best", device, store)
    face = read_portrait(str(picture), store)
    made = sample(
        motion, audio, lip=lip, style=style, data=data, emotion=emotion, intensity=intensity, seed=seed, models=store,
        device=device,
    )  # fmt: skip
    acted = made.results[0]
    if not isinstance(acted, Motion):
        raise ConfigError("--emodiff: a run that generates video. Give it as --emo, or a run of emodiff.")
    moves = transfers.of_motion(acted, name="motion")
    moves = replace(moves, sound=read_audio(str(audio), end_ns(acted.pts_ns)))
    video = transfers.transfer(mover, face, moves, seed=seed)
    if keep is not None:
        Path(keep).mkdir(parents=True, exist_ok=True)
        acted.save(Path(keep) / "motion.npz")
        known = {"task": mover.about.task, "checkpoint": mover.digest, "shown": "the rig", **acted.provenance}
        replace(video, pictures=moves.pictures, provenance=known).save(Path(keep) / "rig.mp4")
    return upscaled(video, upscaler)


def upscaled(video: Video, name: str | None) -> Video:
    """The video with each picture made larger; ``name`` is ``lanczos`` or ``package.module:function``."""
    if name is None:
        return video
    upscale = lanczos if name == "lanczos" else _loaded(name)

    def pictures() -> Iterator[Picture]:
        yield from map(upscale, video.pictures())

    return replace(video, pictures=pictures, provenance={**video.provenance, "upscaler": name})


def lanczos(picture: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "tall wide 3"]:
    """512 pixels high and wide by interpolation: nothing is added."""
    return np.asarray(cv2.resize(picture, (FULL, FULL), interpolation=cv2.INTER_LANCZOS4), np.uint8)


def _loaded(name: str) -> Upscale:
    place, _, function = name.partition(":")
    try:
        found: Upscale = getattr(importlib.import_module(place), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"--upscaler {name}: neither lanczos nor a package.module:function ({error}).") from error
    return found
