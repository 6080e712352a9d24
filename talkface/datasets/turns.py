"""Who speaks when several faces of a source are in the picture: each moment has one owner at most."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc
from jaxtyping import Float, Int64

from talkface.clip import NS, runs
from talkface.datasets.reader import Dataset
from talkface.speech.loudness import AROUND_NS, loudness
from talkface.speech.turns import FLICKER_SECONDS, Seen, claims, turns_of

STEP_NS: Final = NS // 25


@dataclass(frozen=True)
class Turn:
    """A stretch in which one clip's face speaks, in ns from that clip's start, as `Dataset.span` takes it."""

    key: str
    start_ns: int
    end_ns: int


def turns(
    dataset: Dataset, source: str, *, min_seconds: float = FLICKER_SECONDS, silence_seconds: float = 0.3
) -> list[Turn]:
    """The turns of all tracks of a source by time; none overlap. Needs the column ``talk`` (``--with speaker``).

    A moment belongs to the face with the highest log-odds of speaking, to none where all are below 0. Where several are
    above 0, a still mouth counts against its face (``lip_motion``; a dataset that was made before there was this column
    goes by the log-odds alone). What is shorter than ``min_seconds``, about a word, is theirs who speak before and
    after it, else nobody's; a silence of up to ``silence_seconds`` in the middle of a turn belongs to it. Where one
    turn ends and another begins, a pause within a quarter of a second is looked for, so that each word has one owner.
    """
    mine = dataset.clips.filter(pc.field("source") == source)
    clips = mine.select(["key", "start_ns", "end_ns"]).to_pylist()
    if not clips:
        return []
    start_ns = min(clip["start_ns"] for clip in clips)
    times = np.arange(start_ns, max(clip["end_ns"] for clip in clips) + STEP_NS, STEP_NS)
    places = [_place(times, clip) for clip in clips]
    owner, loud, seen = _heard(dataset, clips, places, times)
    owner = turns_of(owner, seen, times, loud, flicker_seconds=min_seconds, silence_seconds=silence_seconds)
    found = [_turn(clips[who], times[start], times[end]) for start, end, who in runs(owner) if who >= 0]
    return [turn for turn in found if turn.end_ns - turn.start_ns >= min_seconds * NS]


def _place(times: Int64[np.ndarray, " edges"], clip: Mapping[str, Any]) -> tuple[int, int]:
    first, after = np.searchsorted(times, (clip["start_ns"], clip["end_ns"]))
    return int(first), int(after)


def _turn(clip: Mapping[str, Any], start_ns: int, end_ns: int) -> Turn:
    """A clip's turn between two times of the source; its last moment may lie beyond its end."""
    return Turn(clip["key"], int(start_ns) - clip["start_ns"], int(min(end_ns, clip["end_ns"])) - clip["start_ns"])


def _heard(
    dataset: Dataset,
    clips: Sequence[Mapping[str, Any]],
    places: Sequence[tuple[int, int]],
    times: Int64[np.ndarray, " edges"],
) -> tuple[Int64[np.ndarray, " times"], Float[np.ndarray, " edges"], Seen]:
    """Which clip speaks in each moment of the source, -1 for nobody, how loud it is then, and when each is seen.

    One clip at a time is in memory.
    """
    seen, moments = [], len(times) - 1
    best, owner, loud = np.full(moments, -np.inf), np.full(moments, -1), np.full(len(times), np.nan)
    for who, (clip, (first, after)) in enumerate(zip(clips, places, strict=True)):
        length_ns, here = clip["end_ns"] - clip["start_ns"], slice(first, after + 1)
        at = np.minimum(times[here] - clip["start_ns"], length_ns)
        claim = _claims(dataset, clip["key"], at[:-1])
        owner[first:after] = np.where(claim > best[first:after], who, owner[first:after])
        best[first:after] = np.fmax(claim, best[first:after])
        seen.append((first, ~np.isnan(claim)))
        if np.isfinite(claim).any():
            sound = dataset.span(clip["key"], 0, length_ns, ["pts"], sound=True)["sound"]
            hears = np.isnan(loud[here]) | ((at >= AROUND_NS // 2) & (at <= length_ns - AROUND_NS // 2))
            loud[here] = np.where(hears, loudness(sound, 0, at), loud[here])
    return owner, np.nan_to_num(loud, nan=np.inf), seen


def _claims(dataset: Dataset, key: str, times_ns: Int64[np.ndarray, " times"]) -> Float[np.ndarray, " times"]:
    motion = np.full(len(times_ns), np.nan)
    if any(spec.name == "lip_motion" for spec in dataset.specs()):
        motion = dataset.column(key, "lip_motion", times_ns)
    return claims(dataset.column(key, "talk", times_ns), motion)
