"""``talkface.ingest``: raw videos to a dataset."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from talkface.annotate.base import require_fit, require_scores, settled
from talkface.api.weights import store_of
from talkface.config import Ingest
from talkface.datasets.build.job import build, refuse_foreign, refuse_to_lose
from talkface.datasets.build.packs import DamagedPack
from talkface.datasets.format.schema import DatasetInfo
from talkface.datasets.reader import Dataset
from talkface.ingest import job
from talkface.ingest.pipeline import make_annotators, settings_fingerprint
from talkface.ingest.recordings import with_recordings
from talkface.ingest.scan import ScanResult, scan
from talkface.licences import Use, require_sources
from talkface.make_dataset import plan_of
from talkface.store import PACKS, Folder
from talkface.threads import core_count
from talkface.weights import Models

log = logging.getLogger(__name__)

Observe = Callable[[job.Progress], None]


@dataclass(frozen=True)
class Ingested:
    """A finished ingest: the dataset, what it says of itself, and what the run did.

    ``result.failures`` are what another run may bring; `rejects` are what did not become a clip, with its reason.
    """

    dataset: Dataset
    info: DatasetInfo
    result: job.IngestResult

    @property
    def rejects(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.dataset.table("rejects").to_pylist()
        return rows


def ingest(
    inputs: str | Path | Sequence[str | Path],
    out: str | Path = "dataset",
    *,
    config: str | Path | Ingest | None = None,
    layout: str | None = None,
    annotators: Sequence[str] | None = None,
    video: bool = True,
    speaking: bool = False,
    fix_offset: bool = False,
    licence: Use = "any",
    replace: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    models: str | Path | Models | None = None,
    offline: bool = False,
    observe: Observe = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> Ingested:
    """Turn raw videos into a dataset; call it again after a stop: finished work is kept.

    ``inputs`` are folders, files, globs, lists or urls, ``config`` a TOML file or settings. ``workers`` are processes
    (default: cores; 0: in this process). ``observe`` gets the progress, ``say`` what there is to tell.

    Raises ConfigError, WeightsError or SourceError before anything is decoded for what cannot be; a source that cannot
    be used becomes a reject. RunError where the run cannot go on.
    """
    settings = settings_of(
        config, layout=layout, annotators=annotators, video=video, speaking=speaking, fix_offset=fix_offset
    )
    folder, store, count = Folder(str(out)), store_of(models, offline), core_count() if workers is None else workers
    named = [inputs] if isinstance(inputs, str | Path) else inputs
    with folder.lock():
        scanned = _checked([str(i) for i in named], folder, settings, store, licence, replace)
        say(f"layout: {scanned.layout}; {len(scanned.sources)} sources, {len(scanned.rejects)} rejected at once")
        result, info = _ingest_and_build(scanned, folder, settings, store, count, scheduler, observe)
        folder.write("run.json", json.dumps(job.run_report(result), indent=1).encode())
    return Ingested(Dataset(str(out)), info, result)


def settings_of(
    config: str | Path | Ingest | None = None,
    *,
    layout: str | None = None,
    annotators: Sequence[str] | None = None,
    video: bool = True,
    speaking: bool = False,
    fix_offset: bool = False,
) -> Ingest:
    """The file's settings, and over them the others."""
    settings = config if isinstance(config, Ingest) else Ingest.load(config)
    require_scores(settings.build.thresholds, likely=settings.pack.wanted)
    pack = settings.pack.model_copy(update={"annotate": settled(settings.pack.annotate)})
    if annotators is not None:
        pack = pack.model_copy(update={"annotators": tuple(annotators)})
    if not video:
        pack = pack.model_copy(update={"keep_video": False})
    if speaking:
        pack = pack.model_copy(update={"cut": pack.cut.model_copy(update={"speaking": True})})
    if fix_offset:
        moved = {**pack.annotate.get("sync", {}), "fix_offset": True}
        pack = pack.model_copy(update={"annotate": {**pack.annotate, "sync": moved}})
    return settings.model_copy(update={"pack": pack, "layout": layout or settings.layout})


def _checked(
    inputs: Sequence[str], folder: Folder, settings: Ingest, store: Models, licence: Use, replace: bool
) -> ScanResult:
    """The sources, once all is checked that can be before anything is decoded."""
    refuse_foreign(folder)
    folder.sweep()
    require_fit(make_annotators(settings.pack), store, licence, settings.pack.how_to_leave_out)
    scanned = scan(inputs, settings.layout, duplicates=settings.duplicates, but=folder.url)
    scanned = with_recordings(scanned, settings.pack)
    require_sources(licence, {s.name: job.licence_of(s, settings.build.licence) for s in scanned.sources})
    doubles = {r.source for r in scanned.rejects if r.reason == "duplicate"}
    names = doubles | {s.name for s in scanned.sources}
    unread = {r.source: r.message for r in scanned.rejects if r.reason == "storage"}
    refuse_to_lose(folder, names, settings_fingerprint(settings.pack, store), replace=replace, unread=unread)
    return scanned


def _ingest_and_build(
    scanned: ScanResult, folder: Folder, settings: Ingest, store: Models, workers: int, scheduler: str | None,
    observe: Observe,
) -> tuple[job.IngestResult, DatasetInfo]:  # fmt: skip
    """Make what packs are missing, then the dataset; a pack that turns out to be damaged is made once more."""
    redone = set[str]()
    while True:
        try:
            result = job.ingest(scanned, folder, settings, store, workers=workers, scheduler=scheduler, observe=observe)
            return result, build(folder, plan_of(result, settings))
        except DamagedPack as damage:
            if damage.pack in redone:
                raise
            log.warning("%s", damage)
            redone.add(damage.pack)
            folder.remove(f"{PACKS}/{damage.pack}.json")
