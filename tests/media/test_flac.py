"""Lossless sound."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from talkface.media import decode_flac, encode_flac


@settings(deadline=None, max_examples=25)
@given(arrays(np.int16, st.integers(0, 20_000)))
def test_round_trip_is_exact_and_repeatable(samples: np.ndarray) -> None:
    data = encode_flac(samples)
    assert data == encode_flac(samples)
    assert data[:4] == b"fLaC" and b"Lavf" not in data
    assert decode_flac(data).dtype == np.int16
    assert np.array_equal(decode_flac(data), samples)


def test_noise_and_silence() -> None:
    noise = np.random.default_rng(0).integers(-32_768, 32_768, 160_001).astype(np.int16)
    assert np.array_equal(decode_flac(encode_flac(noise)), noise)
    assert len(encode_flac(np.zeros(160_000, np.int16))) < 2_000
