"""Phases of a step, the parameters that each owns, their optimizers and learning rates."""

import importlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from talkface.errors import ConfigError
from talkface.train.base import ONE, Phase, Task, Training

OPTIMIZER = "optimizer"


def phases_of(task: Task) -> Sequence[Phase]:
    """The phases of a task's step; one that owns everything where the task names none."""
    return getattr(task, "phases", ONE)


def file_of(phase: Phase) -> str:
    """The checkpoint's file that holds a phase's optimizer."""
    return OPTIMIZER if phase.name == ONE[0].name else f"{OPTIMIZER}.{phase.name}"


class Part:
    """The parameters that a phase owns, and the optimizer that moves them."""

    def __init__(self, phase: Phase, net: torch.nn.Module, training: Training) -> None:
        """Raises ConfigError for a phase that owns nothing that is trained."""
        self.phase, self.settings = phase, phase.settings(training)
        self.parameters = [p for name, p in net.named_parameters() if phase.owns(name) and p.requires_grad]
        if not self.parameters:
            raise ConfigError(f"phase {phase.name}: nothing to train among {', '.join(phase.prefixes)}.")
        self.optimizer: torch.optim.Optimizer = _kind(self.settings.optimizer)(
            self.parameters, lr=self.settings.learning_rate, betas=self.settings.betas,
            weight_decay=self.settings.weight_decay,
        )  # fmt: skip

    def due(self, step: int) -> bool:
        return step % self.phase.every == 0

    def set_rate(self, step: int) -> float:
        """Give the optimizer the learning rate of a step, and say it."""
        rate = learning_rate(self.settings, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate


def parts_of(task: Task, net: torch.nn.Module, training: Training) -> list[Part]:
    """The parts of a network by the task's phases. Raises ConfigError for parameters that two phases own, or none."""
    parts = [Part(phase, net, training) for phase in phases_of(task)]
    if parts[0].phase.every != 1:
        raise ConfigError(f"phase {parts[0].phase.name}: the first phase runs in every step; its loss is the run's.")
    for name, parameter in net.named_parameters():
        owners = [part.phase.name for part in parts if part.phase.owns(name)]
        if parameter.requires_grad and len(owners) != 1:
            raise ConfigError(f"{name}: owned by {' and '.join(owners) or 'no phase'}; each parameter has one phase.")
    return parts


@contextmanager
def only(part: Part, parts: Sequence[Part]) -> Iterator[None]:
    """The other phases' parameters take no gradient meanwhile."""
    others = [p for other in parts if other is not part for p in other.parameters]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


def _kind(name: str) -> Any:
    if name != "adamw8bit":
        return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    try:
        return importlib.import_module("bitsandbytes.optim").AdamW8bit
    except ImportError as error:
        raise ConfigError(
            f"training.optimizer: adamw8bit needs bitsandbytes ({error}). Run: pip install bitsandbytes; or take adamw."
        ) from error


def learning_rate(settings: Training, step: int) -> float:
    """The rate of a step: a rising line during the warm-up, then constant, or half a cosine down to 0."""
    rise = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    if settings.schedule == "constant":
        return settings.learning_rate * rise
    done = max(step - settings.warmup, 0) / max(settings.steps - settings.warmup, 1)
    return settings.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
