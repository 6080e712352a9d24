"""Shot boundaries in real clips put one after the other."""

from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from talkface.clip import NS
from talkface.config import Shots
from talkface.ingest.shots import ShotCutter
from talkface.media import VideoReader

SIZE = (480, 270)


def frames(path: Path, count: int) -> list[np.ndarray]:
    return [cv2.resize(f.rgb, SIZE, interpolation=cv2.INTER_AREA) for f in islice(VideoReader(str(path)), count)]


def starts(pictures: list[np.ndarray], pts_ns: list[int] | None = None) -> list[int]:
    times = pts_ns or [i * NS // 25 for i in range(len(pictures))]
    cutter = ShotCutter(Shots())
    return [i for i, (p, t) in enumerate(zip(pictures, times, strict=True)) if cutter.push(p, t)]


@pytest.fixture(scope="module")
def first(media: Path) -> list[np.ndarray]:
    return frames(media / "talking" / "LivePortrait__d11.mp4", 40)


@pytest.fixture(scope="module")
def second(media: Path) -> list[np.ndarray]:
    return frames(media / "talking" / "VisualVoice__interview.mp4", 30)


def test_a_cut_is_found_at_its_frame(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    assert starts(first + second) == [0, len(first)]
    assert starts(second[:7] + first + second[7:]) == [0, 7, 7 + len(first)]


def test_a_variable_rate_changes_nothing(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    steps = np.random.default_rng(1).integers(NS // 120, NS // 5, len(first) + len(second))
    assert starts(first + second, np.cumsum(steps).tolist()) == [0, len(first)]


def test_a_flash_starts_a_shot_twice(first: list[np.ndarray]) -> None:
    white = np.full_like(first[0], 255)
    assert starts([*first[:20], white, white, *first[20:]]) == [0, 20, 22]


def test_a_hole_in_time_starts_a_shot(first: list[np.ndarray]) -> None:
    times = [i * NS // 25 + (i >= 12) * 2 * NS for i in range(len(first))]
    assert starts(first, times) == [0, 12]


def blend(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    return cv2.addWeighted(a, 1 - share, b, share, 0)


def test_a_dissolve_is_found_where_it_is_quick(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    """Two frames of it pass for a cut, a second of it for no cut at all."""
    for frames_long, found in ((2, True), (25, False)):
        mix = [blend(first[39], second[0], (i + 1) / (frames_long + 1)) for i in range(frames_long)]
        assert (len(starts([*first, *mix, *second])) > 1) == found, frames_long


def test_a_fade_through_black_is_a_cut_where_it_is_black(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    black = np.zeros_like(first[0])
    out = [blend(first[39], black, i / 25) for i in range(26)]
    back = [blend(black, second[0], i / 25) for i in range(26)]
    cuts = starts([*first, *out, *back, *second])
    assert len(cuts) > 1
    assert all(abs(cut - 66) <= 3 for cut in cuts[1:]), cuts


@pytest.mark.parametrize("name", ["emotional/spectre__M003_level_1_disgusted_015.mp4", "talking/LivePortrait__d20.mp4"])
def test_talking_is_no_cut(media: Path, name: str) -> None:
    assert starts(frames(media / name, 120)) == [0]
