"""From checkpoints, a sound and a style to motion."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from talkface.config import Strict
from talkface.errors import ConfigError
from talkface.generate.provenance import made_by, sampling_of
from talkface.motion import Motion
from talkface.train.checkpoint import Model
from talkface.train.protocols import MotionGenerator, Refiner, Speech, Style


@dataclass(frozen=True)
class Made:
    """What sampling gave, and how fast: seconds of motion (all variants) a second."""

    motions: list[Motion]
    times_real_time: float


def sample(
    model: Model,
    speech: Speech,
    style: Style,
    how: Strict | None = None,
    *,
    lip: Model | None = None,
    seed: int = 0,
    variants: int = 1,
    about: Mapping[str, Any] | None = None,
) -> Made:
    """Draw motion from a model, its mouth refined by ``lip`` if there is one. The same seed gives the same motion.

    ``how`` is an instance of the task's ``Sampling``, its defaults unless given. Every motion says in its provenance
    that it is synthetic, and what made it. Raises ConfigError for a run that makes no motion or refines none.
    """
    task, refiner = generator_of(model), None if lip is None else refiner_of(lip)
    how = sampling_of(task) if how is None else how
    device = next(model.net.parameters()).device
    rng = torch.Generator(device).manual_seed(seed)
    began = time.perf_counter()
    made = task.sample(model.net, speech, style, rng, how, variants=variants)
    if lip is not None and refiner is not None:
        made = [refiner.refine(lip.net, motion, speech, style) for motion in made]
    spent = time.perf_counter() - began
    known = made_by(model, how, seed, speech) | {
        "lip": None if lip is None else lip.digest, "style": style.name, **(about or {})
    }  # fmt: skip
    motions = [replace(m, provenance={**m.provenance, **known, "variant": number}) for number, m in enumerate(made)]
    return Made(motions, variants * speech.seconds / max(spent, 1e-9))


def generator_of(model: Model) -> MotionGenerator:
    """The task of a run that makes motion. Raises ConfigError for another."""
    if not isinstance(model.task, MotionGenerator):
        raise ConfigError(f"--run: a run of {model.about.task} generates no motion. Give a run of emodiff.")
    return model.task


def refiner_of(model: Model) -> Refiner:
    """The task of a run that refines motion. Raises ConfigError for another."""
    if not isinstance(model.task, Refiner):
        raise ConfigError(f"--lip: a run of {model.about.task} refines no motion. Give a run of lip.")
    return model.task
