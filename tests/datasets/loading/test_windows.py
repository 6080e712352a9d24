"""Windows: lengths, padding, interpolation on every clock, sound, pictures, labels."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from talkface.clip import NS
from talkface.datasets import Dataset, open_dataset
from talkface.datasets.build.job import build
from talkface.datasets.loading.companions import Companions
from talkface.datasets.loading.pictures import Pictures, nearest
from talkface.datasets.loading.windows import Windows
from talkface.errors import ConfigError, DatasetError
from talkface.store import Folder
from tests.datasets.conftest import make_plan
from tests.datasets.making import columns_of, make, sound_of, steady, variable

CLIPS = [
    steady("a-25", 40, seed=1, speaker="anna", emotion="happy"),
    variable("b-vfr", 50, seed=2, speaker="anna", emotion="happy"),
    steady("c-ntsc", 31, 30000 / 1001, seed=3, speaker="ben", emotion="happy"),
    steady("d-short", 6, seed=4, speaker="ben", emotion="sad"),
    steady("e-more", 30, seed=5, speaker="anna", emotion="happy"),
]
BY_KEY = {c.key: c for c in CLIPS}
NO_DRAW = np.random.default_rng(0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(make(tmp_path_factory.mktemp("windows") / "dataset", CLIPS))


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(make(tmp_path_factory.mktemp("filmed") / "dataset", CLIPS[:2], video=True))


def table(seconds: list[float]) -> pa.Table:
    return pa.table({"start_ns": [7] * len(seconds), "end_ns": [7 + round(s * NS) for s in seconds]})


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 200), min_size=1, max_size=8), st.integers(1, 40), st.integers(1, 40),
    st.sampled_from([25, 30, 23.976, 30000 / 1001]), st.sampled_from(["never", "short", "tail"]),
)  # fmt: skip
def test_plans(frames: list[int], length: int, stride: int, fps: float, pad: str) -> None:
    windows = Windows(length=length, fps=fps, stride=stride, pad=pad)  # type: ignore[arg-type]
    plan = windows.plan(table([n / fps for n in frames]))
    assert (np.diff(plan.clip) >= 0).all()
    for row, n in enumerate(frames):
        firsts = plan.first[plan.clip == row].tolist()
        whole = [f for f in firsts if f + length <= n]
        assert whole == list(range(0, n - length + 1, stride))
        begun = [f for f in range(0, n, stride) if f + length > n][:1]
        tail = begun if not whole or whole[-1] + length < n else []
        assert firsts == whole + {"never": [], "short": begun if n < length else [], "tail": tail}[pad]
        assert all(b - a == stride for a, b in pairwise(firsts)) and firsts[:1] in ([], [0])
        if pad == "tail" and stride <= length:
            assert {i for f in firsts for i in range(f, f + length)} >= set(range(n))


@pytest.mark.parametrize("fps", [25, 30, 24, 12.5])
@pytest.mark.parametrize("key", ["a-25", "b-vfr", "c-ntsc"])
def test_columns_lie_on_their_lines(dataset: Dataset, key: str, fps: float) -> None:
    clip, made = BY_KEY[key], 0
    for window in Windows(length=8, fps=fps, stride=5, columns=("arkit", "head", "shape")).of(dataset, key):
        times = window["times_ns"]
        assert np.abs(times - (made * 5 + np.arange(8)) * NS / fps).max() < 1
        seconds = times[:, None] / NS
        known, inside = window["valid"], times <= clip.pts_ns[-1]
        low = np.searchsorted(clip.pts_ns, times, side="right") - 1
        on_row = clip.pts_ns[low] == times
        gone = (low % 7 == 6) | ((low % 7 == 5) & ~on_row & (low + 1 < len(clip.pts_ns)))
        assert (known == ~gone).all()
        expected = clip.number + seconds * np.arange(51) / 52
        assert np.allclose(window["arkit"][known & inside, :51], expected[known & inside], atol=1e-5)
        assert np.isnan(window["arkit"][:, 51]).all()
        off = Rotation.from_quat(window["head"][inside][:, [1, 2, 3, 0]]) * Rotation.from_rotvec(
            seconds[inside] * [0.1, 0.8, 0.2]).inv()  # fmt: skip
        assert off.magnitude().max() < 1e-6
        assert window["shape"].tolist() == [clip.number] * 3
        made += 1
    assert made == 1 + (int(np.ceil(clip.end_ns * fps / NS - 0.05)) - 8) // 5


def test_a_short_clip_is_padded_and_says_so(dataset: Dataset) -> None:
    windows = Windows(length=10, fps=25, columns=("head", "mel"), sound=True, pad="short")
    (window,) = windows.of(dataset, "d-short")
    assert window["valid"].tolist() == [True] * 6 + [False] * 4
    assert np.isnan(window["head"][6:]).all() and np.isfinite(window["head"][:6]).all()
    assert (window["valid"].dtype, window["head"].shape) == (bool, (10, 10))
    assert window["mel"].shape == (32, 4) and np.isnan(window["mel"][19:]).all()
    assert np.isfinite(window["mel"][:19]).all()
    assert window["sound"].shape == (6400,) and (window["sound"][3840:] == 0).all()
    assert list(Windows(length=10, fps=25, pad="never").of(dataset, "d-short")) == []


def test_missing_can_be_filled(dataset: Dataset) -> None:
    (window,) = Windows(length=10, fps=25, columns=("arkit", "mel"), fill=0.0).of(dataset, "d-short")
    assert np.isfinite(window["arkit"]).all() and (window["arkit"][6:] == 0).all() and np.isfinite(window["mel"]).all()
    assert window["valid"].tolist() == [True] * 6 + [False] * 4


def test_sound_and_mel_rows_are_those_of_the_windows_time(dataset: Dataset) -> None:
    clip = BY_KEY["b-vfr"]
    windows = Windows(length=8, fps=30, stride=7, columns=("mel",), sound=True)
    sound, mel = sound_of(clip), columns_of(clip)["mel"]
    for window in windows.of(dataset, clip.key):
        start = window["times_ns"][0] / NS
        first = round(start * 16000)
        assert window["sound"].shape == (4267,) and window["sound"].dtype == np.float32
        assert np.array_equal(np.round(window["sound"] * 32768).astype(int), sound[first : first + 4267])
        assert window["mel"].shape == (21, 4)
        rows = mel[round(start * 80) : round(start * 80) + 21]
        assert np.array_equal(window["mel"][: len(rows)], rows.astype(np.float32))
        assert np.abs(window["mel"][0, 0] - start) <= 0.5 / 80 + 1e-2
    on_frames = Windows(length=8, fps=30, columns=("mel",), sound_rows="frames")
    for window in on_frames.of(dataset, clip.key):
        assert np.allclose(window["mel"][:, 0], window["times_ns"] / NS, atol=2e-3)


def test_pictures_are_the_nearest_in_time(filmed: Dataset) -> None:
    clip = BY_KEY["b-vfr"]
    all_frames = Windows(length=1, fps=25).open(filmed, filmed.row(clip.key))
    assert all_frames.native["pts"].shape == (50,)
    windows = Windows(length=9, fps=30, columns=("box",), pictures=Pictures(size=64), pad="tail")
    whole = np.stack(list(windows.open(filmed, filmed.row(clip.key)).frames(range(50))))
    for window in windows.of(filmed, clip.key):
        inside = window["frame_index"] >= 0
        for i in np.flatnonzero(inside):
            at = np.abs(clip.pts_ns - window["times_ns"][i])
            assert at[window["frame_index"][i]] == at.min()
        assert (window["frames"][inside] == whole[window["frame_index"][inside]]).all()
        assert (window["frames"][~inside] == 0).all()
        assert (~inside).sum() == (~window["valid"]).sum()


@pytest.mark.parametrize(
    "pictures", [Pictures(size=64), Pictures(size=32), Pictures(size=150, part=0.9), Pictures(size=128, zoom=0.15)]
)
def test_points_follow_the_picture(filmed: Dataset, pictures: Pictures) -> None:
    """The white dot is where box and landmarks say, at every size and cut; looked at, too."""
    seen = 0
    windows = Windows(length=8, fps=25, stride=8, columns=("box", "lm"), pictures=pictures)
    for window in windows.of(filmed, "a-25", np.random.default_rng(5)):
        light = window["frames"].mean(axis=3) > 160
        assert window["frames"].shape == (8, pictures.size, pictures.size, 3)
        for picture, box, lm in zip(light, window["box"], window["lm"], strict=True):
            y, x = np.nonzero(picture)
            middle = np.array([x.mean(), y.mean()]) + 0.5
            assert np.abs(middle - (box[:2] + box[2:4]) / 2).max() < 0.02 * pictures.size
            assert np.abs(middle - lm[1, :2]).max() < 0.02 * pictures.size
            seen += 1
            if pictures == Pictures(size=32):
                assert np.allclose(box[2:4] - box[:2], 16 * 0.5 / 2, atol=1e-4) and box[4] == 1
    assert seen == 40


def test_zoom_is_one_draw_a_window_and_comes_from_the_generator(filmed: Dataset) -> None:
    windows = Windows(length=4, fps=25, columns=("lm",), pictures=Pictures(size=32, zoom=0.3))
    one, same, other = (
        [w["lm"] for w in windows.of(filmed, "a-25", np.random.default_rng(seed))] for seed in (1, 1, 2)
    )
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_nearest() -> None:
    clock = np.array([0, 10, 40])
    assert nearest(clock, np.array([-5, 0, 5, 6, 25, 26, 99])).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert nearest(clock[:1], np.array([-5, 0, 5])).tolist() == [0, 0, 0]


def test_companions_have_the_same_labels(dataset: Dataset) -> None:
    companions = Companions(dataset.clips)
    names = np.array(dataset.keys())
    rng = np.random.default_rng(0)
    expected = {"a-25": {"b-vfr", "e-more"}, "b-vfr": {"a-25", "e-more"}, "e-more": {"a-25", "b-vfr"}}
    for row, key in enumerate(names):
        assert set(names[companions.rows(row)]) == expected.get(key, set())
        drawn = {companions.draw(row, rng) for _ in range(40)}
        assert drawn == (set(companions.rows(row).tolist()) or {None})
    by_speaker = Companions(dataset.clips, by=("speaker",))
    assert names[by_speaker.rows(dataset.row("d-short"))].tolist() == ["c-ntsc"]
    unknown = pa.table({"speaker": [None, None, "a"], "emotion": ["sad", "sad", "sad"]})
    assert len(Companions(unknown).rows(0)) == 0 and Companions(unknown).draw(0, rng) is None
    with pytest.raises(ConfigError, match="no label 'mood'"):
        Companions(dataset.clips, by=("mood",))


def test_weights_give_every_group_the_same_share(dataset: Dataset) -> None:
    windows = Windows(length=4, fps=25)
    clip = windows.plan(dataset.clips).clip
    for by in (("speaker",), ("emotion",), ("speaker", "emotion")):
        weights = windows.weights(dataset.clips, by)
        labels = [tuple(dataset.clips.column(b)[int(c)].as_py() for b in by) for c in clip]
        shares = [sum(w for w, found in zip(weights, labels, strict=True) if found == label) for label in set(labels)]
        assert np.allclose(shares, 1 / len(shares)) and len(shares) > 1


def test_what_cannot_be_is_said(dataset: Dataset, filmed: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no column 'gaze'"):
        Windows(length=4, fps=25, columns=("gaze",)).members(dataset)
    with pytest.raises(ConfigError, match="without pictures"):
        Windows(length=4, fps=25, pictures=Pictures()).members(dataset)
    for wrong in ({"length": 0}, {"stride": 0}, {"fps": 0}, {"pad": "zero"}, {"columns": ("valid",)}):
        with pytest.raises(ConfigError):
            Windows(**{"length": 4, "fps": 25} | wrong)  # type: ignore[arg-type]
    folder = Folder(tmp_path / "dataset")
    build(folder, make_plan(folder))
    broken = open_dataset(folder.url)
    for more, member in (({"pictures": Pictures()}, "mp4"), ({"sound": True}, "flac")):
        windows = Windows(length=4, fps=25, columns=("arkit",), **more)  # type: ignore[arg-type]
        with pytest.raises(DatasetError, match=rf"train/000000\.tar: s0-0\.{member} is damaged"):
            list(windows.of(broken, "s0-0"))
