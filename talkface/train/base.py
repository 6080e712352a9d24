"""The Task protocol, and discovery by file name.

A new trainer is one new file: ``train/tasks/gaze.py`` with a class ``Task`` makes ``toolkit train gaze`` work. Modules
whose name starts with an underscore are helpers and are not discovered.
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, Protocol

import numpy as np
import torch
from jaxtyping import UInt8
from pydantic import Field, field_validator

from talkface import discover
from talkface.config import Strict, parse
from talkface.datasets.loading.loader import Batch
from talkface.datasets.loading.windows import Windows
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError

Facts = dict[str, Any]
"""What a task learned from the data before training, as plain JSON: channel names, units, normalisation, schedule."""


class Training(Strict):
    """How the one loop trains a task; the same fields for every task."""

    steps: int = Field(1000, ge=0, description="optimizer steps")
    batch_size: int = Field(64, ge=1, description="windows a process and a forward pass")
    accumulate: int = Field(1, ge=1, description="forward passes an optimizer step")
    start_from: tuple[str, ...] = Field(
        (), description="weights to begin from: a run, a folder in diffusers layout, a name of the model registry"
    )
    trainable: tuple[str, ...] = Field((), description="patterns of the parameters to train, as blocks.*; empty: all")
    optimizer: Literal["adam", "adamw", "adamw8bit"] = "adamw"
    learning_rate: float = Field(1e-4, gt=0, description="after the warm-up")
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "cosine"] = Field("constant", description="of the learning rate; cosine ends at 0")
    warmup: int = Field(0, ge=0, description="steps in which the learning rate rises from 0")
    clip_norm: float = Field(1.0, ge=0, description="largest norm of the gradient; 0 leaves it alone")
    ema: float = Field(0.9999, ge=0, lt=1, description="decay of the averaged weights, rising to it; 0 keeps none")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="of the forward pass; auto: bf16 on a GPU")
    compile: bool = Field(False, description="torch.compile the network")
    checkpointing: bool = Field(False, description="activations of blocks are computed again, not kept: less memory")
    seed: int = Field(0, ge=0, description="of the weights, the order of the data and every draw")
    log_every: int = Field(10, ge=1, description="steps between lines of the log")
    evaluate_every: int = Field(500, ge=1, description="steps between evaluations on what is held out")
    evaluate_batches: int = Field(16, ge=1, description="batches of an evaluation at most")
    save_every: int = Field(500, ge=1, description="steps between checkpoints")
    keep: int = Field(3, ge=1, description="checkpoints kept, beside the best")

    @field_validator("start_from", "trainable", mode="before")
    @classmethod
    def _one_or_more(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given


class TaskConfig(Strict):
    """Base of every task's configuration. A task adds its fields and says here which windows it reads."""

    training: Training = Training()

    @property
    def windows(self) -> Windows:
        """What the task sees of a clip: length, rate and columns."""
        raise NotImplementedError

    @property
    def needs(self) -> tuple[str, ...]:
        """The columns without which the task cannot train."""
        return self.windows.columns

    @property
    def fps(self) -> float:
        """Frames a second that the task works at."""
        return self.windows.fps

    @property
    def companion(self) -> tuple[str, ...]:
        """Labels that a window's companion shares (`Loader.companion`); empty where the task needs none."""
        return ()

    @property
    def companion_columns(self) -> tuple[str, ...]:
        """The columns that the task reads of a companion; all unless it says so."""
        return self.windows.columns


@dataclass(frozen=True)
class Phase:
    """A part of every step that has a loss, parameters and an optimizer of its own, as a GAN's two networks have.

    It owns the parameters whose names begin with one of ``prefixes``, and no other phase's are moved or take gradients
    while it runs. ``training`` overrides settings of the run (``{"learning_rate": 2e-4}``); it runs in each step that
    ``every`` divides. The phases of a step see the same batches and the same random numbers, in their order.
    """

    name: str = "all"
    prefixes: tuple[str, ...] = ("",)
    training: Mapping[str, Any] = field(default_factory=dict)
    every: int = 1

    def owns(self, parameter: str) -> bool:
        """Whether a parameter of this name is the phase's."""
        return parameter.startswith(self.prefixes)

    def settings(self, training: Training) -> Training:
        """The run's settings with the phase's own over them. Raises ConfigError for what they cannot be."""
        return parse(Training, training.model_dump() | dict(self.training), where=f"phase {self.name}")


ONE: Final = (Phase(),)
"""The phases of a task that names none."""


@dataclass(frozen=True)
class Step:
    """What one forward pass gave: the loss to minimise (a scalar), and numbers for the log."""

    loss: torch.Tensor
    logs: Mapping[str, float | torch.Tensor] = field(default_factory=dict)


class Task(Protocol):
    """How one kind of model learns from batches.

    ``Task.learn(config, dataset)`` looks at the training data once and returns facts; ``Task(config, facts)`` needs
    nothing else, in training and in sampling. ``presets`` holds named configurations; every task has ``tiny`` (seconds
    on a CPU) and ``paper``. ``version`` is raised whenever the same configuration and weights would mean something
    else. The network's buffers and parameters are all there is to save.

    ``rng`` is the generator of every random number, on the network's device. ``step`` calls ``model`` (which may be
    wrapped, for many processes) and never its parts. Where a task has ``phases`` (a sequence of `Phase`; one by
    default) it is called once for each and returns that one's loss. NaN in a batch is missing data: it is masked, never
    learned from.

    ``evaluate`` sees held-out batches and returns numbers to log, ``loss`` among them: the smallest is the best
    checkpoint. ``picture`` draws what the model does now.

    Three more methods are optional: ``start(sources) -> start.Start`` takes weights from elsewhere, ``frozen()`` gives
    networks by name that are used and never trained, ``blocks(net)`` the modules to be computed again (`recompute`).

    What a task can make once it is trained is in `protocols`: motion, video, a transfer of motion.
    """

    version: ClassVar[int]
    Config: ClassVar[type[TaskConfig]]
    presets: ClassVar[Mapping[str, TaskConfig]]
    config: Any
    facts: Facts

    @classmethod
    def learn(cls, config: Any, dataset: Dataset) -> Facts: ...

    def __init__(self, config: Any, facts: Facts) -> None: ...

    def build(self) -> torch.nn.Module: ...

    def step(self, model: torch.nn.Module, batch: Batch, rng: torch.Generator, phase: str) -> Step: ...

    def evaluate(self, model: torch.nn.Module, batches: Iterable[Batch], rng: torch.Generator) -> dict[str, float]: ...

    def picture(
        self, model: torch.nn.Module, batch: Batch, rng: torch.Generator
    ) -> UInt8[np.ndarray, "height width 3"]: ...


def task_names() -> tuple[str, ...]:
    """Names of all tasks: the files of ``train/tasks``, and what installed packages offer."""
    return discover.names(discover.TASKS)


def task_class(name: str) -> type[Task]:
    """The class of a task by its name, or by ``package.module:Class``. Raises ConfigError for one that is not there."""
    loaded: type[Task] = discover.load(discover.TASKS, name)
    return loaded


def configure(
    name: str, preset: str = "paper", toml: str | Path | None = None, changes: Sequence[str] = ()
) -> TaskConfig:
    """A task's configuration: the preset, then the TOML file's values over it, then ``a.b=value`` ones.

    Values are written as in TOML; what is none is taken as text. Raises ConfigError with one sentence.
    """
    task = task_class(name)
    if preset not in task.presets:
        raise ConfigError(f"{name} has no preset {preset!r}; there are: {', '.join(task.presets)}")
    values = task.presets[preset].model_dump()
    if toml is not None:
        _merge(values, _read_toml(toml))
    return parse(task.Config, with_changes(values, changes), where=f"{name}, preset {preset}")


def with_changes(values: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """``values`` with ``a.b=value`` ones put over them. Raises ConfigError for one without ``=``."""
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals:
            raise ConfigError(f"--set {change}: expected a.b=value")
        _merge(values, _nested(path.strip().split("."), _value(text.strip())))
    return values


def _read_toml(path: str | Path) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}). Check --config.") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not TOML: {error}.") from error


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def _nested(path: list[str], value: Any) -> dict[str, Any]:
    return {path[0]: value if len(path) == 1 else _nested(path[1:], value)}


def _merge(values: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), dict):
            _merge(values[key], value)
        else:
            values[key] = value
