"""Who speaks when several faces are in the picture, and where one speaker's words end and another's begin."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Int, Int64

from talkface.annotate._pauses import quiet
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


def runs(values: Int[np.ndarray, " times"] | Bool[np.ndarray, " times"]) -> list[tuple[int, int, int]]:
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

    ``times_ns`` holds the time of each moment, and the end of the last; ``loud`` how loud it is then. Who has a moment
    does not depend on what is further from it than `context_ns`.
    """
    return _in_pauses(_joined(owner, times_ns, flicker_seconds, silence_seconds), places, times_ns, loud)


def context_ns(*, flicker_seconds: float, silence_seconds: float) -> int:
    """From how far around it is decided who has a moment: a change may come from `REACH_NS` away, by how long its two
    stretches are, up to four times that, and these by what is between them and their next, twice; a frame has room."""
    return 6 * REACH_NS + 2 * round((flicker_seconds + max(flicker_seconds, silence_seconds)) * NS)


def _joined(
    owner: Int[np.ndarray, " times"], times_ns: Int64[np.ndarray, " edges"], flicker: float, silence: float
) -> Int[np.ndarray, " times"]:
    """What is between two stretches of one speaker is theirs: others' flicker first, then short silences."""
    steady = owner.copy()
    firm = [r for r in runs(owner) if r[2] >= 0 and _seconds(r, times_ns) >= flicker]
    for (_, start, before), (end, _, after) in pairwise(firm):
        if before == after and _seconds((start, end), times_ns) <= max(flicker, silence):
            steady[start:end] = before
    found = runs(steady)
    for (_, _, before), gap, (_, _, after) in zip(found, found[1:], found[2:], strict=False):
        if gap[2] < 0 and before == after and _seconds(gap, times_ns) <= silence:
            steady[gap[0] : gap[1]] = before
    return steady


def _seconds(stretch: tuple[int, ...], times_ns: Int64[np.ndarray, " edges"]) -> float:
    return float(times_ns[stretch[1]] - times_ns[stretch[0]]) / NS


def _in_pauses(
    owner: Int[np.ndarray, " times"],
    places: Places,
    times_ns: Int64[np.ndarray, " edges"],
    loud: Float[np.ndarray, " edges"],
) -> Int[np.ndarray, " times"]:
    """Owners with each change moved to a pause near it, so that no word is torn: log-odds pass zero in mid-word.

    That is the nearest of the quietest moments within `REACH_NS`; of a stretch half stays at least, and nobody gets a
    moment in which they are not seen. Who speaks from a clip's first moment, or to its last, keeps it.
    """
    moved = owner.copy()
    for (start, at, before), (_, end, after) in pairwise(runs(owner)):
        if (before < 0 and at == places[after][0]) or (after < 0 and at == places[before][1]):
            continue
        earliest = times_ns[at] - min(REACH_NS, (times_ns[at] - times_ns[start]) // 4)
        latest = times_ns[at] + min(REACH_NS, (times_ns[end] - times_ns[at]) // 4)
        low, high = np.searchsorted(times_ns, (earliest, latest + 1))
        low = max(low, places[after][0] if after >= 0 else 0)
        high = min(high, places[before][1] + 1 if before >= 0 else len(times_ns))
        pauses = low + np.flatnonzero(quiet(loud[low:high]))
        to = int(pauses[np.abs(times_ns[pauses] - times_ns[at]).argmin()])
        moved[at:to], moved[to:at] = before, after
    return moved
