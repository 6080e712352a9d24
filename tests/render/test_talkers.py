"""The dataset of synthetic talkers is finished, and its truth is what its pictures and its sound show."""

from pathlib import Path

import numpy as np
import pytest

from talkface.datasets import Dataset, open_dataset
from talkface.datasets.loading.pictures import Pictures
from talkface.datasets.loading.windows import Windows
from talkface.datasets.verify.dataset import verify
from talkface.render.talkers import TRUTH, make_talkers


@pytest.fixture
def dataset(filmed: str) -> Dataset:
    return open_dataset(filmed)


def test_it_is_a_dataset(filmed: str, dataset: Dataset) -> None:
    assert [p.what for p in verify(filmed)] == [f"p{i} is in several splits: train, val" for i in range(2)]
    clips = dataset.clips.select(["key", "speaker", "split"]).to_pylist()
    assert len(clips) == 6 and {c["speaker"] for c in clips} == {"p0", "p1"}
    assert sorted(c["key"] for c in clips if c["split"] == "val") == ["p0-2", "p1-2"]


def test_a_dataset_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    def made(seconds: float) -> str:
        return make_talkers(tmp_path / "a", identities=1, clips=1, seconds=seconds, size=32)

    url, told = made(0.2), tmp_path / "a" / "talkers.json"
    before = told.stat().st_mtime_ns
    assert made(0.2) == url and told.stat().st_mtime_ns == before
    made(0.4)
    assert len(open_dataset(url).arrays("p0-0", ["truth"])["truth"]) == 10
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_pictures_show_the_truth(dataset: Dataset) -> None:
    """Inside the lips it is darker the wider the mouth is open; the nose goes where the head turns."""
    windows = Windows(length=50, fps=25, columns=("truth", "lm68", "box"), pictures=Pictures(size=64), pad="short")
    for key in list(dataset.keys()):
        (window,) = windows.of(dataset, key)
        seen = window["valid"]
        assert np.flatnonzero(~seen).tolist() == [8, 25, 42], "every 17th frame has no face"
        marks, truth = window["lm68"][seen], window["truth"][seen]
        grey = window["frames"][seen].astype(float).mean(axis=3)
        lips = marks[:, 60:].mean(axis=1).astype(int)
        dark = [-g[y - 4 : y + 5, x - 5 : x + 6].min() for g, (x, y) in zip(grey, lips, strict=True)]
        assert np.corrcoef(dark, truth[:, 0])[0, 1] > 0.4, key
        nose, left, right = (marks[:, i, 0] for i in (30, 0, 16))
        assert np.corrcoef((nose - (left + right) / 2) / (right - left), truth[:, 2])[0, 1] > 0.9, key
        assert (np.abs((window["box"][seen, :2] + window["box"][seen, 2:4]) / 2 - 32) < 20).all()


def test_the_mouth_opens_when_the_voice_is_loud(dataset: Dataset) -> None:
    assert TRUTH[0] == "mouth_open" and dataset.spec("truth").names == TRUTH
    for key in list(dataset.keys()):
        (window,) = Windows(length=50, fps=25, columns=("truth",), sound=True, pad="short").of(dataset, key)
        loud = np.sqrt(np.mean(window["sound"].reshape(50, -1) ** 2, axis=1))
        assert np.corrcoef(loud, window["truth"][:, 3])[0, 1] > 0.7
        assert np.corrcoef(window["truth"][:, 0], window["truth"][:, 3])[0, 1] > 0.3
    pitch = {key: dataset.arrays(key, ["voice"])["voice"][0] for key in ("p0-0", "p0-1", "p1-0")}
    assert pitch["p0-0"] == pitch["p0-1"] != pitch["p1-0"]
