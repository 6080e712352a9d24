"""Where weights begin, what is frozen, and that neither is lost or taken for another."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from talkface.errors import ConfigError, WeightsError
from talkface.train import checkpoint
from talkface.train.base import configure
from talkface.train.data import split
from talkface.train.loop import Result, Run, train
from talkface.train.optim import parts_of
from talkface.train.recompute import recompute
from talkface.train.start import Begun, Source, begin, digest, fill
from talkface.weights import Models
from tests.conftest import Toolkit
from tests.train.outside import stages
from tests.train.test_loop import TWO_PROCESSES, log_of, same_after_a_kill, tensors_of

STAGES = "tests.train.outside.stages:Task"
OPTIONS = ("--preset", "tiny", "--threads", "1", "--workers", "0", "--cpu", "--hold-out", "none")
FROZEN = {"encoder.0.weight", "encoder.0.bias", "encoder.1.weight", "encoder.1.bias"}


def run(data: str, out: Path, *changes: str, resume: bool = False, said: list[str] | None = None) -> Result:
    clips, _ = split(data, "none")
    config = configure(STAGES, "tiny", None, changes)
    say = (said if said is not None else list[str]()).append
    return train(STAGES, config, clips, None, out, resume=resume, cpu=True, models=Models(offline=True), say=say)


@pytest.fixture(scope="module")
def first(talkers: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the first stage."""
    out = tmp_path_factory.mktemp("first") / "run"
    run(talkers, out, "training.ema=0.5")
    return out


def second(first: Path, *changes: str) -> tuple[str, ...]:
    return ("stage=2", f"training.start_from={first}", *changes)


def test_the_second_stage_has_the_firsts_encoder_and_says_what_is_new(
    talkers: str, first: Path, tmp_path: Path
) -> None:
    said = list[str]()
    run(talkers, tmp_path / "run", *second(first), said=said)
    line = next(line for line in said if line.startswith("begun from"))
    assert "missing, as the task says: motion.0.0.bias, motion.0.0.weight, motion.1.0.bias, motion.1.0.weight" in line
    assert line.endswith("unexpected, as it says: none") and "of which 4 are frozen" in line
    model, before = checkpoint.load(tmp_path / "run"), checkpoint.load(first)
    state, given = model.net.state_dict(), before.net.state_dict()
    assert all(torch.equal(state[k], given[k]) for k in FROZEN), "frozen bytes are unchanged"
    assert not torch.equal(state["last.weight"], given["last.weight"])
    about = model.about
    assert about.start == [{"name": str(first), "path": str(checkpoint.find(first)), "sha256": before.digest}]
    assert about.frozen == {"model": digest({k: given[k] for k in FROZEN}),
                            "frozen.vae": digest({"weight": torch.eye(52)})}  # fmt: skip
    for name in ("model", "averaged"):
        written = load_file(checkpoint.find(tmp_path / "run") / f"{name}.safetensors")
        assert written.keys() == state.keys() - FROZEN, "but for what is frozen, buffers are written too"


def test_killed_and_resumed_is_the_same_to_the_bit(talkers: str, first: Path, tmp_path: Path, toolkit: Toolkit) -> None:
    """With frozen weights that are in no checkpoint, averages, and blocks that are computed again."""
    changes = second(first, "training.steps=40", "training.save_every=5", "training.keep=9",
                     "training.checkpointing=true")  # fmt: skip
    options = (*OPTIONS, *(part for change in changes for part in ("--set", change)))
    same_after_a_kill(toolkit, tmp_path, "train", STAGES, "--data", talkers, *options, steps=40, at=12)


def test_two_processes_begin_alike(talkers: str, first: Path, tmp_path: Path) -> None:
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    some = [part for change in second(first, "training.steps=2") for part in ("--set", change)]
    arguments = [*TWO_PROCESSES, "-m", "talkface.cli", "train", STAGES, "--data", talkers, *OPTIONS, *some]
    subprocess.run([*arguments, "--out", str(tmp_path)], check=True, capture_output=True, env=environment)
    state, given = (checkpoint.load(out).net.state_dict() for out in (tmp_path, first))
    assert all(torch.equal(state[k], given[k]) for k in FROZEN)


def test_a_source_that_is_gone_or_has_changed_is_told(talkers: str, first: Path, tmp_path: Path) -> None:
    """A run that went on is searched for the checkpoint that was; a moved one is found where it was given."""
    copy, out = tmp_path / "first", tmp_path / "run"
    shutil.copytree(first, copy)
    run(talkers, out, *second(copy))
    newer = copy / "checkpoints" / "00000099"
    shutil.copytree(checkpoint.find(copy), newer)
    save_file({k: v + 1 for k, v in load_file(newer / "averaged.safetensors").items()}, newer / "averaged.safetensors")
    about = json.loads((newer / "checkpoint.json").read_text())
    (newer / "checkpoint.json").write_text(json.dumps(about | {"files": about["files"] | {"averaged": "0" * 64}}))
    assert checkpoint.load(out).about.step == 6
    for path in checkpoint.names(copy)[:-1]:
        shutil.rmtree(path)
    with pytest.raises(WeightsError, match=r"the checkpoint that training began from .* is not there any more"):
        checkpoint.load(out)
    shutil.rmtree(copy)
    with pytest.raises(WeightsError, match="no such folder"):
        run(talkers, out, *second(copy, "training.steps=8"), resume=True)


def test_another_network_outside_is_refused(talkers: str, tmp_path: Path) -> None:
    run(talkers, tmp_path)
    path = checkpoint.find(tmp_path) / "checkpoint.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {"config": about["config"] | {"scale": 2.0}}))
    with pytest.raises(WeightsError, match=r"the frozen weights of frozen\.vae are not those it was trained with"):
        checkpoint.load(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """In diffusers layout: an encoder under names of its own, with a head that nobody wants."""
    torch.manual_seed(1)
    (tmp_path / "pretrained" / "unet").mkdir(parents=True)
    state = stages.Net(1).encoder.state_dict() | {"head.weight": torch.ones(3)}
    save_file(state, tmp_path / "pretrained" / "unet" / "diffusion_pytorch_model.safetensors")
    return tmp_path / "pretrained"


def test_a_folder_in_diffusers_layout(talkers: str, folder: Path, tmp_path: Path) -> None:
    said = list[str]()
    run(talkers, tmp_path / "run", "stage=2", f"training.start_from={folder}", said=said)
    line = next(line for line in said if line.startswith("begun from"))
    assert "last.bias, last.weight, motion.0" in line and "unexpected, as it says: encoder.head.weight" in line
    assert run(talkers, tmp_path / "run", "stage=2", f"training.start_from={folder}", resume=True).step == 6
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({k: v * 2 if v.is_floating_point() else v for k, v in load_file(file).items()}, file)
    with pytest.raises(WeightsError, match="has changed since training began from it"):
        checkpoint.load(tmp_path / "run")


def of(state: dict[str, torch.Tensor], task: str | None = "a") -> Source:
    return Source("there", Path("there"), "0" * 64, task, state)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"encoder.0.weight": None}, r"missing: encoder\.0\.weight \(1\)"),
        ({"more": torch.ones(1)}, r"not of this network: more \(1\)"),
        ({"last.bias": torch.ones(1)}, r"of another shape: last\.bias \(1\)"),
    ],
)
def test_keys_that_the_task_did_not_name_are_refused(change: dict[str, torch.Tensor | None], line: str) -> None:
    """And nothing is loaded in part."""
    config = configure(STAGES, "tiny", None, ["stage=2"])
    task, net, other = stages.Task(config, {}), stages.Net(2), stages.Net(1).state_dict()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    given = {k: v for k, v in (other | change).items() if v is not None}
    with pytest.raises(WeightsError, match=line):
        begin(task, net, [of(given)])
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert begin(task, net, [of(other)]).left_out == FROZEN


def test_without_a_word_of_the_task_all_names_have_to_be_there() -> None:
    class Plain:
        pass

    assert begin(Plain(), stages.Net(1), []) == Begun()
    state = stages.Net(1).state_dict()
    assert begin(Plain(), stages.Net(1), [of(state)]).filled == len(state)
    with pytest.raises(WeightsError, match="missing: motion"):
        begin(Plain(), stages.Net(2), [of(state)])
    with pytest.raises(WeightsError, match=r"not of this network: last\.bias"):
        fill(stages.Net(1), state, "here", frozenset({"last.bias"}))


@pytest.mark.parametrize(("content", "line"), [(b"{", "cannot be read as weights"), (None, "no weights in it")])
def test_a_folder_without_weights(folder: Path, content: bytes | None, line: str) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.unlink()
    if content:
        file.write_bytes(content)
    with pytest.raises(WeightsError, match=line):
        Source("there", folder, "0" * 64).weights("unet")


def test_a_file_that_holds_code_is_not_run(tmp_path: Path) -> None:
    """Weights as PyTorch saves them are read; whatever else a pickle asks for is refused."""
    torch.save({"state_dict": {"a": torch.ones(2)}}, tmp_path / "good.pth")
    assert torch.equal(Source("x", tmp_path / "good.pth", "").weights()["a"], torch.ones(2))
    torch.save({"a": Path("x")}, tmp_path / "bad.pth")
    with pytest.raises(WeightsError, match="holds more than tensors"):
        Source("x", tmp_path / "bad.pth", "").weights()


def test_patterns_say_what_is_trained(talkers: str, tmp_path: Path) -> None:
    """What no source gave is written, frozen or not; a pattern that matches nothing is a mistake."""
    clips, _ = split(talkers, "none")

    def started(pattern: str) -> Run:
        config = configure(STAGES, "tiny", None, [f"training.trainable={pattern}"])
        return Run(STAGES, config, clips, None, tmp_path, Accelerator(cpu=True), resume=False, say=lambda text: None)

    made = started("last.*")
    assert {n for n, p in made.model.named_parameters() if p.requires_grad} == {"last.weight", "last.bias"}
    assert made.weights().keys() == made.model.state_dict().keys() and made.frozen.keys() == {"frozen.vae"}
    with pytest.raises(ConfigError, match=r"training\.trainable: lst\.\* matches none of encoder\.0\.weight"):
        started("lst.*")


def test_computed_again_is_the_same_to_the_bit_and_keeps_less(talkers: str, tmp_path: Path) -> None:
    """Dropout too; blocks with batch normalisation would count a batch twice, and are left alone."""
    clips, held = split(talkers)
    said, losses = dict[bool, list[str]](), []
    for again in (False, True):
        some = (f"training.checkpointing={again}".lower(), "training.steps=3", "training.log_every=1", "dropout=0.1",
                "width=32", "heads=2", "training.batch_size=8", "training.evaluate_batches=1")  # fmt: skip
        config, out = configure("emodiff", "tiny", None, some), tmp_path / str(again)
        train("emodiff", config, clips, held, out, cpu=True, say=said.setdefault(again, []).append)
        losses.append(log_of(out))
    assert losses[0] == losses[1]
    one, other = (tensors_of(tmp_path / str(again), 3) for again in (False, True))
    assert all(torch.equal(v, other[k]) for k, v in one.items())
    kept = [float(re.search(r"([\d.]+) MB activations", said[again][1])[1]) for again in (False, True)]
    assert kept[1] < kept[0] / 2
    with pytest.raises(ConfigError, match="no blocks whose activations"):
        recompute(stages.Task(configure(STAGES, "tiny"), {}), stages.Net(1))


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_without_its_library_the_8_bit_optimizer_is_refused_in_a_sentence() -> None:
    config = configure(STAGES, "tiny", None, ["training.optimizer=adamw8bit"])
    with pytest.raises(ConfigError, match="pip install bitsandbytes; or take adamw"):
        parts_of(stages.Task(config, {}), stages.Net(1), config.training)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="no bitsandbytes")
def test_8_bit_moments_go_on_to_the_bit(talkers: str, tmp_path: Path) -> None:
    clips, _ = split(talkers, "none")
    for name, ends in (("whole", (4,)), ("cut", (2, 4))):
        for end in ends:
            config = configure("emodiff", "tiny", None, ["training.optimizer=adamw8bit", f"training.steps={end}",
                                                         "training.batch_size=4"])  # fmt: skip
            train("emodiff", config, clips, None, tmp_path / name, resume=end != ends[0], cpu=True)
    whole, cut = (tensors_of(tmp_path / name, 4) for name in ("whole", "cut"))
    assert whole.keys() == cut.keys() and all(torch.equal(v, cut[k]) for k, v in whole.items())
