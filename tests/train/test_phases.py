"""A task with two phases, as a plug-in's author writes it: one file outside the package."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from talkface.errors import ConfigError
from talkface.train import checkpoint
from talkface.train.base import Phase, Training, configure, task_class
from talkface.train.data import endless, split
from talkface.train.log import Waiting
from talkface.train.loop import Run
from talkface.train.optim import Part, only, parts_of
from tests.conftest import Toolkit
from tests.train.outside import gan
from tests.train.test_loop import TWO_PROCESSES, same_after_a_kill

GAN = "tests.train.outside.gan:Task"
OPTIONS = ("--preset", "tiny", "--threads", "1", "--workers", "0", "--cpu", "--hold-out", "none")


def started(talkers: str, out: Path, *changes: str) -> Run:
    clips, _ = split(talkers, "none")
    config = configure(GAN, "tiny", None, changes)
    return Run(GAN, config, clips, None, out, Accelerator(cpu=True), resume=False, say=lambda text: None)


def weights(run: Run, prefix: str) -> dict[str, torch.Tensor]:
    return {k: v.detach().clone() for k, v in run.model.named_parameters() if k.startswith(prefix)}


def test_a_phase_moves_its_own_parameters_alone(talkers: str, tmp_path: Path) -> None:
    """The generator's loss goes through the discriminator and leaves it as it is, and the reverse."""
    run = started(talkers, tmp_path)
    batch, _ = next(endless(run.loader, 0))
    for part, other in zip(run.parts, reversed(run.parts), strict=True):
        own, kept = (weights(run, p.phase.prefixes[0]) for p in (part, other))
        with only(part, run.parts):
            run.phase(part, [batch])
        after = dict(run.model.named_parameters())
        assert not any(torch.equal(v, after[k]) for k, v in own.items() if k.endswith("weight"))
        assert all(torch.equal(v, after[k]) for k, v in kept.items())
        assert all(after[k].grad is None and after[k].requires_grad for k in kept)


def test_each_phase_has_its_settings_and_its_steps(talkers: str, tmp_path: Path) -> None:
    run = started(talkers, tmp_path)
    assert [type(p.optimizer.optimizer).__name__ for p in run.parts] == ["AdamW", "Adam"]
    batches = Waiting(endless(run.loader, 0))
    logs = [run.update(batches) for _ in range(3)]
    assert ["discriminator_loss" in line for line in logs] == [True, False, True], "every second step"
    assert all({"loss", "gradient", "learning_rate", "spread"} <= line.keys() for line in logs)
    assert (logs[0]["learning_rate"], logs[0]["discriminator_learning_rate"]) == (1e-3, 4e-3)


def test_killed_and_resumed_is_the_same_to_the_bit(talkers: str, tmp_path: Path, toolkit: Toolkit) -> None:
    """Both networks, both optimizers, the log."""
    options = (*OPTIONS, "--set", "training.steps=40", "--set", "training.save_every=5", "--set", "training.keep=9")
    same_after_a_kill(toolkit, tmp_path, "train", GAN, "--data", talkers, *options, steps=40, at=12)
    about = checkpoint.About.read(checkpoint.find(tmp_path / "whole"))
    assert set(about.files) == {"model", "averaged", "optimizer.generator", "optimizer.discriminator"}


def test_two_processes_hold_the_same_weights(talkers: str, tmp_path: Path) -> None:
    """Over gloo: the mean of both gradients moves both; what is saved is what one process gets from both halves."""
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    some = ("--set", "training.steps=1", "--set", "training.save_every=1", "--set", "training.clip_norm=0")
    arguments = [*TWO_PROCESSES, "-m", "talkface.cli", "train", GAN, "--data", talkers, *OPTIONS, *some]
    subprocess.run([*arguments, "--out", str(tmp_path / "two")], check=True, capture_output=True, env=environment)
    run = started(talkers, tmp_path / "one", "training.clip_norm=0")
    halves = [batch for batch, _ in (next(b) for b in [endless(run.loader, 0)] for _ in range(2))]
    for part in run.parts:
        for rank, batch in enumerate(halves):
            rng = run.rng(0, 0, 0, rank)
            torch.manual_seed(rng.initial_seed())
            for parameter in run.model.parameters():
                parameter.requires_grad_(any(parameter is p for p in part.parameters))
            (run.task.step(run.model, batch, rng, part.phase.name).loss / 2).backward()
        part.set_rate(0)
        part.optimizer.step()
    saved = load_file(checkpoint.find(tmp_path / "two", "last") / "model.safetensors")
    for name, value in run.model.state_dict().items():
        torch.testing.assert_close(saved[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("phases", "line"),
    [
        ((Phase("generator", ("generator.",)),), r"discriminator\.0\.weight: owned by no phase"),
        ((Phase("a"), Phase("b", ("generator.",))), r"generator\.0\.weight: owned by a and b"),
        ((Phase("a"), Phase("b", ("critic.",))), r"phase b: nothing to train among critic\."),
        ((Phase("a", training={"learning_rat": 1}),), r"phase a.*Did you mean"),
    ],
)
def test_phases_that_cannot_be_are_refused(phases: tuple[Phase, ...], line: str) -> None:
    class Odd(gan.Task):
        pass

    Odd.phases = phases
    with pytest.raises(ConfigError, match=line):
        parts_of(Odd(configure(GAN, "tiny"), {}), gan.Net(), Training())


def test_one_phase_owns_everything_where_none_is_named() -> None:
    assert Part(Phase(), gan.Net(), Training()).parameters
    assert task_class(GAN) is gan.Task
