"""Pauses too short to be silences: the moments in which a sound is quietest, most likely between two words."""

from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Int16, Int64

from talkface.clip import NS
from talkface.vocab import SAMPLE_RATE

AROUND_NS: Final = 60_000_000
"""Over how long loudness is taken: some periods of a voice, less than a pause."""

AS_QUIET: Final = 2.0
"""A moment whose power is up to this many times that of the quietest is as quiet (3 dB)."""


def loudness(
    sound: Int16[np.ndarray, " samples"], start_ns: int, times_ns: Int64[np.ndarray, " times"]
) -> Float[np.ndarray, " times"]:
    """Mean power of the 60 ms around each time, of what lies within the sound; 0 where none of it does."""
    at = (times_ns - start_ns + np.array([[-AROUND_NS // 2], [AROUND_NS // 2]])) * (SAMPLE_RATE / NS)
    ends = np.clip(np.rint(at).astype(np.int64), 0, len(sound))
    low, high = int(ends.min()), int(ends.max())
    power = np.concatenate([[0.0], np.cumsum(sound[low:high].astype(np.float64) ** 2)])
    first, last = ends - low
    return np.asarray((power[last] - power[first]) / np.maximum(last - first, 1))


def quiet(loud: Float[np.ndarray, " times"]) -> Bool[np.ndarray, " times"]:
    """Which of these moments are as quiet as the quietest."""
    return loud <= AS_QUIET * loud.min()
