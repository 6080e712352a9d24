"""A small GAN of blendshapes: a generator of frames from noise, and a discriminator with an optimizer of its own."""

from typing import ClassVar

import numpy as np
import torch
from torch.nn import functional

from talkface.datasets.loading.windows import Windows
from talkface.train.base import Phase, Step, TaskConfig, Training
from talkface.train.meters import Means


class Config(TaskConfig):
    """Windows of four frames."""

    @property
    def windows(self):
        return Windows(length=4, stride=2, fps=25, columns=("arkit",))


class Net(torch.nn.Module):
    """Both networks; ``part`` says which one is asked."""

    def __init__(self):
        super().__init__()
        self.generator = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Dropout(0.1), torch.nn.Linear(32, 52))
        self.discriminator = torch.nn.Sequential(torch.nn.Linear(52, 32), torch.nn.SiLU(), torch.nn.Linear(32, 1))

    def forward(self, x, part):
        return getattr(self, part)(x)


TINY = Training(steps=6, batch_size=4, save_every=2, evaluate_every=2, log_every=1, warmup=0, learning_rate=1e-3)


class Task:
    """Hinge losses."""

    version = 1
    Config = Config
    presets: ClassVar = {"tiny": Config(training=TINY), "paper": Config()}
    phases = (
        Phase("generator", ("generator.",)),
        Phase("discriminator", ("discriminator.",), {"learning_rate": 4e-3, "optimizer": "adam"}, every=2),
    )

    @classmethod
    def learn(cls, config, dataset):
        return {}

    def __init__(self, config, facts):
        self.config, self.facts = config, facts

    def build(self):
        return Net()

    def step(self, model, batch, rng, phase):
        real = batch["arkit"].float().flatten(0, 1)
        known = torch.isfinite(real).any(-1, keepdim=True)
        made = model(torch.randn(len(real), 8, generator=rng, device=rng.device), "generator")
        if phase == "generator":
            return Step(-model(made, "discriminator").mean(), {"spread": made.std()})
        fake = functional.relu(1 + model(made.detach(), "discriminator")).mean()
        true = functional.relu(1 - model(real.nan_to_num(0), "discriminator"))
        return Step(fake + (true * known).sum() / known.sum().clamp(min=1))

    def evaluate(self, model, batches, rng):
        means = Means()
        for batch in batches:
            real = batch["arkit"].float()
            known = torch.isfinite(real)
            made = model(torch.randn(*real.shape[:2], 8, generator=rng), "generator")
            error = torch.where(known, made - real.nan_to_num(0), 0).abs().sum() / known.sum()
            means.add("loss", error, known.sum())
        return means.found()

    def picture(self, model, batch, rng):
        return np.zeros((8, 8, 3), np.uint8)
