"""``talkface.train``: a dataset to a trained model."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from talkface.api.weights import store_of
from talkface.threads import core_count
from talkface.train import loop
from talkface.train.base import configure
from talkface.train.data import split
from talkface.train.loop import Result
from talkface.weights import Models


def train(
    task: str,
    data: str | Path,
    out: str | Path,
    *,
    preset: str = "paper",
    config: str | Path | None = None,
    settings: Mapping[str, Any] | Sequence[str] = (),
    resume: bool = False,
    hold_out: str = "val",
    workers: int | None = None,
    cpu: bool = False,
    threads: int | None = None,
    models: str | Path | Models | None = None,
    offline: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Result:
    """Train a task on a dataset; ``out`` is the folder of the run, which ``talkface.sample`` takes.

    ``settings`` are values over those of preset and TOML file: ``{"training.steps": 100}``, or strings
    ``training.steps=100``. ``hold_out`` is what is evaluated and never trained on. ``workers`` are processes that read
    data (default: at most four), ``threads`` those of PyTorch on a CPU. Raises ConfigError before the first step for
    what cannot be, RunError for a loss that is NaN or Inf, or a full disk.
    """
    told = [f"{k}={json.dumps(v)}" for k, v in settings.items()] if isinstance(settings, Mapping) else settings
    chosen, cores = configure(task, preset, config, told), core_count()
    used = min(4, cores - 1) if workers is None else workers
    # Threads that wait for a core take turns at every operation: a tiny network is many times slower on two.
    torch.set_num_threads(threads or (1 if preset == "tiny" else max(cores - used, 1)))
    clips, held = split(str(data), hold_out)
    store = store_of(models, offline)
    return loop.train(task, chosen, clips, held, out, resume=resume, workers=used, cpu=cpu, models=store, say=say)
