"""A model trained in two stages: the second one has the first one's encoder, frozen, and a part of its own.

``vae`` stands for a network that the task uses and never trains.
"""

from typing import ClassVar

import numpy as np
import torch

from talkface.datasets.loading.windows import Windows
from talkface.train.base import Step, TaskConfig, Training
from talkface.train.meters import Means
from talkface.train.start import Start


class Config(TaskConfig):
    """Windows of four frames; ``scale`` is what the network outside is made of."""

    stage: int = 1
    scale: float = 1.0

    @property
    def windows(self):
        return Windows(length=4, stride=2, fps=25, columns=("arkit",))


class Net(torch.nn.Module):
    """Guesses frames from noisy ones: an encoder with batch normalisation, blocks, and a last layer."""

    def __init__(self, stage):
        super().__init__()
        norm = torch.nn.BatchNorm1d(16)
        self.encoder = torch.nn.Sequential(torch.nn.Linear(52, 16), norm, torch.nn.SiLU()).requires_grad_(stage == 1)
        if stage == 2:
            self.motion = torch.nn.ModuleList(torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Dropout(0.1))
                                              for _ in range(2))  # fmt: skip
        self.last = torch.nn.Linear(16, 52)

    def forward(self, x):
        x = self.encoder(x)
        for block in getattr(self, "motion", ()):
            x = x + block(x).tanh()
        return self.last(x)


TINY = Training(steps=6, batch_size=4, save_every=2, evaluate_every=2, log_every=1, warmup=0, learning_rate=1e-2)


class Task:
    """Mean squared error."""

    version = 1
    Config = Config
    presets: ClassVar = {"tiny": Config(training=TINY), "paper": Config()}

    @classmethod
    def learn(cls, config, dataset):
        return {}

    def __init__(self, config, facts):
        self.config, self.facts = config, facts
        self.vae = torch.nn.Linear(52, 52, bias=False)
        self.vae.weight.data.copy_(config.scale * torch.eye(52))

    def build(self):
        return Net(self.config.stage)

    def frozen(self):
        return {"vae": self.vae}

    def start(self, sources):
        """A run of the first stage has no motion; a folder calls the encoder ``unet``, and may have a head."""
        weights = {}
        for source in sources:
            own = source.weights() if source.task else source.weights("unet")
            weights |= {k if source.task else f"encoder.{k}": v for k, v in own.items()}
        last = () if any(source.task for source in sources) else ("last.*",)
        return Start(weights, missing=("motion.*", *last), unexpected=("encoder.head.*",))

    def step(self, model, batch, rng, phase="all"):
        real = self.vae(batch["arkit"].float().flatten(0, 1).nan_to_num(0))
        known = torch.isfinite(batch["arkit"].float().flatten(0, 1))
        made = model(real + 0.1 * torch.randn(real.shape, generator=rng, device=rng.device))
        return Step(((made - real) ** 2 * known).sum() / known.sum().clamp(min=1))

    def evaluate(self, model, batches, rng):
        means = Means()
        for batch in batches:
            known = torch.isfinite(batch["arkit"].float())
            means.add("loss", self.step(model, batch, rng).loss, known.sum())
        return means.found()

    def picture(self, model, batch, rng):
        return np.zeros((8, 8, 3), np.uint8)
