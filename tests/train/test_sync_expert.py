"""The sync expert: cosines that cross-entropy can take, wrong pairs that are wrong, a score that falls with a shift."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from talkface.annotate.mel import log_mel
from talkface.datasets.loading.loader import Batch
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError
from talkface.metrics.base import Comparison, Face
from talkface.metrics.sync import Metric
from talkface.motion import steady_pts
from talkface.nets.cca import CcaSync
from talkface.nets.lip import BlendshapeSyncNet
from talkface.train import checkpoint
from talkface.train.base import configure
from talkface.train.data import split, training_loader
from talkface.train.loop import train
from talkface.train.tasks.sync_expert import Expert, SyncConfig, Task
from talkface.vocab import ARKIT


def expert(*changes: str) -> SyncConfig:
    config = configure("sync_expert", "tiny", None, ("training.batch_size=8", *changes))
    assert isinstance(config, SyncConfig)
    return config


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def task(talkers: str) -> Task:
    return Task(expert(), Task.learn(expert(), Dataset(talkers)))


@pytest.fixture(scope="module")
def batch(task: Task, talkers: str) -> Batch:
    return next(iter(training_loader(Dataset(talkers), task.config)))


@given(st.integers(0, 1000))
def test_cosines_are_never_negative(seed: int) -> None:
    """Without the last ReLU half of them would be, and the logarithm of the loss would be NaN."""
    torch.manual_seed(seed)
    net = BlendshapeSyncNet(29, 27, 8, 16, 0.0).eval()
    mouth, sound = net(torch.randn(6, 8, 27), torch.randn(6, 8, 16 * 29 + 1))
    cosine = (mouth * sound).sum(-1)
    assert (cosine >= 0).all() and (cosine <= 1 + 1e-5).all()


@given(st.integers(0, 1000), st.integers(1, 20), st.integers(1, 20))
def test_wrong_shifts_are_wrong(seed: int, nearest: int, reach: int) -> None:
    config = expert(f"nearest={nearest}", f"reach={reach}")
    task = Task.__new__(Task)
    task.config = config
    shifts = task.wrong_shifts(50, draw(seed))
    assert (shifts.abs() >= min(nearest, reach)).all() and (shifts.abs() <= reach).all()


def test_another_clip_is_another_clip(task: Task) -> None:
    keys = ["a", "a", "b", "a", "c"]
    for seed in range(10):
        other, differs = task.other_clip(keys, draw(seed))
        for i, (j, d) in enumerate(zip(other.tolist(), differs.tolist(), strict=True)):
            assert i != j and d == (keys[i] != keys[j])


def test_the_sound_of_a_shift_is_that_many_frames_later(task: Task) -> None:
    length = task.config.length
    sound = torch.arange(float(length))[None, :, None].repeat(2, 1, 3)
    start = task.config.reach + task.config.context
    assert task.part(sound, torch.tensor([0, -4]))[:, 0, 0].tolist() == [start, start - 4]


def test_a_mouth_with_a_missing_frame_is_no_example(task: Task, batch: Batch) -> None:
    first = task.config.reach + task.config.context
    broken = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    broken["arkit"] = torch.where(broken["arkit"].isnan(), 0.1, broken["arkit"])
    broken["mel"] = broken["mel"].nan_to_num(0.0)
    assert task.prepare(broken)[2].all()
    broken["arkit"][0, first + 3, ARKIT.index("jawOpen")] = torch.nan
    broken["mel"][1, 60] = torch.nan
    assert task.prepare(broken)[2].tolist()[:3] == [False, False, True]
    for loss in ("pairs", "shifts"):
        found = Task(expert(f"loss={loss}"), task.facts).step(task.build(), broken, draw(), "all").loss
        assert torch.isfinite(found)


def test_a_resting_mouth_says_nothing(task: Task) -> None:
    """What is added to a shape in all frames of a window is taken away."""
    task = Task(expert("encoders=convolutions", "width=32"), task.facts)
    shapes, known = torch.rand(2, 20, 27), torch.ones(2, 20, 27, dtype=torch.bool)
    one, other = (task.centred(s, (s, known)) for s in (shapes, shapes + torch.rand(2, 1, 27)))
    assert torch.allclose(one, other, atol=1e-4)


@pytest.fixture(scope="module")
def judge(strangers: str, tmp_path_factory: pytest.TempPathFactory) -> Expert:
    out = tmp_path_factory.mktemp("expert") / "run"
    clips, held = split(strangers, "p2")
    config = expert("stride=4", "training.steps=20", "training.evaluate_every=10")
    train("sync_expert", config, clips, held, out, cpu=True, say=lambda _: None)
    model = checkpoint.load(out)
    assert isinstance(model.task, Task) and isinstance(model.net, CcaSync)
    return Expert(model.task, model.net, log_mel)


def face(dataset: Dataset, key: str) -> Face:
    arrays = dataset.arrays(key, ["pts", "arkit"])
    sound = dataset.span(key, 0, dataset.duration_ns(key), ["arkit"], sound=True)["sound"]
    return Face(key=key, pts_ns=arrays["pts"], columns={"arkit": arrays["arkit"]}, sound=sound)


def test_it_tells_matched_from_shifted_sound_of_a_stranger(judge: Expert, strangers: str) -> None:
    dataset = Dataset(strangers)
    stranger = face(dataset, next(k for k in dataset.keys() if k.startswith("p2-neutral")))  # noqa: SIM118
    matched, shifted = judge.distance(stranger, 0), judge.distance(stranger, 200_000_000)
    assert len(matched) > 20 and matched.mean() + 0.1 < shifted.mean()


def test_the_metric_takes_it(judge: Expert, strangers: str) -> None:
    dataset = Dataset(strangers)
    stranger = face(dataset, next(k for k in dataset.keys() if k.startswith("p2-neutral")))  # noqa: SIM118
    found = Metric().compute(Comparison(generated=[stranger], sync_expert=judge))
    assert found["sync_confidence"] > 0
    # Syllables come every 0.3 s, so that the shift by a whole one fits nearly as well.
    assert judge.distance(stranger, 0).mean() < found["sync_distance"] + 0.5 * found["sync_confidence"]


def test_each_face_is_heard_with_its_own_sound(judge: Expert, strangers: str) -> None:
    """Faces that come and go may have the same id."""
    dataset = Dataset(strangers)
    faces = [face(dataset, key) for key in dataset.keys()[:4]]
    alone = [judge.distance(one, 0).mean() for one in faces]
    fleeting = [judge.distance(replace(one, labels={}), 0).mean() for one in faces]
    assert np.allclose(alone, fleeting) and len(set(alone)) == 4


def test_a_face_is_in_sync_at_any_frame_rate(judge: Expert, strangers: str) -> None:
    """At 24, 30 and 60 frames a second the best shift is that at 25; a planted one is found to the 10 ms."""
    dataset = Dataset(strangers)
    at_25 = face(dataset, next(k for k in dataset.keys() if k.startswith("p2-neutral")))  # noqa: SIM118
    known, shapes = np.isfinite(at_25.columns["arkit"][:, 0]), at_25.columns["arkit"]
    shifts = np.arange(-100, 101, 10)

    def best(fps: float, late_ms: int = 0) -> int:
        pts = steady_pts(int(6 * fps), fps)
        at = [np.interp(pts - late_ms * 1_000_000, at_25.pts_ns[known], column) for column in shapes[known].T]
        moved = replace(at_25, pts_ns=pts, columns={"arkit": np.stack(at, axis=1).astype(np.float32)})
        return int(shifts[np.argmin([judge.distance(moved, int(s) * 1_000_000).mean() for s in shifts])])

    own = best(25)
    assert [best(fps) for fps in (24, 30, 60)] == pytest.approx([own] * 3, abs=10)
    assert [best(fps, -50) for fps in (25, 30)] == pytest.approx([own + 50] * 2, abs=10)


def test_silence_and_short_clips_have_no_score(judge: Expert) -> None:
    arkit = np.full((5, 52), 0.1, np.float32)
    short = Face(key="s", pts_ns=np.arange(5) * 40_000_000, columns={"arkit": arkit}, sound=np.zeros(3200, np.int16))
    assert len(judge.distance(short, 0)) == 0
    silent = Face(key="n", pts_ns=np.arange(5) * 40_000_000, columns={"arkit": arkit})
    assert len(judge.distance(silent, 0)) == 0


def test_the_papers_expert() -> None:
    config = configure("sync_expert", "paper")
    assert isinstance(config, SyncConfig)
    assert (config.frames, config.loss, config.training.batch_size, config.training.learning_rate) == (
        8,
        "pairs",
        64,
        1e-4,
    )


def test_pictures_and_numbers(judge: Expert, strangers: str) -> None:
    batch = next(iter(training_loader(Dataset(strangers), judge.task.config)))
    with torch.no_grad():
        found = judge.task.evaluate(judge.net, [batch], draw())
        picture = judge.task.picture(judge.net, batch, draw())
    assert found["auc"] > 0.6 and found["loss"] < 0.75
    assert picture.dtype == np.uint8 and picture.ndim == 3


def test_an_expert_that_listens_to_speech_is_put_in_place_by_mel() -> None:
    config = configure("sync_expert", "modern", None, ("sound=speech",))
    assert config.needs == ("arkit", "speech", "mel")
    with pytest.raises(ConfigError, match="needs sound=mel or sound=speech, not w2v"):
        configure("sync_expert", "modern", None, ("sound=w2v",))
