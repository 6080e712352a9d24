"""Reference frames: away from the window, and seen just as it is; sound around a window; the nose in the middle."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkface.datasets import Dataset, open_dataset
from talkface.datasets.loading.loader import Loader
from talkface.datasets.loading.pictures import Pictures, cut_out
from talkface.datasets.loading.reference import far_frames
from talkface.datasets.loading.windows import Windows
from talkface.errors import ConfigError
from talkface.render.talkers import make_talkers
from tests.datasets.making import SIZE, columns_of, dot, make, sound_of, steady, variable

CLIPS = [steady("a", 60, seed=1), variable("b", 50, seed=2), steady("c", 9, seed=3)]
BY_KEY = {c.key: c for c in CLIPS}


@pytest.fixture(scope="module")
def dots(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(make(tmp_path_factory.mktemp("reference") / "dataset", CLIPS, video=True))


@settings(deadline=None, max_examples=300)
@given(st.integers(1, 60), st.integers(0, 59), st.integers(1, 20), st.integers(0, 70), st.integers(1, 5), st.integers())
def test_the_margin_holds_for_every_length(n: int, first: int, length: int, margin: int, count: int, seed: int) -> None:
    first = min(first, n - 1)
    last = min(first + length, n) - 1
    chosen = far_frames(n, first, last, margin, count, np.random.default_rng(abs(seed)))
    away = [max(first - i, i - last, 0) for i in range(n)]
    assert len(chosen) == count and all(0 <= i < n for i in chosen)
    assert all(away[i] >= margin or away[i] == max(away) for i in chosen)
    enough = sum(a >= min(margin, max(away)) for a in away)
    assert len(set(chosen.tolist())) == min(count, enough) or enough < count


def test_every_frame_that_is_far_enough_is_drawn() -> None:
    rng = np.random.default_rng(0)
    drawn = {int(i) for _ in range(400) for i in far_frames(20, 8, 11, 3, 1, rng)}
    assert drawn == {0, 1, 2, 3, 4, 5, 14, 15, 16, 17, 18, 19}


def windows(**more: object) -> Windows:
    pictures = Pictures(size=96, zoom=0.15, light=0.3)
    values = {"length": 6, "fps": 25, "columns": ("box", "head"), "stride": 7, "reference": 3, "margin": 10}
    return Windows(**values | {"pictures": pictures, "mirror": 0.5} | more)  # type: ignore[arg-type]


def shown_at(picture: np.ndarray) -> np.ndarray:
    """Middle of the white dot, in pixels of the picture."""
    y, x = np.nonzero(picture.mean(axis=2) > 165)
    return np.array([x.mean(), y.mean()]) + 0.5


def middle(box: np.ndarray) -> np.ndarray:
    return np.asarray((box[..., :2] + box[..., 2:4]) / 2)


@pytest.mark.parametrize("key", ["a", "b"])
def test_the_same_square_light_and_mirror(dots: Dataset, key: str) -> None:
    """The dot tells which frame is shown; where it lies tells the square and the mirror, the wall tells the light."""
    clip, mirrored, lights = BY_KEY[key], set(), set()
    middles = dot(clip.pts_ns) + 0.5
    for number, window in enumerate(windows().of(dots, key, np.random.default_rng(4))):
        own, far = window["frame_index"][window["frame_index"] >= 0], window["reference_index"]
        both = np.concatenate([window["frames"][window["frame_index"] >= 0], window["reference"]])
        seen = np.stack([shown_at(p) for p in both])
        # One scale and one shift for all of them: x is turned round where the window is mirrored.
        crop = middles[np.concatenate([own, far])]
        sign = -1 if window["mirrored"] else 1
        scale = np.ptp(seen[:, 1]) / np.ptp(crop[:, 1]) if np.ptp(crop[:, 1]) else 96 / SIZE
        assert 96 / SIZE - 0.1 <= scale <= 96 / SIZE / 0.8
        for axis, turn in ((0, sign), (1, 1)):
            rest = seen[:, axis] - turn * scale * crop[:, axis]
            assert np.ptp(rest) < 2.5, "one square"
        if key == "a":  # elsewhere boxes lie between two frames, and the nearer one is shown
            assert np.abs(seen[-3:] - middle(window["reference_box"])).max() < 2
        walls = np.median(both.reshape(len(both), -1, 3), axis=1)
        assert np.ptp(walls, axis=0).max() <= 2, "one light"
        mirrored.add(bool(window["mirrored"]))
        lights.add(tuple(walls[0]))
        times = window["reference_times_ns"]
        away = np.maximum(window["times_ns"][0] - times, times - window["times_ns"][-1])
        assert (away >= 10 * 40_000_000).all() and number * 7 == round(window["times_ns"][0] / 40_000_000)
        assert window["reference_valid"].all() and window["reference"].shape == (3, 96, 96, 3)
    assert mirrored == {False, True} and len(lights) > 2


def test_columns_of_reference_frames_are_theirs(dots: Dataset) -> None:
    """Without pictures too, and in the source's pixels then."""
    clip = BY_KEY["a"]
    made = columns_of(clip)
    for window in windows(pictures=None, mirror=0.0, columns=("box", "arkit", "mel")).of(dots, "a"):
        at = (window["reference_times_ns"] // 40_000_000).tolist()
        assert np.allclose(window["reference_box"], made["box"][at], atol=1e-4)
        assert np.array_equal(window["reference_arkit"], made["arkit"][at], equal_nan=True)
        assert "reference_mel" not in window and "reference" not in window
        assert (window["reference_valid"] == np.isfinite(made["arkit"][at]).any(axis=1)).all()


def test_a_clip_that_is_too_short_gives_its_farthest_frame(dots: Dataset) -> None:
    window = next(windows(length=4, reference=1, margin=30).of(dots, "c"))
    assert window["reference_times_ns"].tolist() == [8 * 40_000_000] and window["reference_index"].tolist() == [8]
    window = next(windows(length=12, pad="short", margin=30).of(dots, "c"))
    assert set(window["reference_index"].tolist()) <= set(range(9))


def test_windows_of_before_are_as_they_were(dots: Dataset) -> None:
    """Without light, zoom and mirror the window is the same with references and without."""
    plain = {"pictures": Pictures(size=40), "mirror": 0.0, "columns": ("box", "lm", "head")}
    with_, without = (next(windows(reference=k, **plain).of(dots, "b")) for k in (2, 0))
    assert set(with_) - set(without) == {"reference", "reference_index", "reference_times_ns", "reference_valid",
                                         "reference_box", "reference_lm", "reference_head"}  # fmt: skip
    assert all(np.array_equal(with_[n], without[n], equal_nan=True) for n in without if n != "key")
    assert np.allclose(with_["reference_lm"][:, 0, :2], middle(with_["reference_box"]), atol=1e-3)


def test_batches_have_them_with_any_number_of_workers(dots: Dataset) -> None:
    def batches(workers: int) -> list[dict[str, np.ndarray]]:
        loader = Loader(dots, windows(fill=0.0), batch_size=4, seed=3)
        with_workers = [{k: v.numpy().copy() for k, v in b.items() if hasattr(v, "numpy")} for b in
                        loader.batches(workers)]  # fmt: skip
        loader.close()
        return with_workers

    one, two = batches(0), batches(1)
    assert len(one) == len(two) > 1 and one[0]["reference"].shape == (4, 3, 96, 96, 3)
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys() and all(np.array_equal(a[n], b[n]) for n in a)
    assert len({tuple(b["reference_index"].ravel()) for b in one}) > 1


@pytest.mark.parametrize("key", ["a", "b"])
def test_sound_around_a_window(dots: Dataset, key: str) -> None:
    clip = BY_KEY[key]
    sound, mel = sound_of(clip), columns_of(clip)["mel"].astype(np.float32)
    around = Windows(length=5, fps=25, stride=4, columns=("mel",), sound=True, sound_margin=0.3, pad="tail")
    for window in around.of(dots, key):
        start = int(window["times_ns"][0])
        first, row = start * 16 // 1_000_000 - 4800, round((start / 1e9 - 0.3) * 80)
        assert window["sound"].shape == (3200 + 9600,) and window["mel"].shape == (16 + 48, 4)
        for at, value in enumerate((window["sound"] * 32768).round().astype(int).tolist()):
            assert value == (sound[first + at] if 0 <= first + at < len(sound) else 0)
        for at, values in enumerate(window["mel"]):
            there = 0 <= row + at < len(mel)
            assert np.array_equal(values, mel[row + at]) if there else np.isnan(values).all()


def test_what_cannot_be_is_said() -> None:
    for wrong in ({"reference": -1}, {"margin": -1}, {"sound_margin": -0.1}, {"sound_margin": np.nan}):
        with pytest.raises(ConfigError, match="at least 0"):
            Windows(length=4, fps=25, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="sound_rows"):
        Windows(length=4, fps=25, sound_margin=0.1, sound_rows="frames")


@pytest.mark.parametrize("zoom", [0.0, 0.1])
def test_the_nose_in_the_middle(filmed: str, zoom: float) -> None:
    """Faces of one size, the nose's median in the middle; landmarks stay on their pictures, and so do references'."""
    dataset = open_dataset(filmed)
    pictures = Pictures(size=96, centre="nose", zoom=zoom)
    windows = Windows(length=5, fps=25, columns=("box", "lm68"), pictures=pictures, reference=2, margin=8)
    plain = Windows(length=5, fps=25, columns=("lm68",), pictures=Pictures(size=64))
    for key in list(dataset.keys()):
        for window, whole in zip(windows.of(dataset, key), plain.of(dataset, key), strict=True):
            seen = window["valid"]
            nose = np.median(window["lm68"][seen, 30], axis=0)
            assert np.abs(nose - 48).max() < 1.5 + zoom * 96
            height = np.nanmedian(window["box"][:, 3] - window["box"][:, 1])
            assert 0.85 < height * 1.8 / 96 < 1.15 / (1 - zoom), "one size"
            # The mouth's corner has the colour that it has in the whole picture.
            for frame, marks, other, at in zip(window["frames"][seen], window["lm68"][seen], whole["frames"][seen],
                                               whole["lm68"][seen], strict=True):  # fmt: skip
                (x, y), (u, v) = (m[[30]].mean(axis=0).astype(int) for m in (marks, at))
                assert np.abs(frame[y, x].astype(int) - other[v, u]).max() < 60
            assert np.isfinite(window["reference_lm68"][window["reference_valid"]]).all()


def test_without_a_face_the_crop_is_the_middle(tmp_path: Path) -> None:
    dataset = open_dataset(make_talkers(tmp_path / "a", identities=1, clips=1, seconds=0.4, size=32, gaps=1))
    nose, crop = (
        next(Windows(length=4, fps=25, columns=("box",), pictures=Pictures(size=32, centre=c)).of(dataset, "p0-0"))
        for c in ("nose", "crop")
    )
    assert not nose["valid"].any() and (nose["frames"] == crop["frames"]).all()


def test_beyond_the_crop_it_is_black() -> None:
    picture = np.full((8, 8, 3), 200, np.uint8)
    assert (cut_out(picture, 2, 3, 4) == 200).all()
    out = cut_out(picture, -2, 5, 6)
    assert (out[:3, 2:] == 200).all() and not out[3:].any() and not out[:, :2].any()
    assert not cut_out(picture, 20, 0, 3).any()
