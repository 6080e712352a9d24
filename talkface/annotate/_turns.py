"""Who speaks when several faces are in the picture, and where one speaker's words end and another's begin."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from jaxtyping import Float, Int, Int64

from talkface.annotate._pauses import quietest
from talkface.clip import NS

FLICKER_SECONDS: Final = 0.3
"""A face that has the highest odds for less than this, amid another's speech, does not interrupt it: about a word."""

REACH_NS: Final = NS // 4
"""How far a change of speaker is from the pause that it is moved to, at most: half a word."""

Places = Sequence[tuple[int, int]]
"""First moment of each clip, and the one after its last."""


def owners(talk: Float[np.ndarray, "clips times"]) -> Int[np.ndarray, " times"]:
    """Which clip speaks at each time: the one with the highest log-odds, -1 where all are below 0. NaN is silent."""
    odds = np.nan_to_num(talk, nan=-np.inf)
    return np.where(odds.max(axis=0) > 0, odds.argmax(axis=0), -1)


def runs(values: Int[np.ndarray, " times"]) -> list[tuple[int, int, int]]:
    """Start, end and value of each stretch of one value."""
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return [(start, end, int(values[start])) for start, end in pairwise(edges) if start < end]


def turns_of(
    owner: Int[np.ndarray, " times"],
    places: Places,
    times_ns: Int64[np.ndarray, " edges"],
    loud: Float[np.ndarray, " edges"],
    *,
    flicker_seconds: float,
    silence_seconds: float,
) -> Int[np.ndarray, " times"]:
    """Owners as people take turns: without flicker, with the short silences in a speech, changing in pauses.

    ``times_ns`` holds the time of each moment, and the end of the last; ``loud`` how loud it is then.
    """
    return _in_pauses(_joined(owner, times_ns, flicker_seconds, silence_seconds), places, times_ns, loud)


def _joined(
    owner: Int[np.ndarray, " times"], times_ns: Int64[np.ndarray, " edges"], flicker: float, silence: float
) -> Int[np.ndarray, " times"]:
    """What is between two stretches of one speaker is theirs: others' flicker and short silences."""
    steady, found = owner.copy(), runs(owner)
    for (_, _, before), (start, end, who), (_, _, after) in zip(found, found[1:], found[2:], strict=False):
        seconds = (times_ns[end] - times_ns[start]) / NS
        if before == after >= 0 and (seconds < flicker if who >= 0 else seconds <= silence):
            steady[start:end] = before
    return steady


def _in_pauses(
    owner: Int[np.ndarray, " times"],
    places: Places,
    times_ns: Int64[np.ndarray, " edges"],
    loud: Float[np.ndarray, " edges"],
) -> Int[np.ndarray, " times"]:
    """Owners with each change moved to a pause near it, so that no word is torn: log-odds pass zero in mid-word.

    That is the nearest of the quietest moments within `REACH_NS`; of a stretch half stays at least, and nobody gets a
    moment in which they are not seen.
    """
    moved = owner.copy()
    for (start, at, before), (_, end, after) in pairwise(runs(owner)):
        low, high = np.searchsorted(times_ns, (times_ns[at] - REACH_NS, times_ns[at] + REACH_NS + 1))
        low = max(low, at - (at - start) // 4, places[after][0] if after >= 0 else 0)
        high = min(high - 1, at + (end - at) // 4, places[before][1] if before >= 0 else len(owner))
        quiet = low + quietest(loud[low : high + 1])
        to = int(quiet[np.abs(times_ns[quiet] - times_ns[at]).argmin()])
        moved[at:to], moved[to:at] = before, after
    return moved
