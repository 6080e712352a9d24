"""Random access to a clip in memory, the same through decord and PyAV."""

from pathlib import Path

import numpy as np
import pytest

from talkface.clip import NS
from talkface.media import ClipFrames, VideoReader, VideoWriter


@pytest.fixture(scope="module")
def clip(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("frames") / "clip.mp4"
    draw = np.random.default_rng(2)
    pts = 123_456_000 + np.cumsum(draw.integers(5_000, 80_000, 60)) * 1000
    frames = VideoReader(str(media / "talking/LivePortrait__d11.mp4"))
    with VideoWriter(path, 512, 512) as writer:
        for frame, at in zip(frames, pts.tolist(), strict=False):
            writer.write(frame.rgb, at)
    return path


def test_both_ways_give_the_same_pixels(clip: Path) -> None:
    data = clip.read_bytes()
    order = [5, 5, 59, 0, 31, 30, 12]
    one, other = ClipFrames(data, backend="decord"), ClipFrames(data, backend="av")
    assert len(one) == len(other) == 60
    assert (one.get(order) == other.get(order)).all()
    assert (one.pts_ns == other.pts_ns).all() and one.pts_ns[0] >= 123_456_000


@pytest.mark.parametrize("backend", ["decord", "av"])
def test_frames_are_those_of_the_reader(clip: Path, backend: str) -> None:
    whole = [f.rgb for f in VideoReader(str(clip))]
    frames = ClipFrames(clip, backend=backend)
    draw = np.random.default_rng(3)
    for _ in range(4):
        order = draw.integers(0, 60, 5)
        got = frames.get(order)
        assert got.shape == (5, 512, 512, 3) and got.dtype == np.uint8
        assert all((g == whole[i]).all() for g, i in zip(got, order, strict=True))


@pytest.mark.parametrize("backend", ["decord", "av"])
def test_edges(clip: Path, backend: str) -> None:
    frames = ClipFrames(clip, backend=backend)
    assert frames.get([]).shape == (0, 512, 512, 3)
    with pytest.raises(IndexError, match="clip of 60"):
        frames.get([60])
    with pytest.raises(IndexError):
        frames.get([-1])
    assert (np.diff(frames.pts_ns) > 0).all() and frames.pts_ns[-1] < 10 * NS


def test_one_after_the_other(clip: Path) -> None:
    frames = ClipFrames(clip, backend="av")
    assert all((one == other).all() for one, other in zip(frames, frames.get(range(60)), strict=True))
