"""Which clips of a dataset are shown: marks made by hand and thresholds on scores, in one small file beside it.

``selection.json`` holds ``marks`` (key to ``keep`` or ``drop``) and ``thresholds`` (score to bounds). A dropped clip is
always hidden, a kept one always shown, else the thresholds decide; a score that is missing passes. Nothing else of the
dataset changes, so that a decision costs nothing and can be taken back.
"""

import difflib
import json
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool
from pydantic import Field

from talkface.config import Strict, Threshold, parse
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError, DatasetError
from talkface.store import Folder

FILE = "selection.json"

Mark = Literal["keep", "drop"]

NEIGHBOURS = 50
"""Of many keys, those on both sides of a misspelt one in the alphabet are compared with it."""


class Selection(Strict):
    """Marks by key and thresholds by score; an empty one shows everything."""

    marks: dict[str, Mark] = Field(default_factory=dict)
    thresholds: dict[str, Threshold] = Field(default_factory=dict)

    def marked(self, mark: Mark) -> list[str]:
        """Keys that carry a mark."""
        return [key for key, value in self.marks.items() if value == mark]

    def expression(self) -> pc.Expression | None:
        """What a row of the clips table must fulfil to be shown; None where everything is."""
        bounds = [holds(name, bound, side) for name, bound, side in bounds_of(self.thresholds)]
        shown = reduce(and_, bounds) if bounds else None
        if shown is not None and (kept := self.marked("keep")):
            shown = shown | pc.field("key").isin(kept)
        if dropped := self.marked("drop"):
            stays = ~pc.field("key").isin(dropped)
            shown = stays if shown is None else shown & stays
        return shown

    def shown(self, clips: pa.Table) -> Bool[np.ndarray, " clips"]:
        """Which rows of the clips table are shown."""
        return _mask(clips, self.expression())

    def why_hidden(self, clip: Mapping[str, Any]) -> list[str]:
        """Why a row of the clips table is hidden, in words; nothing for one that is shown."""
        if (mark := self.marks.get(clip["key"])) is not None:
            return ["marked drop"] if mark == "drop" else []
        missed = []
        for name, bound, side in bounds_of(self.thresholds):
            value = clip[name]
            if value is not None and (value < bound if side == "min" else value > bound):
                missed.append(f"{name} {value:.4g} is {'below' if side == 'min' else 'above'} {bound:.4g}")
        return missed


@dataclass(frozen=True)
class Cost:
    """How many clips one bound hides on its own, and how many nothing but this bound hides."""

    score: str
    side: str
    bound: float
    alone: int
    only: int


def bounds_of(thresholds: Mapping[str, Threshold]) -> list[tuple[str, float, str]]:
    """Every bound as (score, value, ``min`` or ``max``)."""
    sides = [(name, getattr(t, side), side) for name, t in thresholds.items() for side in ("min", "max")]
    return [(name, float(bound), side) for name, bound, side in sides if bound is not None]


def holds(score: str, bound: float, side: str) -> pc.Expression:
    """A bound as an expression over the clips table; a missing score passes."""
    value = pc.field(score)
    inside = value >= bound if side == "min" else value <= bound
    return inside | value.is_null(nan_is_null=True)


def costs(clips: pa.Table, thresholds: Mapping[str, Threshold]) -> list[Cost]:
    """What each bound hides among all clips, marks left aside."""
    bounds = bounds_of(thresholds)
    hidden = [~_mask(clips, holds(*bound)) for bound in bounds]
    times = np.sum(hidden, axis=0) if hidden else np.zeros(clips.num_rows)
    return [
        Cost(score, side, bound, int(mask.sum()), int((mask & (times == 1)).sum()))
        for (score, bound, side), mask in zip(bounds, hidden, strict=True)
    ]


def score_names(clips: pa.Table) -> list[str]:
    """Columns of the clips table that a threshold may bound: all that are measured."""
    return [field.name for field in clips.schema if pa.types.is_floating(field.type)]


def nearest(name: str, known: Collection[str]) -> str:
    """The known name that is most like ``name``; empty if there is none at all."""
    names = sorted(known)
    if len(names) > 20 * NEIGHBOURS:
        at = bisect_left(names, name)
        names = names[max(at - NEIGHBOURS, 0) : at + NEIGHBOURS]
    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=0.0)), "")


def check_selection(dataset: Dataset, selection: Selection) -> None:
    """Raise ConfigError for a score or a key that the dataset does not have, naming the nearest.

    Raises DatasetError for a score of a stale sidecar.
    """
    where = dataset.folder.path(FILE)
    scores = score_names(dataset.clips) if selection.thresholds else []
    for name in selection.thresholds:
        if name not in scores:
            dataset.refuse_stale(name)
            raise ConfigError(f"{where}: no score named {name!r}. Did you mean {nearest(name, scores)!r}?")
    known = set(known_keys(dataset)) if selection.marks else set()
    for key in selection.marks:
        if key not in known:
            raise ConfigError(f"{where}: no clip {key!r} among {len(known)}. Did you mean {nearest(key, known)!r}?")


def known_keys(dataset: Dataset) -> list[str]:
    """Keys of all clips, those among the rejects too: a rebuild may bring them back."""
    tables = (dataset.table("clips"), dataset.table("rejects"))
    return [key for table in tables for key in table.column("key").to_pylist() if key is not None]


def read_selection(folder: Folder) -> Selection:
    """What ``selection.json`` says, an empty selection where there is none. Raises DatasetError for a damaged one."""
    where = folder.path(FILE)
    try:
        data = json.loads(folder.read(FILE))
    except FileNotFoundError:
        return Selection()
    except ValueError as error:
        raise DatasetError(f"{where}: not JSON ({error}). Correct it, or remove it to see every clip.") from error
    return parse(Selection, data if isinstance(data, dict) else {"": data}, where=where)


def change_selection(dataset: Dataset, change: Callable[[Selection], Selection]) -> Selection:
    """Read, change and write ``selection.json`` while no other process writes; gives what was written.

    Raises ConfigError for a dataset behind a url and for names that the dataset does not have, RunError for one that
    cannot be written or is being written.
    """
    folder = dataset.folder
    if not folder.is_local:
        raise ConfigError(f"{dataset.url}: a selection is written beside a local dataset only. Copy this one first.")
    with folder.lock():
        old = read_selection(folder)
        new = change(old)
        check_selection(dataset, new)
        if new != old:
            folder.write(FILE, json.dumps(new.model_dump(exclude_none=True), indent=1, sort_keys=True).encode() + b"\n")
    return new


def mark(dataset: Dataset, marks: Mapping[str, Mark | None]) -> Selection:
    """Mark clips ``keep`` or ``drop``; None takes a mark away. Raises as `change_selection`."""

    def change(selection: Selection) -> Selection:
        merged = {k: v for k, v in {**selection.marks, **marks}.items() if v is not None}
        return selection.model_copy(update={"marks": merged})

    return change_selection(dataset, change)


def _mask(clips: pa.Table, expression: pc.Expression | None) -> Bool[np.ndarray, " clips"]:
    mask = np.ones(clips.num_rows, bool)
    if expression is not None:
        rows = clips.append_column("__row", pa.array(np.arange(clips.num_rows))).filter(expression).column("__row")
        mask[:] = False
        mask[rows.to_numpy()] = True
    return mask
