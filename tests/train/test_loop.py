"""The loop: what is resumed is what would have been; what is many processes is one; what is bad stops in time."""

import copy
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from talkface.errors import ConfigError, RunError
from talkface.train import checkpoint
from talkface.train.base import Training, configure
from talkface.train.data import endless, split
from talkface.train.log import Log, Waiting
from talkface.train.loop import TRAIN, Result, Run, train
from talkface.train.optim import learning_rate
from tests.conftest import ROOT, Toolkit, command
from tests.train.making import make

SMALL = (
    "width=32", "layers=1", "heads=2", "sound_width=8", "dropout=0.1", "stride=8",
    "training.batch_size=8", "training.log_every=1", "training.evaluate_batches=1",
)  # fmt: skip


def small(*changes: str) -> tuple[str, ...]:
    return tuple(part for change in (*SMALL, *changes) for part in ("--set", change))


def run(data: str, out: Path, *changes: str, resume: bool = False) -> Result:
    clips, held = split(data)
    config = configure("emodiff", "tiny", None, (*SMALL, *changes))
    return train("emodiff", config, clips, held, out, resume=resume, say=lambda text: None)


def log_of(out: Path) -> list[dict[str, float]]:
    speeds = ("steps_a_second", "data_wait")
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in speeds} for line in lines]


def tensors_of(out: Path, step: int) -> dict[str, torch.Tensor]:
    folder = out / checkpoint.FOLDER / f"{step:08}"
    return {f"{p.stem}.{k}": v for p in sorted(folder.glob("*.safetensors")) for k, v in load_file(p).items()}


def same_after_a_kill(toolkit: Toolkit, folder: Path, *arguments: object, steps: int, at: int) -> None:
    """Train once undisturbed and once with a kill -9 after step ``at`` and a resume: all tensors and the log are equal
    to the bit. The runs are ``whole`` and ``cut`` in ``folder``."""
    toolkit(*arguments, "--out", folder / "whole")
    cut = (*arguments, "--out", folder / "cut")
    process = subprocess.Popen(command(*cut), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = folder / "cut" / "log.jsonl"
    while process.poll() is None and not (log.exists() and f'"step": {at},' in log.read_text()):
        time.sleep(0.001)
    process.kill()
    process.wait()
    before = [p.name for p in checkpoint.names(folder / "cut")]
    assert before and before[-1] < f"{steps:08}", "killed too late to show anything"
    result = toolkit(*cut, "--resume")
    assert f"resumed from {folder / 'cut'}" in result.stdout.replace("\n", "")
    one, other = (tensors_of(folder / name, steps) for name in ("whole", "cut"))
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
    assert log_of(folder / "cut") == log_of(folder / "whole")


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_resumed_is_the_same_to_the_bit(
    talkers: str, tmp_path: Path, toolkit: Toolkit, workers: int
) -> None:
    """2k steps == k steps, kill -9, k more: weights, average, optimizer, place in the data, the log."""
    options = ("--preset", "tiny", "--threads", "1", "--workers", workers,
               *small("training.steps=12", "training.save_every=3", "training.evaluate_every=4", "training.keep=9",
                      "training.accumulate=2"))  # fmt: skip
    same_after_a_kill(toolkit, tmp_path, "train", "emodiff", "--data", talkers, *options, steps=12, at=7)
    about = [checkpoint.About.read(tmp_path / n / "checkpoints" / "00000012") for n in ("whole", "cut")]
    assert about[0].loader == about[1].loader
    assert about[0].seen == about[1].seen == 12 * 2 * 8
    assert about[0].loader["epoch"] > 0, "the test should go over an epoch's end"


@pytest.mark.parametrize("task", ["lip", "sync_expert"])
def test_stopped_and_resumed_is_the_same_for_every_task(talkers: str, tmp_path: Path, task: str) -> None:
    clips, held = split(talkers)
    some = ("training.batch_size=8", "training.log_every=1", "training.evaluate_every=3", "training.save_every=3",
            "training.evaluate_batches=1", "training.keep=9", "dropout=0.1", "stride=8")  # fmt: skip
    for name, steps in (("whole", [6]), ("cut", [3, 6])):
        for end in steps:
            config = configure(task, "tiny", None, (*some, f"training.steps={end}"))
            train(task, config, clips, held, tmp_path / name, resume=end != steps[0], cpu=True, say=lambda text: None)
    whole, cut = (tensors_of(tmp_path / name, 6) for name in ("whole", "cut"))
    assert whole.keys() == cut.keys() and all(torch.equal(v, cut[k]) for k, v in whole.items())
    assert log_of(tmp_path / "cut") == log_of(tmp_path / "whole")


def test_workers_change_nothing(talkers: str, tmp_path: Path) -> None:
    clips, held = split(talkers)
    config = configure("emodiff", "tiny", None, (*SMALL, "training.steps=9"))
    for workers in (0, 2):
        train("emodiff", config, clips, held, tmp_path / str(workers), workers=workers, say=lambda text: None)
    assert log_of(tmp_path / "0") == log_of(tmp_path / "2")


def test_a_finished_run_is_left_alone(talkers: str, tmp_path: Path) -> None:
    run(talkers, tmp_path, "training.steps=2")
    with pytest.raises(ConfigError, match="holds a run already"):
        run(talkers, tmp_path, "training.steps=2")
    assert run(talkers, tmp_path, "training.steps=2", resume=True).step == 2


def test_the_last_and_the_best_are_kept(talkers: str, tmp_path: Path) -> None:
    """With a learning rate that ruins the weights, an early checkpoint is the best one."""
    changes = ("training.steps=8", "training.save_every=1", "training.evaluate_every=1", "training.keep=2",
               "training.ema=0", "training.warmup=0", "training.learning_rate=0.03")  # fmt: skip
    result = run(talkers, tmp_path, *changes)
    held = {line["step"]: line["held_loss"] for line in log_of(tmp_path) if "held_loss" in line}
    best = min(held, key=lambda step: held[step])
    assert result.best is not None and (result.best["step"], result.best["loss"]) == (best, held[best])
    assert {int(p.name) for p in checkpoint.names(tmp_path)} == {best, 7, 8}
    assert checkpoint.find(tmp_path).name == f"{best:08}"
    assert checkpoint.find(tmp_path, "last").name == "00000008"
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 8
    assert list((tmp_path / "events").iterdir())


@pytest.mark.parametrize("task", ["lip", "sync_expert"])
def test_a_silent_held_out_speaker_chooses_nothing(tmp_path: Path, task: str) -> None:
    """Neither is the loss of nothing the smallest that can be, nor does a batch without a usable window stop a run."""
    clips, held = split(make(tmp_path / "data", silent=(4, 5), val=0), "p2")
    some = ("training.batch_size=4", "training.steps=2", "training.evaluate_every=1", "training.log_every=1")
    said = list[str]()
    config = configure(task, "tiny", None, some)
    assert train(task, config, clips, held, tmp_path / "run", cpu=True, say=said.append).best is None
    assert checkpoint.best_of(tmp_path / "run") is None and checkpoint.load(tmp_path / "run").about.step == 2
    assert sum("nothing in the held-out clips can be judged" in line for line in said) == 2
    assert not [key for line in log_of(tmp_path / "run") for key in line if key.startswith("held_")]


def test_only_a_number_can_be_the_best(talkers: str, tmp_path: Path) -> None:
    clips, _ = split(talkers)
    config = configure("emodiff", "tiny", None, SMALL)
    made = Run("emodiff", config, clips, None, tmp_path, Accelerator(cpu=True), resume=False, say=lambda text: None)
    assert [made.is_best(held) for held in ({}, {"loss": 2.0})] == [False, True]
    made.save({})
    assert made.is_best({"loss": 3.0}), "a checkpoint that was not evaluated is not the best"
    made.save({"loss": 2.0})
    assert [made.is_best({"loss": loss}) for loss in (3.0, 2.0, 1.0)] == [False, False, True]


def test_accumulated_batches_are_one_step(talkers: str, tmp_path: Path) -> None:
    """The gradient of a step is the mean of its batches' gradients."""
    clips, _ = split(talkers)
    changes = ("dropout=0", "training.steps=1", "training.accumulate=2", "training.clip_norm=0")
    config = configure("emodiff", "tiny", None, (*SMALL, *changes))
    made = Run("emodiff", config, clips, None, tmp_path, Accelerator(cpu=True), resume=False, say=lambda text: None)
    net = copy.deepcopy(made.model)
    for micro, batch in enumerate(islice(made.loader, 2)):
        (made.task.step(net, batch, made.rng(TRAIN, 0, micro, 0), "all").loss / 2).backward()
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    logs = made.update(Waiting(endless(made.loader, 0)))
    assert logs["gradient"] == pytest.approx(float(torch.stack([g.norm() for g in gradients]).norm()), rel=1e-4)
    assert made.seen == 2 * 8


def test_the_gradient_is_clipped(talkers: str, tmp_path: Path) -> None:
    """Adam's first moment after a step is a tenth of the gradient that reached it."""
    run(talkers, tmp_path, "training.steps=1", "training.clip_norm=0.01")
    moments = [v.norm() for k, v in tensors_of(tmp_path, 1).items() if k.endswith("|exp_avg")]
    assert log_of(tmp_path)[0]["gradient"] > 0.02
    assert float(torch.stack(moments).norm()) == pytest.approx(0.1 * 0.01, rel=1e-3)


def test_missing_columns_stop_before_anything_with_the_command_that_adds_them(
    talkers: str, tmp_path: Path, toolkit: Toolkit
) -> None:
    out = tmp_path / "run"
    result = toolkit("train", "emodiff", "--data", talkers, "--out", out, "--preset", "paper", code=2)
    assert f"toolkit annotate {talkers} --with w" in result.stderr.replace("\n", "")
    assert result.stderr.startswith("ConfigError")
    assert not checkpoint.names(out)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_no_number_stops_with_the_keys_and_leaves_a_finite_checkpoint(tmp_path: Path, what: str) -> None:
    """At the fifth step the network's output or its gradient is spoiled, right before that step's checkpoint is due."""
    clips, _ = split(make(tmp_path / "data", val=0), "none")
    config = configure("emodiff", "tiny", None, (*SMALL, "training.steps=8", "training.save_every=1"))
    out = tmp_path / "run"
    made = Run("emodiff", config, clips, None, out, Accelerator(cpu=True), resume=False, say=lambda text: None)

    def spoil(value: torch.Tensor) -> torch.Tensor:
        return value * (torch.inf if made.step == 4 else 1)

    if what == "loss":
        made.model.register_forward_hook(lambda net, given, found: spoil(found))
    else:
        next(made.model.parameters()).register_hook(spoil)
    with pytest.raises(RunError) as error:
        made.run(0)
    batch = next(islice(endless(made.loader, 0), 4, None))[0]["key"]
    assert f"{what} is NaN or Inf at step 4; the batch: {', '.join(batch)}." in str(error.value)
    assert f"The last good checkpoint is {out / checkpoint.FOLDER / '00000004'}." in str(error.value)
    assert checkpoint.names(out)[-1].name == "00000004"
    assert all(torch.isfinite(value).all() for value in tensors_of(out, 4).values())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB; needs to be root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("cannot mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_leaves_the_last_checkpoint(talkers: str, small_disk: Path) -> None:
    out = small_disk / "run"
    with pytest.raises(RunError, match="disk is full"):
        run(
            talkers, out, "training.steps=40", "training.save_every=1", "training.keep=40", "training.evaluate_every=99"
        )
    kept = checkpoint.names(out)
    assert kept
    assert not list((out / checkpoint.FOLDER).glob(".*"))
    model = checkpoint.load(out, which="last")
    assert model.about.step == int(kept[-1].name)


def test_a_full_disk_while_logging_is_one_sentence(small_disk: Path) -> None:
    out = small_disk / "run"
    log = Log(out, configure("emodiff", "tiny"), 0)
    log.write(1, {"loss": 1.0}, {})
    with suppress(OSError), (small_disk / "filler").open("wb") as file:
        file.write(bytes(1 << 22))
    picture = np.zeros((4, 4, 3), np.uint8)
    for written in (lambda: log.write(2, {"loss": 1.0}, {}), lambda: log.draw(2, picture)):
        with pytest.raises(RunError, match="the disk is full"):
            written()
    (small_disk / "filler").unlink()
    log.write(2, {"loss": 1.0}, {})
    assert [line["step"] for line in log_of(out)] == [1, 2]


TWO_PROCESSES = (
    sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d",
    "--rdzv-endpoint", "localhost:0",
)  # fmt: skip


def by_one_process(data: str, out: Path, changes: tuple[str, ...], steps: int) -> list[dict[str, float]]:
    """Loss and gradient of the first steps where one process takes what two would, one after the other."""
    clips, _ = split(data)
    config = configure("emodiff", "tiny", None, (*SMALL, *changes))
    made = Run("emodiff", config, clips, None, out, Accelerator(cpu=True), resume=False, say=lambda text: None)
    assert len(made.loader) >= 2 * steps, "the test should not go over an epoch's end"
    batches, found = iter(made.loader), []
    for step in range(steps):
        losses = []
        for rank in range(2):
            losses.append(made.task.step(made.model, next(batches), made.rng(TRAIN, step, 0, rank), "all").loss)
            (losses[-1] / 2).backward()
        norm = torch.nn.utils.clip_grad_norm_(made.model.parameters(), made.settings.clip_norm)
        (part,) = made.parts
        part.set_rate(step)
        part.optimizer.step()
        part.optimizer.zero_grad()
        found.append({"loss": float(torch.stack(losses).detach().mean()), "gradient": float(norm)})
    return found


def test_two_processes_train_one_model(talkers: str, tmp_path: Path) -> None:
    """DDP over gloo: each process takes its half of every batch, and both end with the weights that are saved.

    Losses and gradients are those of one process that takes both halves. Of one whole batch they would not be: a loss
    is the mean over what its half knows, and each process has random numbers of its own.
    """
    changes = ("training.steps=6", "training.save_every=3", "training.evaluate_every=3", "dropout=0", "stride=4")
    options = ["--data", talkers, "--preset", "tiny", "--threads", "1", "--cpu", "--workers", "0", *small(*changes)]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    arguments = [*TWO_PROCESSES, "-m", "talkface.cli", "train", "emodiff", *options, "--out", str(tmp_path / "two")]
    subprocess.run(arguments, check=True, capture_output=True, timeout=300, env=environment)
    lines = log_of(tmp_path / "two")
    assert [line["seen"] for line in lines if "seen" in line] == [16 * (i + 1) for i in range(6)]
    assert len([line for line in lines if "held_loss" in line]) == 2
    assert checkpoint.load(tmp_path / "two").about.step in (3, 6)
    alone = by_one_process(talkers, tmp_path / "one", changes, steps=3)
    for key in ("loss", "gradient"):
        assert [line[key] for line in lines[:3]] == pytest.approx([one[key] for one in alone], rel=1e-4)
    more = [
        *arguments[: arguments.index("--out")],
        "--out",
        str(tmp_path / "two"),
        "--set",
        "training.steps=9",
        "--resume",
    ]
    subprocess.run(more, check=True, capture_output=True, timeout=300, env=environment)
    assert log_of(tmp_path / "two")[-2]["seen"] == 16 * 9


def test_weights_spread_over_processes_are_averaged_saved_and_taken_up_as_a_whole(talkers: str) -> None:
    """FSDP's sharded tensors over gloo; `sharded` says what is compared."""
    script = Path(__file__).with_name("sharded.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    found = subprocess.run(
        [*TWO_PROCESSES, str(script), talkers], capture_output=True, text=True, timeout=300, check=False,
        env=environment,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert "sharded as alone" in found.stdout


def test_half_precision_is_of_the_forward_pass_alone(talkers: str, tmp_path: Path, toolkit: Toolkit) -> None:
    """bf16 gives about the same losses, not the same ones, and every weight that is kept is fp32."""
    steps = ("training.steps=3", "training.evaluate_every=9")
    run(talkers, tmp_path / "fp32", *steps)
    toolkit("train", "emodiff", "--data", talkers, "--out", tmp_path / "bf16", "--preset", "tiny", "--workers", "0",
            "--threads", "1", "--cpu", *small(*steps, "training.precision=bf16"))  # fmt: skip
    one, other = ([line["loss"] for line in log_of(tmp_path / name)[:3]] for name in ("fp32", "bf16"))
    assert one != other and one == pytest.approx(other, rel=0.05)
    assert {v.dtype for k, v in tensors_of(tmp_path / "bf16", 3).items() if "step" not in k} == {torch.float32}
    with pytest.raises(ConfigError, match="another precision"):
        run(talkers, tmp_path / "again", *steps, "training.precision=bf16")


COMPILED = ("--preset", "tiny", "--workers", "0", "--threads", "1", "--cpu")


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler to compile with")
def test_a_compiled_network_learns_the_same_and_its_checkpoints_load_without_a_compiler(
    talkers: str, tmp_path: Path, toolkit: Toolkit
) -> None:
    """Same losses and gradients up to rounding; names of the weights are the network's own."""
    steps = ("training.steps=4", "training.save_every=2", "training.evaluate_every=2", "dropout=0")
    run(talkers, tmp_path / "plain", *steps)
    data = ("--data", talkers, "--out", tmp_path / "compiled")
    toolkit("train", "emodiff", *data, *COMPILED, *small(*steps, "training.compile=true"))
    for one, other in zip(log_of(tmp_path / "plain"), log_of(tmp_path / "compiled"), strict=True):
        assert one == pytest.approx(other, rel=1e-3)
    plain, compiled = (tensors_of(tmp_path / name, 4) for name in ("plain", "compiled"))
    assert plain.keys() == compiled.keys()
    for name, value in plain.items():
        torch.testing.assert_close(value, compiled[name], atol=2e-4, rtol=1e-3, msg=name)
    assert checkpoint.load(tmp_path / "compiled").about.step in (2, 4)


def test_without_a_compiler_a_sentence_says_so_before_the_first_step(talkers: str, tmp_path: Path) -> None:
    arguments = command("train", "emodiff", "--data", talkers, "--out", tmp_path / "run", *COMPILED,
                        *small("training.compile=true"))  # fmt: skip
    bare = {"PATH": str(tmp_path), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    found = subprocess.run(arguments, capture_output=True, text=True, check=False, env=bare)
    assert found.returncode == 2, found.stderr
    assert "cannot compile on this machine" in found.stderr and "apt-get install g++" in found.stderr
    assert "Traceback" not in found.stderr


def test_the_learning_rate_rises_and_falls() -> None:
    flat = Training(steps=100, learning_rate=1.0, warmup=4)
    assert [learning_rate(flat, i) for i in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    wave = Training(steps=104, learning_rate=1.0, warmup=4, schedule="cosine")
    assert learning_rate(wave, 54) == pytest.approx(0.5)
    assert learning_rate(wave, 104) == pytest.approx(0.0)
    assert all(learning_rate(wave, i) >= learning_rate(wave, i + 1) for i in range(4, 104))
