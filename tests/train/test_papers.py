"""What the papers listen to: their presets, only smaller, train and sample on columns like those of speech models."""

from pathlib import Path

import numpy as np
import pytest
import torch

from talkface.datasets.reader import Dataset
from talkface.generate.style import read_style
from talkface.motion import Motion, steady_pts
from talkface.train import checkpoint
from talkface.train.base import TaskConfig, configure
from talkface.train.checkpoint import Model
from talkface.train.data import split
from talkface.train.inputs.audio_features import SILENCE_AFTER
from talkface.train.loop import train
from talkface.train.protocols import Speech, Style
from talkface.train.tasks.emodiff import EmoDiffSampling
from talkface.train.tasks.emodiff import Task as EmoDiff
from talkface.train.tasks.lip import Task as Lip
from talkface.vocab import ARKIT, MOUTH
from talkface.weights import Models
from tests.train.making import HEARD, TALKERS, make

LOOP = ("training.steps=3", "training.batch_size=8", "training.evaluate_every=3", "training.evaluate_batches=1")
SMALL = {
    "emodiff": ("width=32", "layers=1", "heads=2", "sound_width=8", "stride=8"),
    "lip": ("hidden=16", "layers=1"),
    "sync_expert": ("width=16",),
}


@pytest.fixture(scope="module")
def listeners(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Talkers with ``w2v`` and ``ctc``; one is silent."""
    return Dataset(make(tmp_path_factory.mktemp("listeners") / "data", TALKERS, columns=HEARD, silent=(1,)))


def trained(listeners: Dataset, out: Path, task: str, *changes: str) -> Model:
    config: TaskConfig = configure(task, "paper", None, (*SMALL[task], *LOOP, *changes))
    clips, held = split(listeners.url, "p2")
    result = train(task, config, clips, held, out, cpu=True, say=lambda text: None)
    assert np.isfinite(result.loss) and result.best is not None
    return checkpoint.load(out)


def speech_of(listeners: Dataset, key: str, column: str) -> Speech:
    """A clip's own sound, with silence after its end."""
    spec, rows = listeners.spec(column), listeners.arrays(key, [column])[column]
    assert rows.shape[1:] == spec.shape and np.isfinite(rows).all()
    after = np.zeros((round(SILENCE_AFTER * spec.rate), *spec.shape), rows.dtype)
    return Speech(np.zeros(90 * 640, np.int16), {column: np.concatenate([rows, after])})


def style_of(listeners: Dataset, key: str) -> Style:
    return read_style(key, Models(offline=True), data=listeners)


@pytest.mark.parametrize("column", ["w2v", "ctc"])
def test_emodiff_listens_to(listeners: Dataset, tmp_path: Path, column: str) -> None:
    """Another sound gives another motion, and the network is as wide as the column and its rows around a frame."""
    model = trained(listeners, tmp_path, "emodiff", f"sound={column}")
    assert isinstance(model.task, EmoDiff)
    assert model.task.sound.width == {"w2v": 768, "ctc": 3 * 29}[column] + 1
    style, how = style_of(listeners, "p0-neutral-0"), EmoDiffSampling(steps=3)
    made = [
        model.task.sample(model.net, speech_of(listeners, key, column), style, torch.Generator().manual_seed(0), how)[0]
        for key in ("p0-neutral-0", "p2-happy-5")
    ]
    assert all(len(m) == 90 and np.isfinite(m.arkit[:, :51]).all() for m in made)
    assert np.abs(made[0].arkit - made[1].arkit)[:, :51].max() > 1e-5


def test_the_mouth_listens_to_characters(listeners: Dataset, tmp_path: Path) -> None:
    model = trained(listeners, tmp_path, "lip")
    assert isinstance(model.task, Lip) and model.task.sound.width == 16 * 29 + 1
    motion = Motion(
        pts_ns=steady_pts(90, 25), arkit=np.full((90, 52), 0.25, np.float32), head=np.zeros((90, 7), np.float32), fps=25
    )
    style = style_of(listeners, "p0-neutral-0")
    one, other = (
        model.task.refine(model.net, motion, speech_of(listeners, key, "ctc"), style).arkit
        for key in ("p0-neutral-0", "p2-happy-5")
    )
    mouth = [ARKIT.index(name) for name in MOUTH]
    assert np.isfinite(one).all() and np.abs(one - other)[:, mouth].max() > 1e-7
    assert (np.delete(one, mouth, axis=1) == 0.25).all()


def test_the_expert_listens_to_characters(listeners: Dataset, tmp_path: Path) -> None:
    model = trained(listeners, tmp_path, "sync_expert")
    assert model.about.config["loss"] == "pairs" and model.about.config["sound"] == "ctc"
    best = checkpoint.best_of(tmp_path)
    assert best is not None and 0 <= best["auc"] <= 1
