"""The spectrogram against loops that follow its description, and against librosa's figures."""

import cmath
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkface.annotate.mel import filters, log_mel, n_rows

LIBROSA = {
    0: (-1.71443, -0.61562, -4.42128, -6.12125, -7.47303, -8.32473),
    7: (-11.51293, -11.51293, -11.51293, -4.2219, -11.48214, -11.51293),
    13: (-11.51293, -11.51293, -11.51293, -11.51293, -2.57351, -11.51293),
    19: (-6.80319, -6.80028, -6.77246, -6.65884, -6.12352, -4.63082),
}
"""Row to bands 0, 5, 20, 40, 60, 79 of `chirp` by librosa 0.11.0: stft(n_fft=800, hop_length=200) in float64, then
filters.mel(sr=16000, n_fft=800, n_mels=80, fmin=55, fmax=7600) on the magnitude."""


def chirp() -> np.ndarray:
    """A quarter of a second from 200 to 6200 Hz."""
    seconds = np.arange(4000) / 16000
    return np.round(8000 * np.sin(2 * np.pi * (200 * seconds + 12000 * seconds**2))).astype(np.int16)


def noise(n_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-3000, 3000, n_samples).astype(np.int16)


def tone(hz: float, seconds: float = 0.5) -> np.ndarray:
    return np.round(10000 * np.sin(2 * np.pi * hz * np.arange(int(16000 * seconds)) / 16000)).astype(np.int16)


def mel_hz(mel: float) -> float:
    """Slaney's scale: linear up to 1 kHz = 15 mel, then 27 mel for each factor of 6.4."""
    return mel * 1000 / 15 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)


def plain_row(samples: list[int], row: int) -> list[float]:
    """One row as the docstring of log_mel says, in loops."""
    windowed = []
    for n in range(800):
        at = 200 * row - 400 + n
        sample = samples[at] / 32768 if 0 <= at < len(samples) else 0.0
        windowed.append(sample * (0.5 - 0.5 * math.cos(2 * math.pi * n / 800)))
    turns = [cmath.exp(-2j * math.pi * n / 800) for n in range(800)]
    magnitude = [abs(sum(w * turns[k * n % 800] for n, w in enumerate(windowed) if w)) for k in range(401)]
    lowest, highest = 55 * 15 / 1000, 15 + 27 * math.log(7.6) / math.log(6.4)
    edges = [mel_hz(lowest + (highest - lowest) * i / 81) for i in range(82)]
    bands = []
    for low, peak, high in zip(edges[:-2], edges[1:-1], edges[2:], strict=True):
        total = 0.0
        for k in range(401):
            hz = 20 * k
            if low < hz < high:
                side = (hz - low) / (peak - low) if hz <= peak else (high - hz) / (high - peak)
                total += magnitude[k] * side * 2 / (high - low)
        bands.append(math.log(max(total, 1e-5)))
    return bands


@pytest.mark.parametrize("row", [0, 4, 9])
def test_equals_plain_loops(row: int) -> None:
    sound = noise(2000)
    np.testing.assert_allclose(log_mel(sound)[row], plain_row(sound.tolist(), row), atol=0.005)


@pytest.mark.parametrize(("row", "expected"), LIBROSA.items())
def test_equals_librosa(row: int, expected: tuple[float, ...]) -> None:
    np.testing.assert_allclose(log_mel(chirp())[row, [0, 5, 20, 40, 60, 79]], expected, atol=0.005)


@pytest.mark.parametrize(
    ("n_samples", "rows"), [(0, 0), (1, 1), (199, 1), (200, 1), (201, 2), (16000, 80), (16001, 81)]
)
def test_a_row_for_each_centre_in_the_sound(n_samples: int, rows: int) -> None:
    mel = log_mel(noise(n_samples))
    assert mel.shape == (rows, 80)
    assert mel.dtype == np.float16
    assert n_rows(n_samples) == rows


@settings(deadline=None, max_examples=25)
@given(n_samples=st.integers(0, 3000), shift=st.integers(0, 10))
def test_rows_stay_with_their_time(n_samples: int, shift: int) -> None:
    sound = noise(n_samples)
    later = log_mel(np.concatenate([np.zeros(200 * shift, np.int16), sound]))
    assert np.array_equal(later[shift:], log_mel(sound))


@settings(deadline=None, max_examples=25)
@given(n_samples=st.integers(0, 3000), seed=st.integers(0, 5))
def test_always_finite_and_above_the_floor(n_samples: int, seed: int) -> None:
    mel = log_mel(noise(n_samples, seed))
    assert np.isfinite(mel).all()
    assert (mel >= np.float16(np.log(1e-5))).all()


def test_a_click_is_loudest_at_its_time() -> None:
    sound = np.zeros(16000, np.int16)
    sound[8000] = 20000
    assert int(log_mel(sound).astype(float).sum(axis=1).argmax()) == 40


@pytest.mark.parametrize("hz", [120, 440, 1000, 3000, 7000])
def test_a_tone_is_in_its_band(hz: float) -> None:
    loudest = int(log_mel(tone(hz))[20].argmax())
    peaks = filters().argmax(axis=1) * 20
    assert abs(peaks[loudest] - hz) <= max(20, 0.05 * hz)


def test_ten_times_louder_adds_ln_ten() -> None:
    louder, quieter = log_mel(tone(1000))[20], log_mel(np.round(tone(1000) / 10).astype(np.int16))[20]
    assert louder.max() - quieter.max() == pytest.approx(math.log(10), abs=0.01)


def test_filters_have_the_area_of_one() -> None:
    assert (filters() >= 0).all()
    np.testing.assert_allclose(filters()[30:].sum(axis=1) * 20, 1, atol=0.05)
