"""Who speaks when several faces are in the picture, and where one speaker's words end and another's begin."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Int, Int64

from talkface.clip import NS, runs
from talkface.speech.loudness import quiet

MOVES: Final = 0.015
"""A mouth whose ``lip_motion`` is less is still: a millimetre or so."""

STILL: Final = 3.0
"""What a still mouth takes from the log-odds of its face: those who listen are still more than twenty times as often as
those who speak aloud (`test_speaker`), and ln 20 is 3."""

FLICKER_SECONDS: Final = 0.3
"""A face whose claim is the strongest for less than this, amid another's speech, does not interrupt: about a word."""

REACH_NS: Final = NS // 4
"""How far a change of speaker is from the pause that it is moved to, at most: half a word."""

Seen = Sequence[tuple[int, Bool[np.ndarray, " _moments"]]]
"""Of each clip its first moment, and from there to its end in which moments its face is seen."""


def claims(talk: Float[np.ndarray, " times"], lip_motion: Float[np.ndarray, " times"]) -> Float[np.ndarray, " times"]:
    """How strong a face's claim to each moment is: its log-odds of speaking, less `STILL` where its mouth is still.

    -inf where its log-odds are against it, NaN where they are not known: it is not seen then.
    """
    claim = talk - STILL * (lip_motion < MOVES)
    return np.where(talk <= 0, -np.inf, claim)


def owners(claim: Float[np.ndarray, "clips times"]) -> Int[np.ndarray, " times"]:
    """Which clip speaks at each time: the one with the strongest of `claims`, -1 where none has any."""
    strength = np.where(np.isnan(claim), -np.inf, claim)
    return np.where(strength.max(axis=0) > -np.inf, strength.argmax(axis=0), -1)


def turns_of(
    owner: Int[np.ndarray, " times"],
    seen: Seen,
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
    steady = _bridged(_steadied(owner, seen, times_ns, round(flicker_seconds * NS)), times_ns, silence_seconds)
    return _in_pauses(steady, seen, times_ns, loud)


def context_ns(*, flicker_seconds: float, silence_seconds: float) -> int:
    """From how far around it is decided who has a moment: a change may come from `REACH_NS` away, by how long its two
    stretches are, up to four times that, and these by a silence and the flicker at its ends; the rest is for frames."""
    return 6 * REACH_NS + round((2 * flicker_seconds + silence_seconds) * NS) + NS


def _steadied(
    owner: Int[np.ndarray, " times"], seen: Seen, times_ns: Int64[np.ndarray, " edges"], flicker_ns: int
) -> Int[np.ndarray, " times"]:
    """Each moment in which somebody speaks is theirs who speak most around it, from ``flicker_ns`` before it to as
    long after it, of those who are seen in it: between another's speech what is shorter is gone."""
    most, steady = np.zeros(len(owner), np.int64), owner.copy()
    middles = (times_ns[:-1] + times_ns[1:]) // 2
    for who, (first, is_seen) in enumerate(seen):
        here = slice(first, first + len(is_seen))
        speaks, edges = owner[here] == who, times_ns[first : here.stop + 1]
        before, after = (_spoken_ns(speaks, edges, middles[here] + by) for by in (-flicker_ns, flicker_ns))
        around = after - before + speaks  # of two who speak as much it stays with whose it is
        wins = is_seen & (owner[here] >= 0) & (around > most[here])
        most[here], steady[here] = np.where(wins, around, most[here]), np.where(wins, who, steady[here])
    return steady


def _spoken_ns(
    speaks: Bool[np.ndarray, " times"], edges_ns: Int64[np.ndarray, " edges"], until_ns: Int64[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """How long somebody has spoken until then. In whole numbers, which do not depend on where counting began."""
    until_ns = np.clip(until_ns, edges_ns[0], edges_ns[-1])
    spoken = np.concatenate([[0], np.cumsum(speaks * np.diff(edges_ns))])
    moment = np.minimum(np.searchsorted(edges_ns, until_ns, side="right") - 1, len(speaks) - 1)
    return np.asarray(spoken[moment] + (until_ns - edges_ns[moment]) * speaks[moment])


def _bridged(
    owner: Int[np.ndarray, " times"], times_ns: Int64[np.ndarray, " edges"], silence_seconds: float
) -> Int[np.ndarray, " times"]:
    """Short silences between two stretches of one speaker are theirs."""
    bridged, found = owner.copy(), runs(owner)
    for (_, _, before), (start, end, who), (_, _, after) in zip(found, found[1:], found[2:], strict=False):
        if who < 0 and before == after and times_ns[end] - times_ns[start] <= silence_seconds * NS:
            bridged[start:end] = before
    return bridged


def _in_pauses(
    owner: Int[np.ndarray, " times"],
    seen: Seen,
    times_ns: Int64[np.ndarray, " edges"],
    loud: Float[np.ndarray, " edges"],
) -> Int[np.ndarray, " times"]:
    """Owners with each change moved to a pause near it, so that no word is torn: claims cross in mid-word.

    That is the nearest of the quietest moments within `REACH_NS`; of a stretch half stays at least, and nobody gets a
    moment in which they are not seen. Who speaks from the first moment they are seen in, or to the last, keeps it.
    """
    moved = owner.copy()
    for (start, at, before), (_, end, after) in pairwise(runs(owner)):
        low = _seen_since(*seen[after], at) if after >= 0 else 0
        high = _seen_until(*seen[before], at) if before >= 0 else len(owner)
        if (before < 0 and low == at) or (after < 0 and high == at):
            continue
        earliest = times_ns[at] - min(REACH_NS, (times_ns[at] - times_ns[start]) // 4)
        latest = times_ns[at] + min(REACH_NS, (times_ns[end] - times_ns[at]) // 4)
        near = np.arange(max(low, np.searchsorted(times_ns, earliest)), high + 1)
        near = near[times_ns[near] <= latest]
        pauses = near[quiet(loud[near])]
        to = int(pauses[np.abs(times_ns[pauses] - times_ns[at]).argmin()])
        moved[at:to], moved[to:at] = before, after
    return moved


def _seen_since(first: int, is_seen: Bool[np.ndarray, " moments"], at: int) -> int:
    """The moment from which a face is seen without a break up to ``at``."""
    gaps = np.flatnonzero(~is_seen[: at - first])
    return first + (int(gaps[-1]) + 1 if len(gaps) else 0)


def _seen_until(first: int, is_seen: Bool[np.ndarray, " moments"], at: int) -> int:
    """The moment up to which a face is seen without a break from ``at`` on."""
    gaps = np.flatnonzero(~is_seen[at - first :])
    return at + int(gaps[0]) if len(gaps) else first + len(is_seen)
