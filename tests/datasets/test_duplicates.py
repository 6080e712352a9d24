"""Copies are found whatever their size and compression, and other takes of the same person are not."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from talkface.datasets import open_dataset
from talkface.datasets.verify.dataset import verify
from talkface.datasets.verify.duplicates import across_splits, correlation, distance, duplicates
from talkface.media import VideoReader, VideoWriter
from tests.conftest import Toolkit
from tests.datasets.making import make, steady

CONFIG = """
pack = {annotators = ["box", "landmarks", "arkit", "head"], video = {size = 256}}
build = {val = 0.5, test = 0.0}
"""
"""What duplicates are found by: pictures, head and jaw."""


def smaller(clip: Path, out: Path) -> None:
    """The picture at three quarters of the size, coarsely compressed, without sound."""
    frames = list(VideoReader(str(clip)))
    height, width = (int(side * 0.75) // 2 * 2 for side in frames[0].rgb.shape[:2])
    with VideoWriter(out, width, height, crf=32) as writer:
        for frame in frames:
            picture = cv2.resize(frame.rgb, (width, height), interpolation=cv2.INTER_AREA)
            writer.write(picture, frame.pts_ns // 1000 * 1000)


@pytest.fixture(scope="module")
def copied(videos: Path, toolkit: Toolkit, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two takes of one person, and a copy of the first under another person's name."""
    root = tmp_path_factory.mktemp("copied")
    takes = sorted(videos.rglob("W009/video/**/*.mp4"))[:2]
    smaller(takes[0], root / "copy.mp4")
    names = [(takes[0], "W009"), (takes[1], "W009"), (root / "copy.mp4", "somebody")]
    (root / "list.csv").write_text("path,speaker\n" + "".join(f"{path},{who}\n" for path, who in names))
    (root / "config.toml").write_text(CONFIG)
    out = root / "dataset"
    toolkit("ingest", root / "list.csv", "--out", out, "--offline", "-j", "0", "--config", root / "config.toml")
    return str(out)


def test_a_smaller_copy_is_found_and_the_other_take_is_not(copied: str) -> None:
    dataset = open_dataset(copied)
    assert len(dataset) == 3
    (found,) = duplicates(dataset)
    assert found.how == "picture"
    sources = {dataset.clips.column("source")[dataset.row(key)].as_py() for key in (found.one, found.other)}
    assert {Path(name).name for name in sources} == {"copy.mp4", "001.mp4"}


def test_verify_calls_a_copy_in_another_split_a_leak(copied: str) -> None:
    assert set(open_dataset(copied).clips.column("split").to_pylist()) == {"train", "val"}
    (problem,) = verify(copied, readers=False)
    assert not problem.note and "(equal picture), in another split" in problem.what
    dataset = open_dataset(copied)
    assert across_splits(dataset, duplicates(dataset)) == duplicates(dataset)


def test_equal_content_is_found_whatever_its_name(tmp_path: Path) -> None:
    one = steady("a", 30, seed=1)
    url = make(tmp_path / "dataset", [one, replace(one, key="b", speaker="q"), steady("c", 30, seed=2)])
    (found,) = duplicates(open_dataset(url))
    assert (found.one, found.other, found.how) == ("a", "b", "content")
    (note,) = verify(url, readers=False)
    assert note.note and note.what == "the same take as b (equal content)"


curves = hnp.arrays(np.float64, (40, 4), elements=st.floats(-1, 1))


@given(curves, st.floats(0.1, 10), st.floats(-5, 5))
def test_correlation_knows_neither_scale_nor_offset(one: np.ndarray, scale: float, offset: float) -> None:
    found = correlation(one, one * scale + offset)
    assert found == -1 or found == pytest.approx(1, abs=1e-3)
    assert -1 <= correlation(one, one[::-1]) <= 1 + 1e-9


def test_correlation_looks_where_both_are_known() -> None:
    one = np.random.default_rng(0).normal(size=(60, 4))
    other = one.copy()
    one[:30, 0] = np.nan
    other[:30] *= -1
    assert correlation(one, other) == pytest.approx(1)
    one[:55, 0] = np.nan
    assert correlation(one, other) == -1, "five frames prove nothing"


@given(hnp.arrays(np.uint8, (5, 8)), hnp.arrays(np.uint8, (5, 8)))
def test_distance_counts_bits(one: np.ndarray, other: np.ndarray) -> None:
    differing = sum(bin(a ^ b).count("1") for a, b in zip(one.ravel().tolist(), other.ravel().tolist(), strict=True))
    assert distance(one, other) == pytest.approx(differing / 5)
    assert distance(one, one) == 0
