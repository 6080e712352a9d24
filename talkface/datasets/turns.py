"""Who speaks when several faces of a source are in the picture: each moment has one owner at most."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc
from jaxtyping import Int, Int64

from talkface.annotate._turns import runs
from talkface.clip import NS
from talkface.datasets.reader import Dataset

STEP_NS: Final = NS // 25


@dataclass(frozen=True)
class Turn:
    """A stretch in which one clip's face speaks, in ns from that clip's start, as `Dataset.span` takes it."""

    key: str
    start_ns: int
    end_ns: int


def turns(dataset: Dataset, source: str, *, min_seconds: float = 0.3) -> list[Turn]:
    """The turns of all tracks of a source by time; none overlap. Needs the column ``talk`` (``--with speaker``).

    A moment belongs to the face with the highest log-odds of speaking, to none where all are below 0. What is shorter
    than ``min_seconds``, about a word, goes to the turn before it, so that a flicker of the odds tears no word apart.
    """
    mine = dataset.clips.filter(pc.field("source") == source)
    clips = mine.select(["key", "start_ns", "end_ns"]).to_pylist()
    if not clips:
        return []
    first = min(clip["start_ns"] for clip in clips)
    times = np.arange(first, max(clip["end_ns"] for clip in clips), STEP_NS)
    found = runs(steadied(_owners(dataset, clips, times), round(min_seconds * NS / STEP_NS)))
    return [_turn(clips[who], first + start * STEP_NS, first + end * STEP_NS) for start, end, who in found if who >= 0]


def _turn(clip: Mapping[str, Any], start_ns: int, end_ns: int) -> Turn:
    """A clip's turn between two times of the source; not beyond the clip, where a moment or a flicker may lie."""
    return Turn(clip["key"], start_ns - clip["start_ns"], min(end_ns, clip["end_ns"]) - clip["start_ns"])


def _owners(
    dataset: Dataset, clips: Sequence[Mapping[str, Any]], times: Int64[np.ndarray, " times"]
) -> Int64[np.ndarray, " times"]:
    """Which clip speaks at each time of the source, -1 for nobody; one clip's log-odds at a time are in memory."""
    best, owner = np.zeros(len(times), np.float32), np.full(len(times), -1)
    for who, clip in enumerate(clips):
        here = slice(*np.searchsorted(times, (clip["start_ns"], clip["end_ns"])))
        talk = dataset.column(clip["key"], "talk", times[here] - clip["start_ns"])
        owner[here] = np.where(talk > best[here], who, owner[here])
        best[here] = np.fmax(talk, best[here])
    return owner


def steadied(owner: Int[np.ndarray, " times"], shortest: int) -> Int[np.ndarray, " times"]:
    """Runs shorter than ``shortest`` go to the run before them; the first stays."""
    steady = owner.copy()
    for start, end, _ in runs(owner):
        if end - start < shortest and start > 0:
            steady[start:end] = steady[start - 1]
    return steady
