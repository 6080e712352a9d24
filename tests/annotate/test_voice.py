"""Speech, pauses and levels of real speech, checked against silero-vad itself and against known sounds."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io.wavfile
import silero_vad
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from talkface.annotate.voice import Voice, VoiceConfig, level_db, loudness_lufs, silence_share, snr_db
from talkface.weights import Models


@pytest.fixture(scope="module")
def voice() -> Voice:
    return Voice(Models(offline=True).get("silero_vad"))


@pytest.fixture(scope="module")
def speech(media: Path) -> np.ndarray:
    """Ten seconds of a speech with pauses."""
    rate, sound = scipy.io.wavfile.read(media / "talking" / "styletalk__reagan_clip1.wav")
    assert (rate, sound.dtype) == (16000, np.int16)
    return np.asarray(sound[:160_000])


def tone(hz: float, peak: float, seconds: float = 5.0) -> np.ndarray:
    return np.round(32767 * peak * np.sin(2 * np.pi * hz * np.arange(int(16000 * seconds)) / 16000)).astype(np.int16)


def window_by_window(sound: np.ndarray) -> list[float]:
    """The package's own model, as its documentation uses it."""
    model = silero_vad.load_silero_vad()
    padded = np.pad(sound.astype(np.float32) / 32768, (0, -len(sound) % 512)).reshape(-1, 512)
    with torch.no_grad():
        return [model(torch.from_numpy(window), 16000).item() for window in padded]


def test_probabilities_equal_the_package(voice: Voice, speech: np.ndarray) -> None:
    sound = speech[:100_100]
    probabilities = voice.probabilities(sound)
    assert probabilities.dtype == np.float32
    assert probabilities.min() < 0.1
    assert probabilities.max() > 0.9
    np.testing.assert_allclose(probabilities, window_by_window(sound), atol=1e-4)


def test_blocks_do_not_show(voice: Voice, speech: np.ndarray) -> None:
    """The state goes on from one block of 512 windows to the next."""
    long = np.concatenate([speech, speech])
    assert len(long) > 512 * 512
    expected = window_by_window(long)[507:552]
    np.testing.assert_allclose(voice.probabilities(long)[507:552], expected, atol=1e-4)


@settings(deadline=None, max_examples=10)
@given(
    threshold=st.floats(0.02, 0.98),
    min_speech_seconds=st.sampled_from([0, 0.1, 0.25, 1]),
    min_silence_seconds=st.sampled_from([0, 0.05, 0.1, 0.5]),
    pad_seconds=st.sampled_from([0, 0.03, 0.2]),
)
@example(0.5, 0.25, 0.1, 0.03)
def test_spans_equal_the_package(
    voice: Voice,
    speech: np.ndarray,
    threshold: float,
    min_speech_seconds: float,
    min_silence_seconds: float,
    pad_seconds: float,
) -> None:
    lengths = {"min_speech": min_speech_seconds, "min_silence": min_silence_seconds, "speech_pad": pad_seconds}
    expected = silero_vad.get_speech_timestamps_from_probs(
        voice.probabilities(speech).tolist(),
        threshold=threshold,
        audio_length_samples=len(speech),
        **{f"{name}_{'ms' if name == 'speech_pad' else 'duration_ms'}": 1000 * v for name, v in lengths.items()},
    )
    voice.config = VoiceConfig(
        threshold=threshold,
        min_speech_seconds=min_speech_seconds,
        min_silence_seconds=min_silence_seconds,
        pad_seconds=pad_seconds,
    )
    found = voice.speech_spans(speech)
    voice.config = VoiceConfig()
    assert found == [(span["start"] * 62500, span["end"] * 62500) for span in expected]


def test_forgets_the_sound_before(voice: Voice, speech: np.ndarray) -> None:
    once = voice.probabilities(speech)
    voice.probabilities(speech[::-1])
    assert np.array_equal(voice.probabilities(speech), once)


def test_finds_the_pause_between_two_stretches_of_speech(voice: Voice, speech: np.ndarray) -> None:
    sound = np.concatenate([speech[16000:48000], np.zeros(16000, np.int16), speech[16000:48000]])
    start, end = max(voice.pauses(sound), key=lambda span: span[1] - span[0])
    assert start == pytest.approx(2.0e9, abs=0.2e9)
    assert end == pytest.approx(3.0e9, abs=0.2e9)


@settings(deadline=None, max_examples=15)
@given(start=st.integers(0, 100_000), length=st.integers(0, 40_000))
def test_speech_and_pauses_cover_the_sound_once(voice: Voice, speech: np.ndarray, start: int, length: int) -> None:
    sound = speech[start : start + length]
    spans = sorted([*voice.speech_spans(sound), *voice.pauses(sound)])
    assert all(a < b for a, b in spans)
    assert [t for span in spans for t in span[:1]] == [0, *(b for _, b in spans)][: len(spans)]
    assert (spans[-1][1] if spans else 0) == len(sound) * 62500


def test_noise_and_silence_are_no_speech(voice: Voice) -> None:
    noise = np.random.default_rng(0).normal(0, 500, 48000).astype(np.int16)
    for sound in (noise, np.zeros(48000, np.int16)):
        assert voice.speech_spans(sound) == []
        assert voice.pauses(sound) == [(0, 3_000_000_000)]


def test_loudness_of_the_standard_tone() -> None:
    """BS.1770: a 997 Hz sine of full scale in one channel has -3.01 LUFS."""
    assert loudness_lufs(tone(997, 1.0)) == pytest.approx(-3.01, abs=0.05)
    assert loudness_lufs(tone(997, 0.1)) == pytest.approx(-23.01, abs=0.05)


def test_loudness_follows_the_ear() -> None:
    """The K curve: 4 dB up at high frequencies, down at the lowest."""
    assert loudness_lufs(tone(5000, 0.5)) - loudness_lufs(tone(997, 0.5)) == pytest.approx(3.3, abs=0.3)
    assert loudness_lufs(tone(30, 0.5)) < loudness_lufs(tone(997, 0.5)) - 5


def test_loudness_ignores_the_silence_between() -> None:
    loud = tone(997, 0.5)
    assert loudness_lufs(np.concatenate([loud, np.zeros(80_000, np.int16)])) == pytest.approx(
        loudness_lufs(loud), abs=0.3
    )


def test_loudness_of_real_speech(media: Path) -> None:
    """-20.1 LUFS by the ebur128 filter of FFmpeg."""
    _, sound = scipy.io.wavfile.read(media / "talking" / "styletalk__reagan_clip1.wav")
    assert loudness_lufs(sound) == pytest.approx(-20.1, abs=0.1)


@pytest.mark.parametrize("sound", [np.zeros(0, np.int16), tone(997, 1.0, 0.39), np.zeros(16000, np.int16)])
def test_no_loudness(sound: np.ndarray) -> None:
    assert np.isnan(loudness_lufs(sound))


def test_levels() -> None:
    assert level_db(tone(440, 1.0)) == pytest.approx(-3.01, abs=0.01)
    assert level_db(tone(440, 0.1)) == pytest.approx(-23.01, abs=0.01)
    assert level_db(np.zeros(100, np.int16)) == pytest.approx(-90.31, abs=0.01)
    assert np.isnan(level_db(np.zeros(0, np.int16)))


def test_snr_is_the_level_between() -> None:
    sound = np.concatenate([tone(440, 0.5, 1.0), tone(440, 0.005, 1.0)])
    speech = np.arange(32000) < 16000
    assert snr_db(sound, speech) == pytest.approx(40, abs=0.1)
    assert np.isnan(snr_db(sound, np.ones(32000, bool)))
    assert np.isnan(snr_db(sound, np.arange(32000) < 1599))


def test_silence_share() -> None:
    sound = np.concatenate([np.zeros(8000, np.int16), np.ones(8000, np.int16), tone(440, 0.5, 1.0)])
    assert silence_share(sound) == pytest.approx(0.5, abs=0.01)
    assert silence_share(np.full(160, -32768, np.int16)) == 0
    assert np.isnan(silence_share(np.zeros(0, np.int16)))
