"""Clips as mp4: exact times, fixed bytes, colours that come back."""

import io
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkface.clip import NS
from talkface.media import ClipFrames, VideoReader, VideoWriter, probe, read_sound
from tests.media.making import blip, centres, grey


def write(pts_ns: list[int], pictures: list[np.ndarray] | None = None, **options: object) -> bytes:
    pictures = pictures or [grey(i * 37 % 256, 32) for i in range(len(pts_ns))]
    file = io.BytesIO()
    with VideoWriter(file, pictures[0].shape[1], pictures[0].shape[0], **options) as writer:
        for rgb, pts in zip(pictures, pts_ns, strict=True):
            writer.write(rgb, pts)
    return file.getvalue()


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 20 * NS),
    st.lists(
        st.integers(1000, 2 * NS) | st.sampled_from([16_683_333, 33_366_667, 40_000_000]), min_size=1, max_size=40
    ),
)
def test_any_times_come_back(tmp_path_factory: pytest.TempPathFactory, first: int, steps: list[int]) -> None:
    pts = np.cumsum([first, *steps])
    data = write(pts.tolist())
    path = tmp_path_factory.mktemp("clip") / "a.mp4"
    path.write_bytes(data)
    rounded = (pts + 500) // 1000 * 1000
    assert ClipFrames(data).pts_ns.tolist() == rounded.tolist()
    got = [f.pts_ns for f in VideoReader(str(path))]
    assert got == (rounded - rounded[0]).tolist(), "a file without sound starts with its first frame"


def test_first_frame_after_zero_stays_there_beside_sound(tmp_path: Path) -> None:
    pts = [200_000_000, 240_000_000, 281_000_000, 333_000_000]
    path = tmp_path / "a.mp4"
    path.write_bytes(write(pts, sound=blip(16_000, 1.0, [0.5])))
    assert [f.pts_ns for f in VideoReader(str(path))] == pts
    heard = read_sound(str(path), 0, NS)
    assert abs(centres(heard.samples, [0.5])[0] - 0.5) < 1e-4
    assert heard.start_offset_ms == pytest.approx(-200, abs=0.1)


def test_same_calls_same_bytes() -> None:
    pts = [i * 40_000_000 for i in range(30)]
    sound = blip(16_000, 1.2, [0.5])
    data = write(pts, sound=sound)
    assert all(data == write(pts, sound=sound) for _ in range(30))
    assert b"Lavf" not in data and b"Lavc" not in data


def test_index_comes_first_and_dates_are_zero() -> None:
    data = write([i * 40_000_000 for i in range(10)])
    assert 0 < data.find(b"moov") < data.find(b"mdat")
    header = data.find(b"mvhd")
    assert data[header + 4 : header + 16] == bytes(12)


def test_key_frames_no_reordering_and_colour_tags() -> None:
    pts = [round(i * NS / 30) for i in range(90)]
    with av.open(io.BytesIO(write(pts, keyframe_seconds=0.5))) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt, context.has_b_frames) == ("h264", "yuv420p", False)
        assert (context.colorspace, context.color_range, context.color_primaries, context.color_trc) == (6, 1, 6, 6)
        packets = [p for p in container.demux(stream) if p.size]
    assert all(p.pts == p.dts for p in packets)
    keys = [p.pts * p.time_base for p in packets if p.is_keyframe]
    assert [float(k) for k in keys] == pytest.approx([0, 0.5, 1.0, 1.5, 2.0, 2.5], abs=1e-4)


def test_last_frame_lasts_as_long_as_the_one_before() -> None:
    with av.open(io.BytesIO(write([0, 40_000_000, 140_000_000]))) as container:
        durations = [p.duration * p.time_base for p in container.demux(video=0) if p.size]
    assert [float(d) for d in durations] == pytest.approx([0.04, 0.1, 0.1], abs=1e-5)
    with av.open(io.BytesIO(write([0]))) as container:
        assert container.duration == 40_000


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 150, 120)])
@pytest.mark.parametrize("size", [64, 1088])
def test_colours_come_back(tmp_path: Path, colour: tuple[int, int, int], size: int) -> None:
    rgb = np.full((size, size, 3), colour, np.uint8)
    path = tmp_path / "a.mp4"
    path.write_bytes(write([0, 40_000_000], [rgb, rgb], crf=8))
    for frame in VideoReader(str(path)):
        assert np.abs(frame.rgb.reshape(-1, 3).mean(0) - colour).max() < 4


def test_real_pictures_come_back(media: Path, tmp_path: Path) -> None:
    frames = list(VideoReader(str(media / "talking/LivePortrait__d11.mp4"), end_ns=NS))
    path = tmp_path / "my clip.mp4"
    with VideoWriter(path, 512, 512) as writer:
        for frame in frames:
            writer.write(frame.rgb, frame.pts_ns)
    again = list(VideoReader(str(path)))
    assert [f.pts_ns for f in again] == [f.pts_ns for f in frames]
    errors = [np.mean((a.rgb.astype(float) - b.rgb) ** 2) for a, b in zip(again, frames, strict=True)]
    assert 10 * np.log10(255**2 / np.max(errors)) > 38
    facts = probe(str(path))
    assert (facts.width, facts.height, facts.duration) == (512, 512, 1.0)


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="even"):
        VideoWriter(io.BytesIO(), 33, 32)
    with VideoWriter(io.BytesIO(), 32, 32) as writer:
        writer.write(grey(0, 32), 5_000_000)
        with pytest.raises(ValueError, match="rise"):
            writer.write(grey(0, 32), 5_000_300)
        with pytest.raises(ValueError, match="expected uint8"):
            writer.write(grey(0, 34), 9_000_000)
        with pytest.raises(ValueError, match="from 0 on"):
            writer.write(grey(0, 32), -9_000_000)


def test_nothing_is_written_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with pytest.raises(RuntimeError), VideoWriter(path, 32, 32) as writer:
        writer.write(grey(0, 32), 0)
        raise RuntimeError
    assert not path.exists()
