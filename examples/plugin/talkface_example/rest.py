"""A face at rest: learns the mean blendshapes of a dataset, the smallest task there can be."""

from collections.abc import Iterable
from typing import ClassVar

import numpy as np
import torch

from talkface.datasets.loading.loader import Batch
from talkface.datasets.loading.windows import Windows
from talkface.datasets.reader import Dataset
from talkface.train.base import Facts, Step, TaskConfig, Training
from talkface.train.meters import Means


class Config(TaskConfig):
    """Windows of four frames."""

    @property
    def windows(self) -> Windows:
        return Windows(length=4, stride=2, fps=25, columns=("arkit",))


class Rest(torch.nn.Module):
    """52 numbers, the same for every window."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.nn.Linear(1, 52)

    def forward(self, ones: torch.Tensor) -> torch.Tensor:
        return self.mean(ones)


TINY = Training(steps=20, batch_size=4, learning_rate=1e-2, save_every=10, evaluate_every=10)


class Task:
    """The task ``rest``."""

    version = 1
    Config = Config
    presets: ClassVar = {"tiny": Config(training=TINY), "paper": Config()}

    @classmethod
    def learn(cls, config: Config, dataset: Dataset) -> Facts:
        return {}

    def __init__(self, config: Config, facts: Facts) -> None:
        self.config, self.facts = config, facts

    def build(self) -> torch.nn.Module:
        return Rest()

    def step(self, model: torch.nn.Module, batch: Batch, rng: torch.Generator, phase: str) -> Step:
        """Mean squared error over what is known."""
        error, count = self._error(model, batch)
        return Step(error / count.clamp(min=1))

    def _error(self, model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        known = torch.isfinite(batch["arkit"])
        guess = model(batch["arkit"].new_ones(*batch["arkit"].shape[:2], 1))
        return ((guess - batch["arkit"].nan_to_num()) ** 2 * known).sum(), known.sum()

    def evaluate(self, model: torch.nn.Module, batches: Iterable[Batch], rng: torch.Generator) -> dict[str, float]:
        means = Means()
        for batch in batches:
            error, count = self._error(model, batch)
            means.add("loss", error / count.clamp(min=1), count)
        return means.found()

    def picture(self, model: torch.nn.Module, batch: Batch, rng: torch.Generator) -> np.ndarray:
        """A bar a blendshape."""
        values = model(torch.ones(1, 1, device=batch["arkit"].device))[0].detach().float().cpu().numpy()
        drawn = np.full((64, 52 * 4, 3), 255, np.uint8)
        for i, height in enumerate((values.clip(0, 1) * 63).astype(int)):
            drawn[63 - height :, 4 * i : 4 * i + 3] = (60, 90, 160)
        return drawn
