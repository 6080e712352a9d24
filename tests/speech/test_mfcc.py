"""Mel cepstra against the definition, one window, one bin and one coefficient at a time."""

import math

import numpy as np
import pytest

from talkface.speech.mfcc import filters, mfcc


def by_hand(sound: list[int]) -> list[list[float]]:
    """The cepstra by loops over the definition."""
    x = [float(sound[0])] + [sound[i] - 0.97 * sound[i - 1] for i in range(1, len(sound))]
    n_rows = 1 if len(x) <= 400 else 1 + math.ceil((len(x) - 400) / 160)
    mel = [i * 2595 * math.log10(1 + 8000 / 700) / 27 for i in range(28)]
    bins = [math.floor(513 * 700 * (10 ** (m / 2595) - 1) / 16000) for m in mel]
    rows = []
    for row in range(n_rows):
        part = x[160 * row : 160 * row + 400]
        power = []
        for k in range(257):
            angle = [2 * math.pi * k * n / 512 for n in range(len(part))]
            real = sum(v * math.cos(a) for v, a in zip(part, angle, strict=True))
            imaginary = sum(v * math.sin(a) for v, a in zip(part, angle, strict=True))
            power.append((real**2 + imaginary**2) / 512)
        energy = sum(power) or 2**-52
        logs = []
        for j in range(26):
            low, peak, high = bins[j : j + 3]
            band = sum(power[i] * (i - low) / (peak - low) for i in range(low, peak))
            band += sum(power[i] * (high - i) / (high - peak) for i in range(peak, high))
            logs.append(math.log(band or 2**-52))
        cepstra = []
        for c in range(13):
            scale = math.sqrt((1 if c == 0 else 2) / 26) * (1 + 11 * math.sin(math.pi * c / 22))
            cepstra.append(scale * sum(v * math.cos(math.pi * c * (2 * j + 1) / 52) for j, v in enumerate(logs)))
        rows.append([math.log(energy), *cepstra[1:]])
    return rows


@pytest.mark.parametrize("n_samples", [1, 400, 401, 900])
def test_is_the_definition(n_samples: int) -> None:
    sound = np.random.default_rng(n_samples).normal(0, 3000, n_samples).astype(np.int16)
    np.testing.assert_allclose(mfcc(sound), by_hand(sound.tolist()), atol=1e-8)


def test_silence_is_finite() -> None:
    assert np.isfinite(mfcc(np.zeros(1600, np.int16))).all()


def test_a_hundred_rows_a_second() -> None:
    assert len(mfcc(np.zeros(16000, np.int16))) == 99
    assert filters().shape == (26, 257)
