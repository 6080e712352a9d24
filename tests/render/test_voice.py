"""The voice: sound and mouth on one clock, silence in pauses, pitch and formants where they were asked for."""

import numpy as np
import pytest
import torch
from scipy.signal import welch
from silero_vad import get_speech_timestamps, load_silero_vad

from talkface.render.identity import Identity
from talkface.render.synthetic import PEOPLE
from talkface.render.voice import VOWELS, Speech, _resonate, speak
from talkface.vocab import ARKIT, SAMPLE_RATE

SECONDS = 8.0


@pytest.fixture(scope="module")
def speech() -> Speech:
    return speak(SECONDS, Identity(), np.random.default_rng(1))


def spoken(speech: Speech, margin: float = 0.0) -> np.ndarray:
    """Which samples lie in a phrase, widened by ``margin`` seconds."""
    t = np.arange(len(speech.sound)) / SAMPLE_RATE
    return np.any([(t >= a - margin) & (t <= b + margin) for a, b in speech.phrases], axis=0)


def level(speech: Speech) -> np.ndarray:
    """Loudness in 40 ms around each sample."""
    power = np.convolve((speech.sound / 32768.0) ** 2, np.ones(640) / 640, "same")
    return np.sqrt(np.maximum(power, 0))


def test_length_and_type(speech: Speech) -> None:
    assert speech.sound.dtype == np.int16 and len(speech.sound) == SECONDS * SAMPLE_RATE
    assert 0.3 < np.abs(speech.sound).max() / 32768 < 0.99


def test_same_seed_same_sound(speech: Speech) -> None:
    again = speak(SECONDS, Identity(), np.random.default_rng(1))
    other = speak(SECONDS, Identity(), np.random.default_rng(2))
    assert np.array_equal(again.sound, speech.sound) and np.array_equal(again.mouth_curves, speech.mouth_curves)
    assert not np.array_equal(other.sound, speech.sound)


def test_pauses_are_silent_and_shut(speech: Speech) -> None:
    pause = ~spoken(speech, margin=0.08)
    assert pause.mean() > 0.08
    assert level(speech)[pause].max() < 0.02 * level(speech)[spoken(speech)].mean()
    ticks = np.arange(len(speech.sound))[pause] / SAMPLE_RATE
    assert speech.mouth(ticks[::160])[:, ARKIT.index("jawOpen")].max() < 0.02


def test_energy_goes_with_the_open_mouth(speech: Speech) -> None:
    t = np.arange(0, SECONDS, 0.04)
    jaw = speech.mouth(t)[:, ARKIT.index("jawOpen")]
    loud = level(speech)[(t * SAMPLE_RATE).astype(int)]
    assert np.corrcoef(jaw, loud)[0, 1] > 0.75


def test_sound_and_mouth_do_not_lag(speech: Speech) -> None:
    """The best alignment of opening and loudness is within a frame of zero."""
    t = np.arange(0.5, SECONDS - 0.5, 0.01)
    jaw = speech.mouth(t)[:, ARKIT.index("jawOpen")]
    lags = np.arange(-20, 21) * 0.01
    score = [np.corrcoef(jaw, level(speech)[((t + lag) * SAMPLE_RATE).astype(int)])[0, 1] for lag in lags]
    assert abs(lags[int(np.argmax(score))]) <= 0.04


def test_turns_limit_speech() -> None:
    speech = speak(6.0, Identity(), np.random.default_rng(3), turns=[(3.0, 5.5)])
    assert speech.phrases[0][0] == 3.0 and speech.phrases[-1][1] <= 5.6
    assert np.abs(speech.sound[: int(2.9 * SAMPLE_RATE)]).max() < 40


@pytest.mark.parametrize("hertz", [110.0, 200.0])
def test_pitch_is_the_persons(hertz: float) -> None:
    speech = speak(6.0, Identity(voice_hz=hertz), np.random.default_rng(4))
    sound = speech.sound[spoken(speech)] / 32768.0
    blocks = sound[: len(sound) // 640 * 640].reshape(-1, 640)
    loud = blocks[blocks.std(axis=1) > np.quantile(blocks.std(axis=1), 0.5)]
    lags = np.arange(int(SAMPLE_RATE / 320), int(SAMPLE_RATE / 70))
    match = [[np.corrcoef(b[:-lag], b[lag:])[0, 1] for lag in lags] for b in loud[:60]]
    heard = SAMPLE_RATE / lags[np.argmax(match, axis=1)]
    assert np.median(heard) == pytest.approx(hertz, rel=0.2)


@pytest.mark.parametrize("name", VOWELS)
def test_formants_ring_where_asked(name: str) -> None:
    """Noise through a vowel's resonators peaks at its first formant."""
    noise = np.random.default_rng(0).normal(size=80 * 400)
    frequency, power = welch(
        _resonate(noise, np.tile(np.array(VOWELS[name].formants, float), (400, 1))), SAMPLE_RATE, nperseg=1024
    )
    low = frequency < 1.3 * VOWELS[name].formants[0]
    assert frequency[low][np.argmax(power[low])] == pytest.approx(VOWELS[name].formants[0], rel=0.15)


@pytest.mark.parametrize("name", PEOPLE)
def test_speech_detector_hears_speech(name: str) -> None:
    speech = speak(6.0, PEOPLE[name], np.random.default_rng(5))
    sound = torch.from_numpy(speech.sound.astype(np.float32) / 32768)
    heard = np.zeros(len(sound), bool)
    for span in get_speech_timestamps(sound, load_silero_vad(), sampling_rate=SAMPLE_RATE):
        heard[span["start"] : span["end"]] = True
    assert heard[spoken(speech)].mean() > 0.5
