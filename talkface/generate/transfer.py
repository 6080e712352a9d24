"""Moving the face of a portrait as another face moves."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from talkface.config import Strict
from talkface.datasets.export import motion_of
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError, DatasetError
from talkface.generate.extract import ingested, longest
from talkface.generate.provenance import made_by, sampling_of
from talkface.generate.video import Video, of_portrait
from talkface.media import ClipFrames, decode_flac
from talkface.motion import Motion
from talkface.render import talk
from talkface.render.rigs import Rig, open_rig
from talkface.train.checkpoint import Model
from talkface.train.protocols import Driving, MotionTransfer, Picture, Portrait
from talkface.vocab import ARKIT
from talkface.weights import Models

DRAWN_SIDE = 256
"""Pixels of the pictures that motion is drawn in."""


def transfer(
    model: Model,
    portrait: Portrait,
    driving: Driving,
    how: Strict | None = None,
    *,
    seed: int = 0,
    about: Mapping[str, Any] | None = None,
) -> Video:
    """The portrait moving as ``driving`` does. Raises ConfigError for a run that transfers no motion."""
    task = model.task
    if not isinstance(task, MotionTransfer):
        raise ConfigError(f"--run: a run of {model.about.task} transfers no motion to a picture.")
    how = sampling_of(task) if how is None else how

    def pictures() -> Iterator[Picture]:
        rng = torch.Generator(next(model.net.parameters()).device).manual_seed(seed)
        with torch.no_grad():
            yield from task.transfer(model.net, portrait, driving, rng, how)

    known = made_by(model, how, seed) | of_portrait(portrait)
    known |= {"driving": driving.name, "motion": dict(driving.motion.provenance), **(about or {})}
    return Video(pictures=pictures, pts_ns=driving.pts_ns, provenance=known, sound=driving.sound)


@contextmanager
def read_driving(what: str, models: Models, data: Dataset | None = None) -> Iterator[Driving]:
    """What a face is to move like: a motion file (drawn on the built-in head), a clip's key of ``data``, or a video.

    A video is ingested into a folder that is removed at the end of the block; of several faces the one that is shown
    longest is taken. Raises ConfigError for what is neither, SourceError where no face is found.
    """
    if Path(what).suffix in (".npz", ".csv") and Path(what).exists():
        yield of_motion(Motion.load(what), name=Path(what).name)
    elif data is not None and what in data:
        yield of_clip(data, what)
    elif Path(what).is_file():
        with ingested(what, models) as dataset:
            yield of_clip(dataset, longest(dataset), name=Path(what).name)
    else:
        known = "" if data is None else f", nor a clip of {data.url}"
        raise ConfigError(f"--driving {what}: no such file{known}. A clip's key needs --data DATASET.")


def of_clip(data: Dataset, key: str, name: str | None = None) -> Driving:
    """A clip of a dataset as driving: its crops, motion and sound."""
    if not data.info.has_video:
        raise DatasetError(f"{data.url}: has no video to follow. Ingest without --no-video.")
    motion, video = motion_of(data, key), data.member(key, "mp4")
    sound = decode_flac(data.member(key, "flac"))
    return Driving(
        pictures=lambda: iter(ClipFrames(video)), pts_ns=motion.pts_ns, fps=motion.fps, motion=motion, sound=sound,
        name=key if name is None else name,
    )  # fmt: skip


def of_motion(motion: Motion, *, rig: Rig | None = None, side: int = DRAWN_SIDE, name: str = "") -> Driving:
    """Motion drawn on a rig (the built-in head unless given), with the rig at rest as the neutral picture."""
    shown = open_rig("synthetic", gl_use="auto", smooth_edges=False) if rig is None else rig
    rest = shown.picture(np.zeros(len(ARKIT), np.float32), np.eye(3), side)
    return Driving(
        pictures=lambda: talk.frames(motion, shown, side), pts_ns=motion.pts_ns, fps=motion.fps, motion=motion,
        neutral=rest, name=name,
    )  # fmt: skip
