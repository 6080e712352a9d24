"""What a trained task can make, and what it is given: sound, a style, a portrait, a clip to follow.

A task is asked by what it has: `MotionGenerator` makes motion, `Refiner` changes it, `VideoGenerator` makes pictures,
`MotionTransfer` moves one face as another does. One that samples has its settings in ``Task.Sampling``: the command's
``--set`` changes them, and what is made records them.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, Int16, Int64, UInt8

from talkface.config import Strict
from talkface.motion import Motion
from talkface.train.base import Task
from talkface.vocab import SAMPLE_RATE

Picture = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True)
class Style:
    """Frames that show how to look: ``arkit`` and ``head`` (quaternion and translation) of frames with a face.

    ``acting`` has columns with a row a frame at the task's rate, which a video is to follow in time.
    """

    arkit: Float32[np.ndarray, "some 52"]
    head: Float32[np.ndarray, "some 7"]
    name: str = ""
    acting: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Speech:
    """Sound to speak to: 16 kHz samples, and columns by name on their own clocks, which go on with silence after its
    end."""

    samples: Int16[np.ndarray, " samples"]
    columns: Mapping[str, np.ndarray]

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE

    def frames(self, fps: float) -> int:
        """How many frames it lasts, one at least."""
        return max(math.ceil(self.seconds * fps - 1e-6), 1)


@dataclass(frozen=True)
class Portrait:
    """One face in a square RGB picture, cropped as an ingest crops clips.

    ``box`` (x0 y0 x1 y1, score) and ``lm`` are in this picture's pixels. ``columns`` are a dataset's columns of this
    one frame that do not depend on pixels: ``arkit`` (52,), ``head`` (10,). ``sha256`` is that of the file it is from.
    """

    picture: UInt8[np.ndarray, "side side 3"]
    box: Float[np.ndarray, " 5"]
    lm: Float[np.ndarray, "478 3"]
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    name: str = ""
    sha256: str = ""

    def resized(self, side: int) -> "Portrait":
        """The same face in a picture of another size; box and points go along."""
        scale = side / len(self.picture)
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        picture = np.asarray(cv2.resize(self.picture, (side, side), interpolation=how))
        box = np.array([*self.box[:4] * scale, self.box[4]], self.box.dtype)
        return replace(self, picture=picture, box=box, lm=(self.lm * scale).astype(self.lm.dtype))


@dataclass(frozen=True, kw_only=True)
class Driving:
    """A face that another is to move like: its frames, square RGB crops in order, at the times ``pts_ns``.

    ``neutral`` shows the same face at rest, looking ahead, where such a picture can be had (motion drawn on the
    built-in head); None: the first frame stands for it. ``motion`` is what was measured or drawn. ``sound`` (16 kHz,
    sample 0 at time 0) goes into the file. ``pictures`` starts from the first frame each time it is called.
    """

    pictures: Callable[[], Iterator[Picture]]
    pts_ns: Int64[np.ndarray, " frames"]
    fps: float
    motion: Motion
    neutral: Picture | None = None
    sound: Int16[np.ndarray, " samples"] | None = None
    name: str = ""


Reference = Portrait | Motion | Driving
"""What a made face is to look or move like: a picture, motion, or a clip, which shows both."""


@runtime_checkable
class MotionGenerator(Task, Protocol):
    """A task that makes motion for a sound; one motion a variant comes back.

    ``how`` is an instance of ``Sampling``. The facts of a task that listens have ``sound``, as `SoundFacts` writes it.
    """

    Sampling: ClassVar[type[Strict]]

    def sample(
        self, net: torch.nn.Module, speech: Speech, style: Style, rng: torch.Generator, how: Any, *, variants: int = 1
    ) -> list[Motion]: ...


@runtime_checkable
class Refiner(Task, Protocol):
    """A task that improves motion: it changes the channels it owns and nothing else."""

    def refine(self, net: torch.nn.Module, motion: Motion, speech: Speech, style: Style) -> Motion: ...


@runtime_checkable
class VideoGenerator(Task, Protocol):
    """A task that makes pictures for a sound from one portrait.

    Exactly ``speech.frames(config.fps)`` square RGB pictures with even sides come, one after the other: whoever writes
    them keeps none, so that a video of any length takes the memory of a short one. ``style`` is what the user named as
    one, or None.
    """

    Sampling: ClassVar[type[Strict]]

    def sample_video(
        self, net: torch.nn.Module, speech: Speech, portrait: Portrait, rng: torch.Generator, how: Any, *,
        style: Style | None = None,
    ) -> Iterator[Picture]: ...  # fmt: skip


@runtime_checkable
class MotionTransfer(Task, Protocol):
    """A task that moves the face of a portrait as another face moves: one square RGB picture a driving frame."""

    Sampling: ClassVar[type[Strict]]

    def transfer(
        self, net: torch.nn.Module, portrait: Portrait, driving: Driving, rng: torch.Generator, how: Any
    ) -> Iterator[Picture]: ...
