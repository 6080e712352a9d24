"""EMOdiffhead's task: what each term of the loss is of, and how a video begins."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from talkface.datasets.reader import Dataset
from talkface.train.base import configure, task_class
from talkface.train.data import training_loader
from talkface.train.tasks.emodiffhead import Sampling, Task


@dataclass
class Tried:
    """The tiny task with a batch."""

    task: Task
    batch: dict
    net: nn.Module


@pytest.fixture(scope="module")
def tried(filmed: str) -> Tried:
    dataset, config = Dataset(filmed), configure("emodiffhead", "tiny", None, ["training.batch_size=4"])
    task = task_class("emodiffhead")(config, task_class("emodiffhead").learn(config, dataset))
    torch.manual_seed(0)
    return Tried(task, next(iter(training_loader(dataset, config))), task.build())


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_sample_without_landmarks_drops_out_of_the_regional_terms_alone(tried: Tried) -> None:
    given, points = tried.task.prepare(tried.batch, rng(), train=False)
    points = torch.rand(points.shape, generator=rng()) * 20 + 4
    t = torch.full((len(points),), 300)
    whole = tried.task.terms(tried.net, given, points, t, rng())[0]
    points[0] = torch.nan
    less = tried.task.terms(tried.net, given, points, t, rng())[0]
    assert torch.equal(whole["simple"][0], less["simple"][0]) and torch.equal(whole["vlb"][0], less["vlb"][0])
    for name in ("lip", "eye"):
        assert int(less[name][1]) == int(whole[name][1]) - 1
        assert not torch.equal(whole[name][0], less[name][0])


def test_boxes_are_those_of_the_frame_that_is_made(tried: Tried) -> None:
    """Points of frame i of the window i-2 .. i+2, and not of the person's picture."""
    _, points = tried.task.prepare(tried.batch, rng(), train=False)
    assert torch.equal(points.nan_to_num(), tried.batch["lm68"][:, 2].nan_to_num())
    assert not torch.equal(points.nan_to_num(), tried.batch["reference_lm68"][:, 0].nan_to_num())


class Telling(nn.Module):
    """A network that keeps the motion frames that it is given, and predicts nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def look(self, identity: torch.Tensor) -> dict[str, torch.Tensor]:
        return {}

    def forward(self, x: torch.Tensor, t: torch.Tensor, motion: torch.Tensor, **_: object) -> torch.Tensor:
        self.seen.append(motion)
        return torch.zeros(len(x), 6, *x.shape[2:])


def test_a_video_begins_with_the_portrait_and_goes_on_from_what_was_made(tried: Tried) -> None:
    identity, net = torch.rand(2, 3, 32, 32, generator=rng()) * 2 - 1, Telling()
    sound, expression = torch.zeros(2, 3, tried.task.sound.width), torch.zeros(2, 3, len(tried.task.expression))
    how = Sampling(sampler="ddim", steps=1)
    made = list(tried.task.frames(net, identity, sound, expression, rng(), how, same_noise=True))
    before = [identity, identity, *made]
    for number, motion in enumerate(net.seen):
        assert torch.equal(motion, torch.cat(before[number : number + 2], dim=1))
    assert len(net.seen) == len(made) == 3
    assert torch.equal(made[0][0], made[0][1]), "the same noise for both"
