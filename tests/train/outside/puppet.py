"""A task that animates portraits, as somebody else would write one: the picture is lit by the loudness of the sound."""

from typing import ClassVar

import numpy as np
import torch

from talkface.config import Strict
from talkface.datasets.loading.windows import Windows
from talkface.train.base import Step, TaskConfig, Training
from talkface.train.meters import Means
from talkface.vocab import SAMPLE_RATE


class Config(TaskConfig):
    """Windows of four frames."""

    side: int = 64

    @property
    def windows(self):
        return Windows(length=4, stride=2, fps=25, columns=("arkit",))


class Sampling(Strict):
    """How bright it gets."""

    gain: float = 0.5


TINY = Training(steps=2, batch_size=4, save_every=2, evaluate_every=2, log_every=1, learning_rate=1e-3)


class Task:
    """Learns the mean blendshapes, and shows how loud it is."""

    version = 1
    Config = Config
    Sampling = Sampling
    presets: ClassVar = {"tiny": Config(training=TINY), "paper": Config(training=TINY)}

    @classmethod
    def learn(cls, config, dataset):
        return {}

    def __init__(self, config, facts):
        self.config, self.facts = config, facts

    def build(self):
        return torch.nn.Linear(1, 52)

    def step(self, model, batch, rng, phase):
        return Step(self._loss(model, batch))

    def _loss(self, model, batch):
        known = torch.isfinite(batch["arkit"])
        error = (model(batch["arkit"].new_ones(1)) - batch["arkit"].nan_to_num()) ** 2
        return (error * known).sum() / known.sum().clamp(min=1)

    def evaluate(self, model, batches, rng):
        means = Means()
        for batch in batches:
            means.add("loss", self._loss(model, batch), torch.isfinite(batch["arkit"]).sum())
        return means.found()

    def picture(self, model, batch, rng):
        return np.zeros((8, 8, 3), np.uint8)

    def sample_video(self, net, speech, portrait, rng, how, *, style=None):
        face = portrait.resized(self.config.side).picture.astype(np.float32)
        rows = SAMPLE_RATE // 25
        for frame in range(speech.frames(25)):
            part = speech.samples[frame * rows : (frame + 1) * rows].astype(np.float32) / 32768
            light = 1 + how.gain * float(np.sqrt(np.mean(part**2)))
            yield (face * light).clip(0, 255).astype(np.uint8)

    def transfer(self, net, portrait, driving, rng, how):
        face = portrait.resized(self.config.side).picture.astype(np.float32)
        first = None
        for picture in driving.pictures():
            first = float(picture.mean()) if first is None else first
            yield (face * float(picture.mean()) / max(first, 1)).clip(0, 255).astype(np.uint8)
