"""EmoDiff: the condition matrix cell by cell, Alg. 1 for every length, masks, guidance, and a model that learns."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from talkface.datasets.loading.loader import Batch
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError
from talkface.motion import Motion
from talkface.nets.emodiff import Denoiser, Fade, alignment, condition_rows
from talkface.train import checkpoint
from talkface.train.base import TaskConfig, configure
from talkface.train.checkpoint import Model
from talkface.train.data import split, training_loader
from talkface.train.diffusion import schedule_facts
from talkface.train.loop import train
from talkface.train.protocols import Speech, Style
from talkface.train.tasks.emodiff import (
    EmoDiffConfig,
    EmoDiffSampling,
    Task,
    condition_matrix,
    draw_frames,
    window_starts,
)
from talkface.vocab import ARKIT
from tests.train.making import RAISED, make

SMALL = ("width=32", "layers=1", "heads=2", "sound_width=8", "stride=8", "training.batch_size=4")


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def task(talkers: str) -> Task:
    """The papers' objective: what `Echo` gives is a noise."""
    config = emodiff("noise.predict=epsilon", "noise.schedule=linear", "fade=0", "velocity=0")
    return Task(config, Task.learn(config, Dataset(talkers)))


def emodiff(*changes: str) -> EmoDiffConfig:
    config: TaskConfig = configure("emodiff", "tiny", None, (*SMALL, *changes))
    assert isinstance(config, EmoDiffConfig)
    return config


@pytest.fixture(scope="module")
def batch(task: Task, talkers: str) -> Batch:
    return next(iter(training_loader(Dataset(talkers), task.config)))


def net_of(task: Task) -> torch.nn.Module:
    torch.manual_seed(0)
    return task.build().eval()


def test_the_condition_matrix_cell_by_cell() -> None:
    """Fig. 3 for N = 32: row 0 the initial state, rows 15 to 17 the style frames, the flag 1 there; else zero."""
    initial, style = torch.full((2, 3), 7.0), torch.arange(1.0, 19).reshape(2, 3, 3)
    matrix = condition_matrix(initial, style, 32)
    expected = torch.zeros(2, 32, 4)
    for i in range(2):
        expected[i, 0] = torch.tensor([7.0, 7, 7, 1])
        for k, row in enumerate((15, 16, 17)):
            expected[i, row] = torch.tensor([*style[i, k].tolist(), 1])
    assert torch.equal(matrix, expected)
    assert condition_rows(8) == [0, 3, 4, 5]


def test_a_condition_frame_without_a_face_says_so() -> None:
    initial, style = torch.full((1, 3), torch.nan), torch.ones(1, 3, 3)
    style[0, 1, 2] = torch.nan
    matrix = condition_matrix(initial, style, 8)
    assert (matrix[0, 0] == 0).all()
    assert matrix[0, 4].tolist() == [1, 1, 0, 1]


@pytest.mark.parametrize(
    ("frames", "starts"),
    [(1, [0]), (31, [0]), (32, [0]), (33, [0, 31]), (63, [0, 31]), (64, [0, 31, 62]), (1000, list(range(0, 999, 31)))],
)
def test_windows_of_algorithm_1(frames: int, starts: list[int]) -> None:
    assert window_starts(frames, 32) == starts


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(4, 40))
def test_windows_cover_every_frame_and_none_is_useless(frames: int, n: int) -> None:
    starts = window_starts(frames, n)
    assert starts[-1] + n >= frames
    assert all(b - a == n - 1 for a, b in itertools.pairwise(starts))
    assert len(starts) == 1 or starts[-1] + 1 < frames, "the last window would only repeat a frame"


class Echo(torch.nn.Module):
    """Predicts the noise that leaves ``x0`` equal to the frame's number in the whole, carried from window to window."""

    def __init__(self, bar: torch.Tensor) -> None:
        super().__init__()
        self.bar, self.seen = bar, list[torch.Tensor]()

    def forward(
        self, x: torch.Tensor, t: torch.Tensor, condition: torch.Tensor, sound: torch.Tensor, drop: torch.Tensor
    ) -> torch.Tensor:
        self.seen.append(condition)
        x0 = condition[:, :1, :-1] + torch.arange(x.shape[1])[None, :, None]
        at = self.bar[t][:, None, None]
        return (x - at.sqrt() * x0) / (1 - at).sqrt()


@pytest.mark.parametrize("frames", [1, 31, 32, 33, 63, 64, 1000])
def test_long_sampling_goes_on_where_a_window_ended(task: Task, frames: int) -> None:
    """Each window starts from the last frame of the one before, and that frame is given out once."""
    echo = Echo(task.bar)
    starts = window_starts(frames, 32)
    sound = [torch.zeros(1, 32, task.sound.width)] * len(starts)
    style = torch.zeros(5, len(task.state))
    how = EmoDiffSampling(sampler="ddim", steps=4, guidance=0)
    made = task.long(echo, sound, style, frames, draw(), how, variants=2)
    assert made.shape == (2, frames, len(task.state))
    expected = torch.arange(frames, dtype=torch.float32)[None, :, None].expand_as(made)
    torch.testing.assert_close(made, expected, atol=0.05 * len(starts), rtol=1e-3)


def test_without_feedback_windows_start_from_the_style(task: Task) -> None:
    echo = Echo(task.bar)
    sound = [torch.zeros(1, 32, task.sound.width)] * 2
    how = EmoDiffSampling(sampler="ddim", steps=4, guidance=0, feedback=False)
    made = task.long(echo, sound, torch.zeros(5, len(task.state)), 63, draw(), how)
    assert made[0, 31, 0] == pytest.approx(31, abs=0.1)
    assert made[0, 32, 0] == pytest.approx(1, abs=0.1)


def test_every_window_has_style_frames_of_its_own(task: Task) -> None:
    echo = Echo(task.bar)
    style = torch.arange(100.0)[:, None].expand(-1, len(task.state))
    sound = [torch.zeros(1, 32, task.sound.width)] * 3
    task.long(echo, sound, style, 90, draw(), EmoDiffSampling(sampler="ddim", steps=1, guidance=0))
    rows = torch.stack([c[0, [15, 16, 17], 0] for c in echo.seen])
    assert len({tuple(r.tolist()) for r in rows}) == 3
    assert all(len(set(r.tolist())) == 3 for r in rows), "three different frames"


def test_random_frames_are_ones_with_a_face() -> None:
    frames = torch.arange(40.0).reshape(2, 20, 1).clone()
    frames[:, ::2] = torch.nan
    for seed in range(50):
        assert torch.isfinite(draw_frames(frames, 3, draw(seed))).all()
    few = draw_frames(frames[:, :2], 3, draw())
    assert few.shape == (2, 3, 1)
    drawn = torch.cat([draw_frames(frames, 3, draw(s))[0, :, 0] for s in range(300)])
    counts = torch.bincount(drawn.long(), minlength=20)[1::2].float()
    assert (counts / counts.sum() - 0.1).abs().max() < 0.04, "each as often as any other"


def test_missing_values_do_not_reach_the_loss(task: Task, batch: Batch) -> None:
    """Whatever stands where the mask is false, the loss is the same; and no NaN gets in."""
    net = net_of(task)
    assert torch.isfinite(task.step(net, batch, draw(), "all").loss)
    config = emodiff("velocity=2", "fade=0")
    of_x0 = Task(config, task.facts | {"noise": schedule_facts(config.noise)})
    x0, mask, given = of_x0.prepare(batch, draw())
    assert not mask[..., task.state.names.index("tongueOut")].any()
    assert not mask.all(-1).any(), "tongueOut is in every frame"
    assert (x0[~mask] == 0).all()
    t, keep = torch.full((len(x0),), 100), torch.zeros(len(x0), dtype=torch.bool)

    def loss_at(values: torch.Tensor) -> torch.Tensor:
        # A network would see the noisy state everywhere; what is looked at here is the loss alone.
        blind = lambda x, *_: torch.zeros_like(x)  # noqa: E731
        return of_x0.error(blind, values, mask, given, t, keep, draw())[0]  # type: ignore[arg-type]

    assert torch.equal(loss_at(x0), loss_at(torch.where(mask, x0, 1e6)))
    assert not torch.equal(loss_at(x0), loss_at(torch.where(mask, x0 + 1, x0))), "and what is known does"
    assert torch.isfinite(task.error(net, x0, mask, given, t, keep, draw())[0])


def test_dropped_windows_see_neither_condition_nor_sound(task: Task, batch: Batch) -> None:
    net = net_of(task)
    x0, _, (condition, sound) = task.prepare(batch, draw())
    n = len(x0)
    t, drop = torch.full((n,), 50), torch.arange(n) % 2 == 0
    one = net(x0, t, condition, sound, drop)
    other = net(x0, t, condition + 1, sound - 1, drop)
    torch.testing.assert_close(one[drop], other[drop])
    assert (one[~drop] - other[~drop]).abs().max() > 1e-3


def test_guidance_zero_is_the_conditional_alone(task: Task, batch: Batch) -> None:
    net = net_of(task)
    _, _, (condition, sound) = task.prepare(batch, draw())
    zero, small, none = (
        task.draw_windows(net, condition, sound, draw(3), EmoDiffSampling(steps=5, guidance=w)) for w in (0, 1e-6, -1)
    )
    torch.testing.assert_close(zero, small, atol=1e-3, rtol=1e-3)
    assert (zero - none).abs().max() > 1e-2


def test_guidance_leaves_the_initial_frame(task: Task, batch: Batch) -> None:
    """However strong it is, a window starts from the frame that it was given."""
    config = emodiff()
    fading = Task(config, task.facts | {"noise": schedule_facts(config.noise)})
    _, _, (condition, sound) = fading.prepare(batch, draw())
    made = fading.draw_windows(net_of(fading), condition, sound, draw(), EmoDiffSampling(steps=5, guidance=5))
    there = condition[:, 0, -1] > 0
    torch.testing.assert_close(made[there, 0], condition[there, 0, :-1], atol=1e-4, rtol=1e-4)
    assert there.any() and (made[there, 20] - condition[there, 0, :-1]).abs().max() > 0.1


@pytest.mark.parametrize("conditioning", ["concat", "cross"])
def test_the_network_takes_its_conditions(conditioning: str) -> None:
    torch.manual_seed(0)
    net = Denoiser(state=5, frames=8, sound=4, width=16, layers=1, heads=2, conditioning=conditioning).eval()  # type: ignore[arg-type]
    x, t = torch.randn(2, 8, 5), torch.tensor([3, 400])
    condition, sound = condition_matrix(torch.randn(2, 5), torch.randn(2, 3, 5), 8), torch.randn(2, 8, 4)
    keep = torch.zeros(2, dtype=torch.bool)
    base = net(x, t, condition, sound, keep)
    assert base.shape == x.shape
    for other in (net(x, t + 50, condition, sound, keep), net(x, t, condition * 2, sound, keep)):
        assert (base - other).abs().max() > 1e-4
    late = sound.clone()
    late[:, 6:] += 3
    moved = (net(x, t, condition, late, keep) - base).abs().amax(-1)
    assert (moved[:, 7] > 1e-4).all()


def test_x0_fades_from_the_initial_frame_to_the_style() -> None:
    """a_i initial + (1 - a_i) (mean style + change), a_i = exp(-i / fade); a frame that is missing has no part."""
    style, change = torch.tensor([1.0, 2, 6]).expand(1, 2, 3).transpose(1, 2), torch.full((1, 8, 2), 0.5)
    condition = condition_matrix(torch.full((1, 2), 10.0), style, 8)
    held = torch.exp(-torch.arange(8.0) / 2)
    found = Fade(8, 2.0)(change, condition)
    assert torch.equal(found[0, 0], torch.full((2,), 10.0))
    torch.testing.assert_close(found[0, :, 0], held * 10 + (1 - held) * 3.5)
    lost = condition_matrix(torch.full((1, 2), torch.nan), style.clone().index_fill(1, torch.tensor(1), torch.nan), 8)
    torch.testing.assert_close(Fade(8, 2.0)(change, lost), torch.full((1, 8, 2), 3.5 + 0.5))


def test_without_a_condition_nothing_fades() -> None:
    torch.manual_seed(0)
    net = Denoiser(state=2, frames=8, sound=4, width=16, layers=1, heads=2, fade=4).eval()
    x, t, sound = torch.randn(2, 8, 2), torch.tensor([3, 3]), torch.randn(2, 8, 4)
    one, other = (condition_matrix(torch.full((2, 2), v), torch.full((2, 3, 2), v), 8) for v in (1.0, 9.0))
    drop = torch.tensor([False, True])
    made = net(x, t, one, sound, drop), net(x, t, other, sound, drop)
    assert torch.equal(made[0][1], made[1][1])
    assert (made[0][0, 0] == 1).all() and (made[1][0, 0] == 9).all()


def test_steps_weigh_in_the_loss_where_both_frames_are_known(task: Task, batch: Batch) -> None:
    """What is off by the same everywhere has no error of its steps; `velocity` adds what changes, where it is known."""
    config = emodiff("velocity=2", "fade=0")
    moving = Task(config, task.facts | {"noise": schedule_facts(config.noise)})
    x0, mask, given = moving.prepare(batch, draw())
    keep, t = torch.zeros(len(x0), dtype=torch.bool), torch.zeros(len(x0), dtype=torch.long)
    zigzag = torch.where(torch.arange(32) % 2 == 0, 1.0, -1.0)[None, :, None].expand_as(x0)

    def error(off: torch.Tensor) -> float:
        return float(moving.error(lambda *_: x0 + off, x0, mask, given, t, keep, draw())[0])  # type: ignore[arg-type]

    assert not mask.all()
    assert error(torch.ones_like(x0)) == pytest.approx(1)
    assert error(zigzag) == pytest.approx(1 + 2 * 2**2)


def test_fading_is_of_x0() -> None:
    with pytest.raises(ConfigError, match=r"noise\.predict=x0"):
        emodiff("fade=4", "noise.predict=epsilon")


def test_sound_reaches_the_frames_around_it() -> None:
    """In `cross`, a frame may look at sound two frames away, and at the four filled rows of the condition."""
    barrier = alignment(8, 2)
    assert barrier.shape == (8, 16)
    assert [int(i) for i in torch.where(~barrier[4, :8])[0]] == [2, 3, 4, 5, 6]
    assert [int(i) for i in torch.where(~barrier[0, 8:])[0]] == [0, 3, 4, 5]


def test_the_papers_network() -> None:
    """8 blocks of width 512: 25.5 M parameters with wav2vec 2.0's 768 features."""
    config = configure("emodiff", "paper")
    assert isinstance(config, EmoDiffConfig)
    net = Denoiser(state=55, frames=32, sound=769, width=config.width, layers=config.layers, heads=config.heads,
                   sound_width=config.sound_width)  # fmt: skip
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(25.5e6, rel=0.01)
    assert (config.training.learning_rate, config.training.batch_size, config.noise.steps) == (4e-4, 64, 500)
    assert config.frames == 32 and config.fps == 25


def test_style_frames_come_from_the_same_clip_unless_told(talkers: str) -> None:
    for style, same in (("clip", "key"), ("speaker", "speaker")):
        loader = training_loader(Dataset(talkers), emodiff(f"style={style}"))
        batch = next(iter(loader))
        if style == "clip":
            assert batch["companion"]["key"] == batch["key"]
        speakers = [[k.split("-")[0] for k in of["key"]] for of in (batch, batch["companion"])]
        assert speakers[0] == speakers[1], same


def speech_of_noise(task: Task, seconds: float) -> Speech:
    rows = round((seconds + 4) * 80)
    mel = np.random.default_rng(0).normal(-5, 1, (rows, 80)).astype(np.float16)
    return Speech(np.zeros(round(seconds * 16000), np.int16), {"mel": mel})


def style_of(talkers: str) -> Style:
    columns = Dataset(talkers).arrays(Dataset(talkers).keys()[0], ["arkit", "head"])
    seen = np.isfinite(columns["head"]).all(1)
    return Style(columns["arkit"][seen], columns["head"][seen, :7])


@pytest.mark.parametrize("seconds", [0.01, 1.24, 1.28, 1.32, 2.0, 5.0])
def test_motion_for_any_length(task: Task, talkers: str, seconds: float) -> None:
    how = EmoDiffSampling(steps=3)
    motions = task.sample(net_of(task), speech_of_noise(task, seconds), style_of(talkers), draw(), how, variants=2)
    assert [len(m) for m in motions] == [max(1, int(np.ceil(seconds * 25 - 1e-6)))] * 2
    for motion in motions:
        assert isinstance(motion, Motion)
        assert np.isnan(motion.arkit[:, 51]).all()
        assert np.isfinite(motion.arkit[:, :51]).all() and np.isfinite(motion.angles()).all()
    assert not np.array_equal(motions[0].arkit, motions[1].arkit, equal_nan=True), "variants differ"


@pytest.mark.parametrize(("sampler", "steps"), [("ddpm", 20), ("ddim", 5), ("dpm++", 5)])
def test_the_same_seed_gives_the_same_motion(task: Task, talkers: str, sampler: str, steps: int) -> None:
    net, speech, style = net_of(task), speech_of_noise(task, 2), style_of(talkers)
    how = EmoDiffSampling(sampler=sampler, steps=steps)  # type: ignore[arg-type]
    one, two, other = (task.sample(net, speech, style, draw(s), how)[0] for s in (1, 1, 2))
    np.testing.assert_array_equal(one.arkit, two.arkit)
    assert np.nanmax(np.abs(one.arkit - other.arkit)) > 0.01


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Dataset]:
    """What a minute's training makes of talkers, and the speaker that was held out."""
    folder = tmp_path_factory.mktemp("learned")
    data = make(folder / "data", tuple((f"p{i}", e) for i in range(3) for e in ("neutral", *RAISED)))
    changes = ("width=64", "layers=2", "training.steps=300", "training.batch_size=16", "training.evaluate_every=300",
               "training.learning_rate=2e-3", "training.evaluate_batches=2", "stride=2")  # fmt: skip
    clips, held = split(data, "p2")
    assert held is not None
    result = train("emodiff", configure("emodiff", "tiny", None, changes), clips, held, folder, say=lambda text: None)
    assert result.best is not None and result.best["loss"] < 0.15, "predicting nothing costs 1"
    return checkpoint.load(folder, task="emodiff"), held


def motion_in_the_style_of(learned: tuple[Model, Dataset], key: str, **how: float) -> tuple[Motion, np.ndarray]:
    """Motion for a clip's own sound, and the clip's blendshapes."""
    model, held = learned
    columns = held.arrays(key, ["arkit", "head", "mel"])
    seen = np.isfinite(columns["head"]).all(1)
    style = Style(columns["arkit"][seen], columns["head"][seen, :7])
    mel = np.concatenate([columns["mel"], columns["mel"][-1:].repeat(320, 0)])
    speech = Speech(np.zeros(90 * 640, np.int16), {"mel": mel})
    assert isinstance(model.task, Task)
    motions = model.task.sample(model.net, speech, style, draw(), EmoDiffSampling(steps=20, **how))  # type: ignore[arg-type]
    return motions[0], columns["arkit"]


def test_the_jaw_follows_the_sound_of_a_stranger(learned: tuple[Model, Dataset]) -> None:
    follows = []
    for key in list(learned[1].keys()):
        motion, real = motion_in_the_style_of(learned, key)
        seen, jaw = np.isfinite(real[:, 0]), ARKIT.index("jawOpen")
        follows.append(np.corrcoef(motion.arkit[seen, jaw], real[seen, jaw])[0, 1])
    assert np.mean(follows) > 0.8


def test_style_frames_of_a_label_move_its_shapes(learned: tuple[Model, Dataset]) -> None:
    """A stranger's brows, smile and sneer, each by most of the 0.5 that the label raises it, and no other's."""
    keys = {key.split("-")[1]: key for key in list(learned[1].keys())}
    means = {label: motion_in_the_style_of(learned, key)[0].arkit.mean(0) for label, key in keys.items()}
    every = sorted({ARKIT.index(name) for names in RAISED.values() for name in names})
    for label, names in RAISED.items():
        moved = means[label] - means["neutral"]
        for index in every:
            assert moved[index] > 0.25 if ARKIT[index] in names else abs(moved[index]) < 0.15, (label, ARKIT[index])
