"""A whole ingest: sources to packs. Plans the work units, runs those not done yet, and collects the outcome."""

import dataclasses
import hashlib
import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import talkface
from talkface.annotate.base import Annotator, weights_of
from talkface.clip import NS, ColumnSpec, Reject, ScoreSpec, Source
from talkface.config import Ingest
from talkface.errors import ConfigError, RunError, StorageError, WeightsError
from talkface.ingest.pipeline import detector_weights, make_annotators, process, release, settings_fingerprint
from talkface.ingest.scan import ScanResult
from talkface.ingest.unit import Settings, Unit, UnitReport
from talkface.licences import is_unknown, strictest
from talkface.store import PACKS, Folder, read_pack_index
from talkface.weights import Models
from talkface.workers import Outcome, map_units


@dataclass(kw_only=True)
class Progress:
    """How far a run is; handed to the observer after every unit."""

    units: int
    seconds: float
    files: int = 0
    files_done: int = 0
    units_done: int = 0
    units_kept: int = 0
    seconds_done: float = 0.0
    seconds_kept: float = 0.0
    cpu: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    frames: int = 0
    started: float = field(default_factory=time.monotonic)
    worker_seconds: float = 0.0
    _counted: float = 0.0

    @property
    def wall(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.started

    def count_workers(self, workers: int) -> None:
        """Note how many workers there have been since this was last called."""
        self.worker_seconds += workers * (self.wall - self._counted)
        self._counted = self.wall

    @property
    def busy(self) -> float:
        """CPU seconds inside the stages over the seconds that all workers had."""
        return sum(self.cpu.values()) / max(self.worker_seconds, 1e-9)

    @property
    def times_real_time(self) -> float:
        """Seconds of video worked on in this run for each second of wall time."""
        return (self.seconds_done - self.seconds_kept) / max(self.wall, 1e-9)


@dataclass(frozen=True, kw_only=True)
class IngestResult:
    """What packs there are for a set of sources, and all that building shards needs to know besides them."""

    sources: tuple[dict[str, Any], ...]
    units: tuple[Unit, ...]
    rejects: tuple[dict[str, Any], ...]
    columns: tuple[ColumnSpec, ...]
    scores: tuple[ScoreSpec, ...]
    info: dict[str, Any]
    progress: Progress
    failures: tuple[str, ...]


def ingest(
    scanned: ScanResult,
    out: Folder,
    config: Ingest,
    models: Models,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    observe: Callable[[Progress], None] = lambda _: None,
) -> IngestResult:
    """Bring every scanned source's work units to finished packs below ``out``; those already there are kept.

    A source that cannot be decoded ends as a reject; so does a unit whose worker dies again and again. ``failures`` are
    what another run may bring: there is no pack of it, or one that lacks clips on which an annotator failed. Raises
    RunError when the run itself cannot go on (no disk, no scheduler), ConfigError for an ``out`` that workers cannot
    reach, and WeightsError or ConfigError for a model that an annotator cannot use.
    """
    if out.in_memory and (workers or scheduler):
        raise ConfigError(f"{out.url}: other processes cannot write there. Say --workers 0, or choose another --out.")
    packs = Folder(f"{out.url}/{PACKS}")
    annotators = make_annotators(config.pack)
    fingerprint = settings_fingerprint(config.pack, models)
    packs_url = packs.root if packs.is_local else packs.url  # absolute: a worker may stand in another folder
    settings = Settings(pack=config.pack, packs_url=packs_url, models=models, fingerprint=fingerprint)
    units = [u for s in scanned.sources for u in units_of(s, config.pack.unit_seconds, fingerprint)]
    # Sources of equal content share their packs.
    todo = [u for u in {u.name: u for u in units}.values() if not _is_done(packs, u.name)]
    left = Counter(u.source.name for u in todo)
    files = len(scanned.sources)
    progress = Progress(
        units=len(units), seconds=sum(u.seconds for u in units), files=files, files_done=files - len(left)
    )
    progress.units_kept = progress.units_done = len(units) - len(todo)
    progress.seconds_kept = progress.seconds_done = progress.seconds - sum(u.seconds for u in todo)
    observe(progress)
    rejects = list(scanned.rejects)
    failures = [f"{r.source}: {r.message}" for r in rejects if r.reason == "storage"]
    done = {u.name for u in units} - {u.name for u in todo}
    todo.sort(key=lambda u: -u.seconds)  # the longest first, so that no worker is left with one at the end
    for outcome in map_units(partial(process, settings), todo, workers=workers, scheduler=scheduler):
        if (reject := _account(outcome, progress)) is None:
            done.add(outcome.unit.name)
            failures += outcome.value.failed if outcome.value else ()
        else:
            failures.append(f"{reject.source}: {reject.message}")
            if read_pack_index(packs, outcome.unit.name) is None:
                rejects.append(reject)
            else:  # an earlier run's, made anew for the clips that it lacks
                done.add(outcome.unit.name)
        left[outcome.unit.source.name] -= 1
        progress.files_done += left[outcome.unit.source.name] == 0
        observe(progress)
    packs.sweep()  # of workers that died
    release()
    return IngestResult(
        sources=tuple(source_row(s, config.build.licence) for s in scanned.sources),
        units=tuple(u for u in units if u.name in done),
        rejects=tuple(r.row() for r in rejects),
        columns=tuple(c for a in annotators for c in a.columns if c.stored),
        scores=tuple(s for a in annotators for s in a.scores),
        info=describe(scanned, config, annotators, models),
        progress=progress,
        failures=tuple(failures),
    )


def _is_done(packs: Folder, name: str) -> bool:
    """Whether there is a pack, of which no clip failed: another run may bring those."""
    index = read_pack_index(packs, name)
    return index is not None and not index.get("failed")


def run_report(result: IngestResult) -> dict[str, Any]:
    """What a run cost, for ``run.json`` beside the dataset; not part of the dataset, whose bytes know no clock."""
    progress = result.progress
    worked = progress.seconds_done - progress.seconds_kept
    return {
        "wall_seconds": progress.wall,
        "worker_seconds": progress.worker_seconds,
        "video_seconds": worked,
        "video_seconds_kept": progress.seconds_kept,
        "frames": progress.frames,
        "cpu_seconds": dict(progress.cpu),
        "times_real_time_a_core": {stage: worked / cpu for stage, cpu in progress.cpu.items() if cpu},
        "failures": list(result.failures),
    }


def _account(outcome: Outcome[Unit, UnitReport], progress: Progress) -> Reject | None:
    """Add a finished unit to the progress; a reject if it came to nothing.

    A full disk ends the run, and so does a model that cannot be opened: it would fail for all units.
    """
    progress.count_workers(outcome.workers)
    progress.units_done += 1
    progress.seconds_done += outcome.unit.seconds
    if outcome.value is not None:
        for stage, seconds in outcome.value.cpu.items():
            progress.cpu[stage] += seconds
        progress.frames += outcome.value.frames
        return None
    if isinstance(outcome.error, RunError | ConfigError | WeightsError):
        raise outcome.error
    unit = outcome.unit
    reason, text = "internal_error", f"{type(outcome.error).__name__}: {outcome.error}"
    if outcome.worker_died:
        reason, text = "worker_died", "the process decoding it died"
    elif isinstance(outcome.error, StorageError):
        reason, text = outcome.error.reason, str(outcome.error)
    return Reject(
        stage="run", reason=reason, source=unit.source.name, message=text, start_ns=unit.start_ns, end_ns=unit.end_ns
    )


def units_of(source: Source, unit_seconds: float, fingerprint: str) -> list[Unit]:
    """Cut a source into work units. Their names say content and configuration, so equal names mean equal packs.

    A source that gets another name or other labels keeps its packs; its clips' keys say the name.
    """
    assert source.probe is not None, f"{source.name}: not probed"
    count = max(1, math.ceil(source.probe.duration / unit_seconds - 0.1))
    pack, key = (_digest(source.sha256, *more, fingerprint) for more in ((), (source.name,)))
    edges = [round(i * unit_seconds * NS) for i in range(count)]
    return [
        Unit(
            name=f"{pack}-{i:04d}", key=f"{slug(source.name)}-{key}-{i:04d}", source=source, start_ns=start, end_ns=end
        )
        for i, (start, end) in enumerate(zip(edges, [*edges[1:], None], strict=True))
    ]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def slug(name: str) -> str:
    """A file's name as the start of a key: a-z 0-9 _ - only, at most 40 characters, the ends of long names."""
    stem = name.rsplit(".", 1)[0].lower()
    return re.sub(r"[^a-z0-9_]+", "-", stem).strip("-_")[-40:].strip("-_") or "clip"


def describe(scanned: ScanResult, config: Ingest, annotators: Sequence[Annotator], models: Models) -> dict[str, Any]:
    """The facts about a run that dataset.json records."""
    chosen = dict(zip((a.name for a in annotators), weights_of(annotators, models), strict=True))
    records = {
        a.name: {
            "version": a.version,
            "licence": a.licence,
            "config": config.pack.annotate.get(a.name, {}),
            "weights": [w.row() for w in chosen[a.name]],
            "columns": [c.name for c in a.columns if c.stored],
            "scores": [s.name for s in a.scores],
        }
        for a in annotators
    }
    used = [w for own in chosen.values() for w in own] + detector_weights(models)
    terms = [*(licence_of(s, config.build.licence) for s in scanned.sources), *(w.licence for w in used)]
    return {
        "talkface": talkface.__version__,
        "annotators": records,
        "faces": [w.row() for w in detector_weights(models)],
        "config": config.model_dump(mode="json"),
        "config_hash": config.hash(),
        "fingerprint": settings_fingerprint(config.pack, models),
        "layout": scanned.layout,
        "strictest_licence": strictest(terms),
    }


def licence_of(source: Source, default: str) -> str:
    """A source's own licence, or what those have that state none."""
    return default if is_unknown(source.licence) else source.licence


def source_row(source: Source, licence: str) -> dict[str, Any]:
    """A source as a row of sources.parquet."""
    row = dataclasses.asdict(source)
    labels, probe = row.pop("labels"), row.pop("probe") or {}
    row["licence"] = licence_of(source, licence)
    return row | labels | probe
