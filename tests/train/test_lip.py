"""Lip refinement: the mouth is replaced and nothing else, neutral clips teach Audio2BS, the expert judges."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from talkface.datasets.loading.loader import Batch
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError, WeightsError
from talkface.motion import Motion, steady_pts
from talkface.nets.cca import RegressedShapes
from talkface.nets.lip import AudioToShapes, LipNet, RowEncoder
from talkface.train import checkpoint
from talkface.train.base import configure
from talkface.train.data import split, training_loader
from talkface.train.inputs.mouth import CHUNK, average_windows, every_window, mouth_of, sound_of
from talkface.train.loop import train
from talkface.train.protocols import Speech, Style
from talkface.train.tasks.lip import LipConfig, Task
from talkface.vocab import ARKIT, MOUTH
from tests.train.making import make

SMALL = ("hidden=16", "training.batch_size=4")


def lip(*changes: str) -> LipConfig:
    config = configure("lip", "tiny", None, (*SMALL, *changes))
    assert isinstance(config, LipConfig)
    return config


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def task(talkers: str) -> Task:
    return Task(lip(), Task.learn(lip(), Dataset(talkers)))


@pytest.fixture(scope="module")
def net(task: Task) -> LipNet:
    torch.manual_seed(0)
    return task.build().eval()


@pytest.fixture(scope="module")
def batch(task: Task, talkers: str) -> Batch:
    return next(iter(training_loader(Dataset(talkers), task.config)))


def test_the_papers_network() -> None:
    """Convolutions 29-32-32-64-64 with kernel 3 and stride 2 over 16 rows, LSTM 3 x 256, 27 shapes in 0..1."""
    net = AudioToShapes(29, 27, 256, 3, 0.0)
    shapes = [tuple(m.weight.shape) for m in net.rows.layers if isinstance(m, torch.nn.Conv1d)]
    assert shapes == [(32, 29, 3), (32, 32, 3), (64, 32, 3), (64, 64, 3)]
    assert (net.memory.num_layers, net.memory.hidden_size) == (3, 256)
    made, found = net(torch.randn(2, 8, 16 * 29 + 1))
    assert made.shape == (2, 8, 27) and found.shape == (2, 8, 256)
    assert ((made > 0) & (made < 1)).all()
    assert RowEncoder(29)(torch.randn(5, 16 * 29 + 1)).shape == (5, 65)


def test_the_papers_windows() -> None:
    config = configure("lip", "paper")
    assert isinstance(config, LipConfig)
    assert (config.frames, config.rate, config.sound, config.neutral) == (8, 25.0, "ctc", "labelled")
    assert (config.velocity, config.sync) == (10.0, 0.03)
    assert (config.training.batch_size, config.training.learning_rate) == (32, 1e-4)


def motion_of(frames: int, seed: int = 0) -> Motion:
    rng = np.random.default_rng(seed)
    arkit = rng.random((frames, 52)).astype(np.float32)
    arkit[2:3] = np.nan
    return Motion(pts_ns=steady_pts(frames, 25), arkit=arkit, head=rng.random((frames, 7)).astype(np.float32), fps=25)


def speech_for(dataset: Dataset, key: str) -> Speech:
    arrays = dataset.arrays(key, ["mel"])
    return Speech(np.zeros(16000, np.int16), {"mel": arrays["mel"]})


@pytest.mark.parametrize("frames", [1, 5, 8, 60])
def test_the_mouth_is_replaced_and_everything_else_untouched(
    task: Task, net: LipNet, talkers: str, frames: int
) -> None:
    motion = motion_of(frames)
    style = Style(motion_of(30, 1).arkit[3:], np.zeros((27, 7), np.float32))
    dataset = Dataset(talkers)
    key = next(k for k in dataset.keys() if "neutral" in k)  # noqa: SIM118
    made = task.refine(net, motion, speech_for(dataset, key), style)
    mouth = [ARKIT.index(n) for n in MOUTH]
    others = [i for i in range(52) if i not in mouth]
    assert np.array_equal(made.arkit[:, others], motion.arkit[:, others], equal_nan=True)
    assert np.array_equal(made.head, motion.head) and np.array_equal(made.pts_ns, motion.pts_ns)
    assert (made.arkit[:, mouth] != motion.arkit[:, mouth]).any(axis=1).all()
    assert ((made.arkit[:, mouth] >= 0) & (made.arkit[:, mouth] <= 1)).all()


def test_a_long_sound_goes_through_in_parts(task: Task, net: LipNet) -> None:
    """As many windows as frames, and never all of them at once."""
    frames, style = 2 * CHUNK + 40, torch.rand(8, 52)
    rows = np.random.default_rng(0).normal(-5, 1, (frames * 4, 80)).astype(np.float32)
    sizes = list[int]()
    hook = net.register_forward_hook(lambda module, given, found: sizes.append(len(found[0])))
    plain, refined = task.mouth(net, rows, steady_pts(frames, 25), style)
    hook.remove()
    sound = every_window(sound_of(task.sound, rows, steady_pts(frames, 25), 25.0)[0], task.config.frames)
    assert max(sizes) == CHUNK and sum(sizes) == len(sound)
    with torch.no_grad():
        neutral, residue = net(sound, style.expand(len(sound), -1, -1))
    assert np.allclose(plain, average_windows(neutral).numpy(), atol=1e-6)
    assert np.allclose(refined, average_windows(neutral + residue).clamp(0, 1).numpy(), atol=1e-6)


@pytest.mark.parametrize("fps", [24.0, 30.0, 60.0])
def test_motion_of_another_rate_gets_the_mouth_of_its_own_times(
    task: Task, net: LipNet, talkers: str, fps: float
) -> None:
    """Jaw and mouth pass through what the model's own rate gives, and reach the last frame."""
    dataset = Dataset(talkers)
    speech = speech_for(dataset, dataset.keys()[0])
    style = Style(motion_of(30, 1).arkit[3:], np.zeros((27, 7), np.float32))
    steady, other = motion_of(51), motion_of(round(2 * fps) + 1)
    other = replace(other, pts_ns=steady_pts(len(other), fps), fps=fps)
    one, two = (task.refine(net, m, speech, style) for m in (steady, other))
    jaw = ARKIT.index("jawOpen")
    expected = np.interp(other.pts_ns, steady.pts_ns, one.arkit[:, jaw])
    assert np.allclose(two.arkit[:, jaw], expected, atol=1e-5) and np.isfinite(two.arkit[:, jaw]).all()
    assert one.arkit[:, jaw].std() > 1e-4, "a still mouth is the same at all times"


def test_only_neutral_clips_teach_the_neutral_mouth(talkers: str) -> None:
    config = lip("neutral=labelled")
    task = Task(config, Task.learn(config, Dataset(talkers)))
    torch.manual_seed(0)
    net = task.build()
    batch = next(iter(training_loader(Dataset(talkers), config)))
    batch["emotion"] = ["happy"] * len(batch["emotion"])
    task.step(net, batch, draw(), "all").loss.backward()
    assert all(p.grad is None or (p.grad == 0).all() for p in net.neutral.parameters())
    assert any(p.grad is not None and (p.grad != 0).any() for p in net.residue.parameters())
    batch["emotion"] = ["neutral"] * len(batch["emotion"])
    task.step(net, batch, draw(), "all").loss.backward()
    assert any(p.grad is not None and (p.grad != 0).any() for p in net.neutral.parameters())


def test_missing_frames_do_not_reach_the_loss(task: Task, net: LipNet, batch: Batch) -> None:
    broken = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    loss = task.step(net, broken, draw(), "all").loss
    broken["arkit"][:, :, ARKIT.index("browInnerUp")] = 7.0
    assert torch.equal(task.step(net, broken, draw(), "all").loss, loss), "the brows are not the mouth's"
    broken["arkit"][:, task.config.context + 2] = torch.nan
    found = task.step(net, broken, draw(), "all").loss
    assert torch.isfinite(found) and not torch.equal(found, loss)


def test_data_without_a_neutral_clip(tmp_path: Path) -> None:
    url = make(tmp_path / "dataset", (("p0", "happy"), ("p1", "sad")))
    with pytest.raises(ConfigError, match=r"no clip is neutral\. Learn from all: --set neutral=all"):
        Task.learn(lip("neutral=labelled"), Dataset(url))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, strangers: str) -> dict[str, Path]:
    """A sync expert that has learned, and a lip model that it taught."""
    home = tmp_path_factory.mktemp("lip")
    clips, held = split(strangers, "p2")
    some = ("training.batch_size=16", "training.ema=0.9", "training.save_every=500", "stride=2")
    expert = configure("sync_expert", "tiny", None, (*some, "training.steps=10", "training.evaluate_every=10"))
    train("sync_expert", expert, clips, held, home / "expert", cpu=True, say=lambda _: None)
    config = lip(f"sync_run={home / 'expert'}", "hidden=32", "training.steps=60", "training.evaluate_every=30", *some)
    train("lip", config, clips, held, home / "lip", cpu=True, say=lambda _: None)
    return {"expert": home / "expert", "lip": home / "lip"}


def test_it_learns_to_follow_the_sound(runs: dict[str, Path], strangers: str) -> None:
    """On a speaker that it never saw, jawOpen goes with the real one."""
    model = checkpoint.load(runs["lip"])
    _, held = split(strangers, "p2")
    assert held is not None
    rs = []
    for key in held.keys():  # noqa: SIM118
        arrays = held.arrays(key, ["arkit", "mel"])
        made, _ = model.task.mouth(model.net, arrays["mel"], steady_pts(80, 25), torch.zeros(8, 52))  # type: ignore[attr-defined]
        real = arrays["arkit"][:80, ARKIT.index("jawOpen")]
        known = np.isfinite(real)
        rs.append(np.corrcoef(real[known], made[known, MOUTH.index("jawOpen")])[0, 1])
    assert min(rs) > 0.9


def test_a_judged_run_names_its_expert(runs: dict[str, Path], talkers: str) -> None:
    model, expert = checkpoint.load(runs["lip"]), checkpoint.load(runs["expert"])
    assert model.about.facts["expert"] == expert.digest
    other = Task(lip(f"sync_run={runs['expert']}"), {**model.about.facts, "expert": "0" * 64})
    batch = next(iter(training_loader(Dataset(talkers), other.config)))
    with pytest.raises(WeightsError, match="not the sync expert that this training began with"):
        other.step(other.build(), batch, draw(), "all")


def test_an_expert_that_has_not_learned_may_not_teach(tmp_path: Path, runs: dict[str, Path], talkers: str) -> None:
    """Each kind of expert is asked by its own loss: of who guesses between two sounds it is 0.693."""
    with pytest.raises(ConfigError, match="was never evaluated on held-out clips"):
        Task.learn(lip(f"sync_run={tmp_path}"), Dataset(talkers))
    poor = tmp_path / "poor"
    shutil.copytree(runs["expert"], poor)
    written = checkpoint.find(poor) / "checkpoint.json"
    for found, line in (
        ({"loss": 0.69, "auc": 0.9}, r"has a held-out loss of 0.690; below 0.68 it may teach"),
        ({"loss": 0.5, "auc": 0.55}, r"an area under the curve of 0.55 on what is held out; from 0.6 on it may teach"),
        ({"loss": 0.5}, r"an area under the curve of nan"),
    ):
        written.write_text(json.dumps(json.loads(written.read_text()) | {"held": found}))
        with pytest.raises(ConfigError, match=line):
            Task.learn(lip(f"sync_run={poor}"), Dataset(talkers))
    with pytest.raises(ConfigError, match=r"judges 8 frames at 25 a second; windows here have 8 at 30"):
        Task.learn(lip(f"sync_run={runs['expert']}", "rate=30"), Dataset(talkers))


def test_the_expert_judges_where_it_hears_and_where_a_mouth_was_seen(runs: dict[str, Path], talkers: str) -> None:
    model = checkpoint.load(runs["lip"])
    assert isinstance(model.task, Task)
    task = model.task
    middle = slice(task.config.context, task.config.context + task.config.frames)
    batch = next(iter(training_loader(Dataset(talkers), task.config)))
    batch = {k: v.nan_to_num(0.1) if isinstance(v, torch.Tensor) and v.is_floating_point() else v
             for k, v in batch.items()}  # fmt: skip
    made = torch.rand(len(batch["key"]), task.config.frames, len(MOUTH))

    def judged(task: Task, **changes: object) -> list[bool]:
        """Which clips the expert's loss depends on."""
        refined = made.clone().requires_grad_()
        loss = task.judge(refined, mouth_of(batch | changes, task.facts["mouth"]), batch | changes)
        loss.backward()
        assert refined.grad is not None and torch.isfinite(loss) and torch.isfinite(refined.grad).all()
        return (refined.grad.abs().amax((1, 2)) > 0).tolist()

    silent, unseen = batch["mel"].clone(), batch["arkit"].clone()
    silent[0], unseen[0, middle] = torch.nan, torch.nan
    astray = Task(task.config, {**task.facts, "unfit": [batch["key"][0]]})
    assert all(judged(task))
    assert judged(task, mel=silent) == judged(task, arkit=unseen) == [False, *[True] * (len(made) - 1)]
    assert judged(astray) == [key != batch["key"][0] for key in batch["key"]]
    assert not any(judged(task, mel=torch.full_like(silent, torch.nan)))


@pytest.fixture(scope="module")
def regressed(strangers: str) -> Task:
    config = lip("start=ridge", "frames=32", "correlation=1.0", "velocity=1.0")
    return Task(config, Task.learn(config, split(strangers, "p2")[0]))


def test_a_regression_is_where_training_starts(regressed: Task, strangers: str) -> None:
    """Before its first step it already follows a stranger's sound, and no style changes it."""
    _, held = split(strangers, "p2")
    assert held is not None
    torch.manual_seed(0)
    net = regressed.build().eval()
    for key in held.keys():  # noqa: SIM118
        arrays = held.arrays(key, ["arkit", "mel"])
        plain, refined = regressed.mouth(net, arrays["mel"], steady_pts(140, 25), torch.rand(8, 52))
        real = arrays["arkit"][:140, ARKIT.index("jawOpen")]
        known = np.isfinite(real)
        assert np.corrcoef(real[known], plain[known, MOUTH.index("jawOpen")])[0, 1] > 0.85
        assert np.array_equal(plain, refined)


def test_a_refined_mouth_smiles_as_its_style_does(regressed: Task, strangers: str) -> None:
    """With ``level=style`` an unseen person's smile stays, and the jaw follows the sound as far as the style's goes."""
    _, held = split(strangers, "p2")
    assert held is not None
    styled = Task(lip("start=ridge", "frames=32", "level=style"), regressed.facts)
    net, key = regressed.build().eval(), held.keys()[0]
    real = held.arrays(key, ["arkit"])["arkit"]
    smile, jaw = ARKIT.index("mouthSmileLeft"), ARKIT.index("jawOpen")
    look = np.nan_to_num(real[np.isfinite(real).any(axis=1)])
    look[:, smile] = 0.6
    style, motion = Style(look, np.zeros((len(look), 7), np.float32)), motion_of(140)
    (plain, made) = (t.refine(net, motion, speech_for(held, key), style).arkit for t in (regressed, styled))
    assert made[:, smile].mean() == pytest.approx(0.6, abs=0.02) and abs(plain[:, smile].mean() - 0.6) > 0.1
    known = np.isfinite(real[:140, jaw])
    assert np.corrcoef(real[:140, jaw][known], made[known, jaw])[0, 1] > 0.85
    assert made[:, jaw].std() == pytest.approx(look[:, jaw].std(), rel=0.15)


def test_a_quieter_microphone_makes_the_same_mouth(regressed: Task, strangers: str) -> None:
    """Mel is a logarithm: what a gain or a filter adds to each band is taken away."""
    dataset = Dataset(strangers)
    rows = dataset.arrays(dataset.keys()[0], ["mel"])["mel"].astype(np.float32) + 3
    net = regressed.build().eval()
    (one, _), (other, _) = (
        regressed.mouth(net, r, steady_pts(60, 25), torch.zeros(8, 52)) for r in (rows, rows - np.linspace(0, 2, 80))
    )
    assert np.allclose(one, other, atol=1e-3) and one.std(axis=0).max() > 0.01


def test_what_is_learned_on_top_lowers_the_loss(regressed: Task, strangers: str) -> None:
    torch.manual_seed(0)
    net = regressed.build()
    assert isinstance(net.neutral, RegressedShapes)
    batch = next(iter(training_loader(Dataset(strangers), regressed.config)))
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = regressed.step(net, batch, draw(), "all").loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.01


def test_clips_that_fit_nowhere_teach_nothing(regressed: Task, strangers: str) -> None:
    batch = next(iter(training_loader(Dataset(strangers), regressed.config)))
    astray = Task(regressed.config, {**regressed.facts, "unfit": list(batch["key"])})
    assert regressed.prepare(batch, draw())[3].any() and not astray.prepare(batch, draw())[3].any()


def test_a_ridge_needs_mel() -> None:
    with pytest.raises(ConfigError, match="start=ridge needs sound=mel or sound=speech, not ctc"):
        lip("start=ridge", "sound=ctc")
    with pytest.raises(ConfigError, match="level=style needs start=ridge"):
        lip("level=style")


def test_style_frames_change_the_refined_mouth_and_not_the_neutral_one(task: Task, net: LipNet, talkers: str) -> None:
    dataset = Dataset(talkers)
    rows = dataset.arrays(dataset.keys()[0], ["mel"])["mel"]
    looks = [torch.zeros(8, 52), torch.ones(8, 52)]
    (plain, one), (same, other) = (task.mouth(net, rows, steady_pts(20, 25), look) for look in looks)
    assert np.array_equal(plain, same) and np.abs(one - other).max() > 1e-4


def test_shapes_that_the_data_never_had_stay(task: Task, net: LipNet, talkers: str) -> None:
    valid = [name != "jawLeft" for name in MOUTH]
    part = Task(task.config, {**task.facts, "mouth": {**task.facts["mouth"], "valid": valid}})
    motion = replace(motion_of(20), arkit=np.full((20, 52), 0.25, np.float32))
    dataset = Dataset(talkers)
    made = part.refine(net, motion, speech_for(dataset, dataset.keys()[0]), Style(motion.arkit, motion.head))
    assert (made.arkit[:, ARKIT.index("jawLeft")] == 0.25).all()
