"""What a selection costs: clips hidden by each threshold, alone and together, and what a rebuild would bring back."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow.compute as pc

from talkface.config import Threshold
from talkface.datasets.build.job import kept_keys, planned, rebuild
from talkface.datasets.build.packs import Plan
from talkface.datasets.format.schema import DatasetInfo, is_missing
from talkface.datasets.reader import Dataset
from talkface.datasets.selection import Cost, Selection, costs
from talkface.errors import ConfigError, DatasetError

ASSIGNMENT = re.compile(r"(\w+)\.(min|max)=(.*)")


@dataclass(frozen=True, kw_only=True)
class Survey:
    """``clips`` are in the shards, ``together`` of them outside some threshold, ``shown`` what marks leave of them.

    ``rejected`` were left out by the thresholds of the build; ``returning`` of them would come back with a rebuild
    (None: the packs are gone, so that nobody can know). ``built_with`` are thresholds of the ingest that still decide.
    """

    clips: int
    shown: int
    together: int
    costs: Sequence[Cost]
    keep: int
    drop: int
    rejected: int
    returning: int | None
    built_with: Mapping[str, Threshold]


def survey(dataset: Dataset, selection: Selection) -> Survey:
    """Count clips under a selection; ``dataset`` has every clip. Only scores are read."""
    by_score = Selection(thresholds=selection.thresholds).shown(dataset.clips)
    rejects = dataset.table("rejects").filter(pc.field("stage") == "filter").to_pylist()
    rejected = {r["key"] for r in rejects}
    return Survey(
        clips=len(dataset),
        shown=int(selection.shown(dataset.clips).sum()),
        together=int(np.count_nonzero(~by_score)),
        costs=costs(dataset.clips, selection.thresholds),
        keep=len(selection.marked("keep")),
        drop=len(selection.marked("drop")),
        rejected=len(rejected),
        returning=_returning(dataset, selection, rejects) if rejected else 0,
        built_with={n: t for n, t in ingested_with(dataset).items() if n not in selection.thresholds},
    )


def rebuild_by(dataset: Dataset, selection: Selection) -> DatasetInfo:
    """Build the shards anew with a selection made part of them; ``dataset`` has every clip. Raises as `rebuild`."""
    return rebuild(dataset.folder, selection, measured(dataset, selection))


def ingested_with(dataset: Dataset) -> Mapping[str, Threshold]:
    """The thresholds of the ingest, over which those of a selection go; none where its packs are gone."""
    try:
        return planned(dataset.folder).build.thresholds
    except DatasetError:
        return {}


def measured(dataset: Dataset, selection: Selection) -> dict[str, dict[str, float]]:
    """The scores of sidecars that a selection bounds, by name and key: what a build cannot find in packs."""
    later = {s.name for s in dataset.scores()} - {s["name"] for s in dataset.info.scores}
    keys = dataset.clips.column("key").to_pylist()
    columns = {name: dataset.clips.column(name).to_pylist() for name in sorted(later & selection.thresholds.keys())}
    return {
        name: {key: value for key, value in zip(keys, values, strict=True) if not is_missing(value)}
        for name, values in columns.items()
    }


def with_bounds(
    thresholds: Mapping[str, Threshold], assignments: Sequence[str], ingested: Mapping[str, Threshold] | None = None
) -> dict[str, Threshold]:
    """Thresholds after ``score.min=0.5`` and the like; without a value the bound goes.

    ``ingested`` are those of the ingest: they hold for a score until something is said of it, and a score of theirs
    whose bounds are all taken away stays, unbounded. Raises ConfigError for what does not read so, and for a minimum
    above its maximum.
    """
    ingested = ingested or {}
    found = dict(thresholds)
    for text in assignments:
        parts = ASSIGNMENT.fullmatch(text)
        if parts is None:
            raise ConfigError(f"--set {text}: expected SCORE.min=VALUE or SCORE.max=VALUE, as in face_pixels.min=120")
        name, side, value = parts.groups()
        found[name] = found.get(name, ingested.get(name, Threshold())).model_copy(update={side: _number(text, value)})
    for name, bounds in found.items():
        if bounds.min is not None and bounds.max is not None and bounds.min > bounds.max:
            raise ConfigError(
                f"{name}: the minimum {bounds.min:g} is above the maximum {bounds.max:g}; none would pass"
            )
    return {name: bounds for name, bounds in found.items() if name in ingested or bounds != Threshold()}


def _number(text: str, value: str) -> float | None:
    if not value.strip():
        return None
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not np.isfinite(number):
        raise ConfigError(f"--set {text}: {value!r} is not a number")
    return number


def _returning(dataset: Dataset, selection: Selection, rejects: Sequence[Mapping[str, Any]]) -> int | None:
    """How many of the build's filter rejects pass now. Of all packs only those of sources that have some are read."""
    try:
        plan = planned(dataset.folder, selection, measured(dataset, selection))
        still = {r["key"] for r in rejects if not _may_pass(r, plan)}
        sources = {r["source"] for r in rejects if r["key"] not in still}
        packs = [use for use in plan.packs if use.source in sources]
        plan = replace(plan, packs=packs, sources=[s for s in plan.sources if s["name"] in sources])
        keys = kept_keys(dataset.folder, plan)
    except DatasetError:
        return None
    return len(keys - set(dataset.keys()))


def _may_pass(reject: Mapping[str, Any], plan: Plan) -> bool:
    """Whether what once kept a clip out does not do so any more, as far as its row tells."""
    if (mark := plan.marks.get(reject["key"])) is not None:
        return mark == "keep"
    if reject["reason"] == "dropped":
        return True
    bounds = plan.bounds.get(reject["reason"].rpartition("_")[0], Threshold())
    low, high = (-np.inf if bounds.min is None else bounds.min), (np.inf if bounds.max is None else bounds.max)
    return bool(low <= reject["value"] <= high)
