"""Make a sidecar: plan the units, run those not done yet, write its shards and manifests.

A clip's result is kept for as long as the annotator's version, settings and weights, and all that it read of the clip,
are the same: however often the dataset's shards are built anew around it. The sidecar's bytes depend on these alone.
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from tarfile import BLOCKSIZE
from typing import Any, Final

import numpy as np

import talkface
from talkface.annotate.base import (
    Annotator,
    known_weights,
    left_out,
    make_annotator,
    require_fit,
    require_licences,
    weights_of,
)
from talkface.clip import ColumnSpec
from talkface.datasets.build.card import card
from talkface.datasets.format import schema
from talkface.datasets.format.shards import ShardReader, Wanted
from talkface.datasets.format.sidecar import (
    SidecarInfo,
    find_sidecars,
    hash_of_shards,
    manifest,
    packs_of,
    packs_url,
    record_path,
    sidecar_shard,
)
from talkface.datasets.missing_columns import to_make
from talkface.datasets.reader import Dataset
from talkface.datasets.sidecars.unit import (
    Settings,
    Task,
    Unit,
    UnitReport,
    content_of,
    fingerprint_of,
    process,
    read_task,
    reject_of,
    release,
    units_of,
)
from talkface.errors import ConfigError, DatasetError, WeightsError
from talkface.licences import Use, require_sources, require_use
from talkface.store import Folder, TarWriter, npy, read_pack_index, sha256_of, table_bytes
from talkface.weights import Models, Weight
from talkface.workers import Outcome, map_units

UNIT_SECONDS: Final = 60.0
"""A work unit is closed once its clips last this long."""

TOGETHER: Final = 16
"""Clips that are copied from packs to a shard at a time."""


@dataclass(kw_only=True)
class Progress:
    """How far an annotator is; handed to the observer after every unit. Seconds are of the clips."""

    name: str
    clips: int
    seconds: float
    clips_done: int = 0
    clips_kept: int = 0
    seconds_done: float = 0.0
    seconds_kept: float = 0.0
    cpu: float = 0.0
    started: float = field(default_factory=time.monotonic)

    @property
    def times_real_time(self) -> float:
        """Seconds of clips annotated in this run for each second of wall time."""
        return (self.seconds_done - self.seconds_kept) / max(time.monotonic() - self.started, 1e-9)


@dataclass(frozen=True, kw_only=True)
class Made:
    """A finished sidecar: its record, the rejects among its clips, and what it cost. ``kept``: nothing was to do."""

    info: SidecarInfo
    rejects: tuple[dict[str, Any], ...]
    progress: Progress
    kept: bool


@dataclass(frozen=True)
class Kept:
    """A clip's result in a pack, and what the pack was made with."""

    pack: str
    record: Mapping[str, Any]
    members: Mapping[str, tuple[int, int]]
    made_with: Mapping[str, str]


def annotate_dataset(
    url: str,
    names: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]] | None,
    models: Models,
    *,
    use: Use = "any",
    workers: int = 1,
    scheduler: str | None = None,
    observe: Callable[[Progress], None] = lambda _: None,
    finished: Callable[[Made], None] = lambda _: None,
) -> list[Made]:
    """Add a sidecar for each of ``names``, and for what they need and the dataset has not; what is there is kept.

    No ``names``: all sidecars that there are. ``settings`` are the annotators' own, by name; None are those that a
    sidecar was made with before, else the defaults. ``finished`` gets each as soon as it is made. Raises ConfigError
    for what cannot be annotated here or may not be put to this ``use``, and WeightsError for model files of ``names``
    that have no results yet, before anything is done; DatasetError where the base cannot be read. Of what has results,
    files are looked for where one more is needed: if one is missing, WeightsError says so when all others are made.
    """
    dataset = Dataset(url)
    annotators = _wanted(dataset, names, settings)
    require_licences(annotators, models, use)
    require_use(use, {f"{url}: {n}": (a.licence, a.weights) for n, a in dataset.info.annotators.items()})
    require_sources(use, {url: dataset.info.strictest_licence})
    if names:
        _require([a for a in annotators if not _has_results(dataset, a, models)], models, use)
    made: list[Made] = []
    missing: list[str] = []
    for annotator in annotators:
        require = partial(_require, [annotator], models, use, left_out if names else _left_as_it_is)
        try:
            job = _Job(Dataset(url), annotator, models, require)
            made.append(job.run(workers=workers, scheduler=scheduler, observe=observe))
            finished(made[-1])
        except WeightsError as error:
            missing.append(str(error))
    if missing:
        raise WeightsError("\n".join(missing))
    return made


def _wanted(
    dataset: Dataset, names: Sequence[str], settings: Mapping[str, Mapping[str, Any]] | None
) -> list[Annotator]:
    """The annotators to run, with their settings, each after what it needs."""
    before = {name: s.info.config for name, s in dataset.sidecars.items()}
    if not names and not before:
        raise ConfigError(f"{dataset.url}: has no sidecar to bring up to date. Name annotators: --with NAME,NAME")
    chosen = before if settings is None else settings
    annotators = [make_annotator(n, chosen.get(n, {})) for n in to_make(dataset.held, list(names) or list(before))]
    for annotator in annotators:
        _refuse_moved_sound(annotator)
    return annotators


def _known(dataset: Dataset, annotator: Annotator, models: Models) -> list[Weight] | None:
    """An annotator's model files; None where they must be here to know them."""
    sidecar = dataset.sidecars.get(annotator.name)
    recorded = {} if sidecar is None else {w["name"]: w["sha256"] for w in sidecar.info.weights}
    return known_weights(annotator, models, recorded)


def _has_results(dataset: Dataset, annotator: Annotator, models: Models) -> bool:
    """Whether a sidecar or a pack was made with these settings and model files."""
    weights = _known(dataset, annotator, models)
    if weights is None:
        return False
    sidecar, wanted = dataset.sidecars.get(annotator.name), fingerprint_of(annotator, weights)
    recorded = sidecar is not None and sidecar.info.fingerprint == wanted
    return recorded or any(packs_of(Folder(packs_url(dataset.folder, annotator.name)), wanted))


def _require(
    annotators: Sequence[Annotator], models: Models, use: Use, how_to_leave_out: Callable[[str], str] = left_out
) -> list[list[Weight]]:
    """All that annotators need, here; gives their model files."""
    require_fit(annotators, models, use, how_to_leave_out)
    return weights_of(annotators, models, how_to_leave_out)


def _left_as_it_is(name: str) -> str:
    return f"leave {name} as it is: the other sidecars are brought up to date"


def remake(url: str, name: str, models: Models, *, workers: int = 1) -> Made:
    """Write a sidecar anew, with the settings that it was made with: from its packs, and by annotating what they lack.

    Raises as `annotate_dataset`.
    """
    folder, before = Folder(url), find_sidecars(Folder(url)).get(name)
    packs = Folder(packs_url(folder, name))
    for file in packs.names("", ".json"):
        if not _is_whole(packs, pack := file.removesuffix(".json")):
            packs.remove(file)
            packs.remove(f"{pack}.tar")
    folder.remove(record_path(name))
    settings = {} if before is None else {name: before.info.config}
    return annotate_dataset(url, [name], settings, models, workers=workers)[-1]


def _is_whole(packs: Folder, pack: str) -> bool:
    index = read_pack_index(packs, pack)
    if index is None:
        return False
    with packs.open(f"{pack}.tar") as file:
        return bool(sha256_of(file) == index["sha256"])


def _refuse_moved_sound(annotator: Annotator) -> None:
    if getattr(annotator.config, "fix_offset", False):
        raise ConfigError(
            f"{annotator.name}: fix_offset moves the sound of clips, which a finished dataset keeps as it is. "
            "Run: toolkit ingest ... --fix-offset"
        )


class _Job:
    """One annotator over one dataset."""

    def __init__(
        self, dataset: Dataset, annotator: Annotator, models: Models, require: Callable[[], list[list[Weight]]]
    ) -> None:
        """``require`` gives the annotator's model files, where they must be here, or raises WeightsError."""
        self.dataset, self.annotator, self.models, self.require = dataset, annotator, models, require
        self.folder = dataset.folder
        self.name = annotator.name
        self.packs = Folder(packs_url(self.folder, self.name))
        known = _known(dataset, annotator, models)
        self.weights = require()[0] if known is None else known
        self.fingerprint = fingerprint_of(annotator, self.weights)
        self.columns = [c for c in annotator.columns if c.stored]
        self.base = dataset.table("shards").to_pylist()
        self.clips = dataset.table("clips").to_pylist()

    def run(self, *, workers: int, scheduler: str | None, observe: Callable[[Progress], None]) -> Made:
        seconds = sum(c["duration"] for c in self.clips)
        progress = Progress(name=self.name, clips=len(self.clips), seconds=seconds)
        if (info := self._current()) is not None:
            progress.clips_done = progress.clips_kept = progress.clips
            progress.seconds_done = progress.seconds_kept = seconds
            observe(progress)
            self._write_card()
            return Made(info=info, rejects=(), progress=progress, kept=True)
        tasks = self._tasks()
        kept = self._kept(tasks)
        rejects = self._annotate([t for t in tasks if t.key not in kept], progress, workers, scheduler, observe)
        kept = self._kept(tasks)
        info = self._write(tasks, kept, rejects)
        self._remove_other_packs({k.pack for k in kept.values()})
        return Made(info=info, rejects=tuple(rejects), progress=progress, kept=False)

    def _current(self) -> SidecarInfo | None:
        """The record of what is there, if that is what this run would make."""
        sidecar = self.dataset.sidecars.get(self.name)
        if sidecar is None or sidecar.stale or sidecar.info.fingerprint != self.fingerprint or sidecar.info.rejects:
            return None
        whole = all(self._is_there(row) for row in sidecar.table(self.folder, "shards").to_pylist())
        return sidecar.info if whole else None

    def _is_there(self, row: Mapping[str, Any]) -> bool:
        try:
            return self.folder.size(row["shard"]) == row["bytes"]
        except FileNotFoundError:
            return False

    def _tasks(self) -> list[Task]:
        """Every clip of the base, in its order, and which of its members this annotator reads."""
        sources = {s["name"]: s for s in self.dataset.table("sources").to_pylist()}
        digests = {s["shard"]: s["sha256"] for s in self.base}
        needed = [schema.member_name(n) for n in self.annotator.needs]
        members = [*dict.fromkeys(("json", *self.annotator.reads, "pts.npy", *needed))]
        self.dataset.locate(members)
        return [
            Task(
                key=clip["key"],
                start_ns=clip["start_ns"],
                end_ns=clip["end_ns"],
                source=sources[clip["source"]],
                shard_sha256=digests[clip["shard"]],
                wanted=tuple(self.dataset.wanted(row, member) for member in members),
            )
            for row, clip in enumerate(self.clips)
        ]

    def _kept(self, tasks: Sequence[Task]) -> dict[str, Kept]:
        """Results of an earlier run that still hold, by key.

        A clip that lies in the same shard as then is the same; of one in another shard, what was read is compared.
        """
        found: dict[str, list[Kept]] = defaultdict(list)
        for name, index in packs_of(self.packs, self.fingerprint):
            made_with = index.get("made_with", {})  # older packs do not say
            for record in index["clips"]:
                members = index["members"].get(record["key"], {})
                found[record["key"]].append(Kept(name, record, members, made_with))
        reader = ShardReader(self.dataset.url, gap=BLOCKSIZE - 1)
        labels = hasattr(self.annotator, "labelled")
        kept = {task.key: _matching(task, found[task.key], reader, labels) for task in tasks if task.key in found}
        return {key: result for key, result in kept.items() if result is not None}

    def _annotate(
        self,
        tasks: Sequence[Task],
        progress: Progress,
        workers: int,
        scheduler: str | None,
        observe: Callable[[Progress], None],
    ) -> list[dict[str, Any]]:
        """Bring these clips to packs; gives the rejects. Raises DatasetError where the base cannot be read, and
        WeightsError where there are clips and a model file is missing."""
        if tasks:
            self.require()
        progress.seconds_kept = progress.seconds_done = progress.seconds - sum(t.seconds for t in tasks)
        progress.clips_kept = progress.clips_done = progress.clips - len(tasks)
        observe(progress)
        folder = self.folder
        settings = Settings(
            url=folder.root if folder.is_local else folder.url,
            packs_url=self.packs.url,
            name=self.name,
            config=self.annotator.config.model_dump_json(),
            models=self.models,
            fingerprint=self.fingerprint,
        )
        units = sorted(units_of(tasks, self.fingerprint, UNIT_SECONDS), key=lambda u: -u.seconds)
        rejects, damaged = list[dict[str, Any]](), list[str]()
        for outcome in map_units(partial(process, settings), units, workers=workers, scheduler=scheduler):
            report = self._report(outcome)
            rejects += [r.row() for r in report.rejects]
            damaged += report.damaged
            progress.cpu += report.cpu
            progress.clips_done += len(outcome.unit.tasks)
            progress.seconds_done += outcome.unit.seconds
            observe(progress)
        release()
        if damaged:
            raise DatasetError(f"{self.dataset.url}: {self.name} could not read {len(damaged)} clips: {damaged[0]}")
        return rejects

    def _report(self, outcome: Outcome[Unit, UnitReport]) -> UnitReport:
        """What a unit came to; all its clips are rejects where its worker kept dying. A full disk ends the run."""
        if outcome.value is not None:
            return outcome.value
        error = outcome.error
        if not outcome.worker_died and error is not None:
            raise error
        dead = [reject_of(t, f"{self.name}_worker_died", "the process annotating it died") for t in outcome.unit.tasks]
        return UnitReport(cpu=0.0, rejects=tuple(dead), damaged=())

    def _write(
        self, tasks: Sequence[Task], kept: Mapping[str, Kept], rejects: Sequence[Mapping[str, Any]]
    ) -> SidecarInfo:
        """Shards, manifests and card; the record last."""
        folder, name = self.folder, self.name
        folder.remove(record_path(name))
        shards: list[dict[str, Any]] = []
        members: list[dict[str, Any]] = []
        by_shard = {shard: list(rows) for shard, rows in groupby(range(len(tasks)), lambda r: self.clips[r]["shard"])}
        for base in self.base if self.columns else ():
            shard = sidecar_shard(base["shard"], name)
            rows, made = self._write_shard(shard, by_shard[base["shard"]], kept)
            shards.append({"shard": shard, "split": base["split"], "count": base["count"], **made})
            members += rows
        self._remove_other_shards({s["shard"] for s in shards})
        clips = [{"key": t.key} | (dict(kept[t.key].record["scores"]) if t.key in kept else {}) for t in tasks]
        order = {t.key: i for i, t in enumerate(tasks)}
        tables = {
            "shards": table_bytes(shards, schema.SHARDS),
            "members": table_bytes(members, schema.MEMBERS),
            "clips": table_bytes(clips, schema.scores_schema(self.annotator.scores)),
            "rejects": table_bytes(sorted(rejects, key=lambda r: order[r["key"]]), schema.REJECTS),
        }
        for table, data in tables.items():
            folder.write(manifest(name, table), data)
        info = self._info(shards, len(rejects), kept)
        folder.write(record_path(name), json.dumps(info.model_dump(mode="json"), indent=1, sort_keys=True).encode())
        self._write_card()
        return info

    def _info(self, shards: Sequence[Mapping[str, Any]], rejects: int, kept: Mapping[str, Kept]) -> SidecarInfo:
        annotator = self.annotator
        needed = {schema.member_name(n) for n in annotator.needs}
        inputs = {n: s.info.shards for n, s in self.dataset.sidecars.items() if needed & set(s.info.members())}
        return SidecarInfo(
            talkface=talkface.__version__,
            name=self.name,
            version=annotator.version,
            licence=annotator.licence,
            config=annotator.config.model_dump(mode="json"),
            weights=tuple(w.row() for w in self.weights),
            columns=tuple(schema.spec_dict(c) for c in self.columns),
            scores=tuple(schema.spec_dict(s) for s in annotator.scores),
            fingerprint=self.fingerprint,
            base=hash_of_shards(self.base),
            inputs=inputs,
            shards=hash_of_shards(shards),
            rejects=rejects,
            made_with=_all_of([k.made_with for k in kept.values()]),
        )

    def _write_shard(
        self, shard: str, rows: Sequence[int], kept: Mapping[str, Kept]
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        placed = []
        with self.folder.create(shard) as file:
            tar = TarWriter(file)
            for key, members in self._samples(rows, kept):
                for member, data in members.items():
                    at = tar.add(f"{key}.{member}", data)
                    placed.append({"key": key, "member": member, "shard": shard, **at.place()})
            tar.close()
        return placed, {"bytes": tar.bytes, "sha256": tar.sha256}

    def _samples(self, rows: Sequence[int], kept: Mapping[str, Kept]) -> Iterator[tuple[str, dict[str, bytes]]]:
        """Key and members of each clip; missing values for a clip that came to nothing."""
        reader = ShardReader(self.packs.url)
        names = [schema.member_name(c.name) for c in self.columns]
        for low in range(0, len(rows), TOGETHER):
            clips = [self.clips[row] for row in rows[low : low + TOGETHER]]
            held = [c["key"] for c in clips if c["key"] in kept]
            data = iter(reader.read([_in_pack(kept[key], key, n) for key in held for n in names]))
            for clip in clips:
                key = clip["key"]
                if key in kept:
                    yield key, {n: _whole(next(data)) for n in names}
                else:
                    yield key, {n: npy(missing(c, clip)) for n, c in zip(names, self.columns, strict=True)}
        reader.close()

    def _remove_other_shards(self, shards: set[str]) -> None:
        for split in schema.SPLITS:
            for file in self.folder.names(f"{split}-{self.name}", ".tar"):
                if f"{split}-{self.name}/{file}" not in shards:
                    self.folder.remove(f"{split}-{self.name}/{file}")

    def _remove_other_packs(self, used: set[str]) -> None:
        for ending in (".json", ".tar"):
            for file in self.packs.names("", ending):
                if file.removesuffix(ending) not in used:
                    self.packs.remove(file)

    def _write_card(self) -> None:
        """The card, with the sidecars that there are now."""
        dataset = Dataset(self.dataset.url)
        text = card(dataset.info, self.clips, [s.info for s in dataset.sidecars.values() if not s.stale]).encode()
        if not self.folder.exists("README.md") or self.folder.read("README.md") != text:
            self.folder.write("README.md", text)


def _all_of(made_with: Sequence[Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
    """Versions by library, all that there are."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, version in {pair for libraries in made_with for pair in libraries.items()}:
        found[name].add(version)
    return {name: tuple(sorted(found[name])) for name in sorted(found)}


def _matching(task: Task, candidates: Sequence[Kept], reader: ShardReader, labels: bool) -> Kept | None:
    for kept in candidates:
        if kept.record["shard_sha256"] == task.shard_sha256:
            return kept
    try:
        content = content_of(task, read_task(reader, task), reads_labels=labels)
    except DatasetError:
        return None
    return next((kept for kept in candidates if kept.record["content"] == content), None)


def _in_pack(kept: Kept, key: str, member: str) -> Wanted:
    return Wanted(f"{kept.pack}.tar", key, member, *kept.members[member])


def _whole(data: bytes | DatasetError) -> bytes:
    if isinstance(data, DatasetError):
        raise data
    return data


def missing(spec: ColumnSpec, clip: Mapping[str, Any]) -> np.ndarray:
    """A column of a clip for which there is nothing: NaN, or 0 for whole numbers, in as many rows as it would have."""
    rows = {"frame": (clip["frames"],), "sound": (round(clip["duration"] * spec.rate),), "clip": ()}[spec.clock]
    kind = np.dtype(spec.dtype)
    return np.full((*rows, *spec.shape), np.nan if kind.kind == "f" else 0, kind)
