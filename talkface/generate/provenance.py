"""Settings of sampling, and what a made file says of itself."""

import hashlib
from collections.abc import Sequence
from typing import Any

from talkface import __version__
from talkface.config import Strict, parse
from talkface.errors import ConfigError
from talkface.train.base import Task, with_changes
from talkface.train.checkpoint import Model
from talkface.train.protocols import MotionGenerator, MotionTransfer, Speech, VideoGenerator


def sampling_of(task: Task, changes: Sequence[str] = ()) -> Strict:
    """A task's settings of sampling: its defaults, and ``name=value`` over them.

    Raises ConfigError for a setting that the task does not have, and for a task that samples nothing.
    """
    if not isinstance(task, (MotionGenerator, VideoGenerator, MotionTransfer)):
        raise ConfigError("this task samples nothing: it makes neither motion nor pictures.")
    return parse(task.Sampling, with_changes(task.Sampling().model_dump(), changes), where="--set")


def made_by(model: Model, how: Strict, seed: int, speech: Speech | None = None) -> dict[str, Any]:
    """The provenance of what a model made: that it is synthetic, of which checkpoint, how, and for which sound."""
    about: dict[str, Any] = {
        "synthetic": True, "talkface": __version__, "task": model.about.task, "checkpoint": model.digest,
        "step": model.about.step, "seed": seed, "sampling": how.model_dump(mode="json"),
    }  # fmt: skip
    if speech is not None:
        about["sound_sha256"] = hashlib.sha256(speech.samples.tobytes()).hexdigest()
    return about
