"""``toolkit ingest``."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from talkface.commands._options import (
    FAILED,
    INTERRUPTED,
    OK,
    SOME_REJECTED,
    Config,
    Inputs,
    Layout,
    Licence,
    ModelsDir,
    Offline,
    Out,
    Replace,
    Speaking,
    Video,
    With,
    Workers,
    settings_of,
    worker_count,
)
from talkface.config import Ingest

if TYPE_CHECKING:
    from talkface.datasets.format.schema import DatasetInfo
    from talkface.ingest.job import IngestResult
    from talkface.ingest.scan import ScanResult
    from talkface.licences import Use
    from talkface.store import Folder
    from talkface.weights import Models


def command(
    inputs: Inputs,
    out: Out = "dataset",
    workers: Workers = None,
    scheduler: Annotated[str | None, typer.Option(help="Address of a Dask cluster that exists, tcp://...")] = None,
    models: ModelsDir = None,
    offline: Offline = False,
    config: Config = None,
    layout: Layout = None,
    with_: With = None,
    licence: Licence = "any",
    video: Video = True,
    speaking: Speaking = False,
    fix_offset: Annotated[
        bool, typer.Option("--fix-offset", help="Move each clip's sound to its picture where sync is sure of it.")
    ] = False,
    replace: Replace = False,
) -> None:
    """Turn raw videos into a dataset. Run it again after a stop: finished work is kept.

    Example: `toolkit ingest ./videos --out mead --workers 8`
    """
    settings = settings_of(config, layout, with_, video, speaking, fix_offset)
    run(
        inputs, out, settings, workers=workers, scheduler=scheduler, models=models, offline=offline, licence=licence,
        replace=replace,
    )  # fmt: skip


def run(
    inputs: list[str],
    out: str,
    settings: Ingest,
    *,
    workers: int | None,
    scheduler: str | None,
    models: str | None,
    offline: bool,
    licence: "Use",
    replace: bool,
) -> None:
    """Ingest with these settings, print what came of it, and leave with the exit code that says so."""
    from talkface.annotate.base import require_fit
    from talkface.console import console, print_ingest, print_stale
    from talkface.datasets.build.job import refuse_foreign, refuse_to_lose
    from talkface.datasets.reader import Dataset
    from talkface.ingest import job
    from talkface.ingest.pipeline import make_annotators, settings_fingerprint
    from talkface.ingest.recordings import with_recordings
    from talkface.ingest.scan import scan
    from talkface.licences import require_sources
    from talkface.store import Folder
    from talkface.weights import Models

    folder, store, count = Folder(out), Models(models, offline=offline), worker_count(workers)
    with folder.lock():
        refuse_foreign(folder)
        folder.sweep()
        require_fit(make_annotators(settings.pack), store, licence, settings.pack.how_to_leave_out)
        scanned = scan(inputs, settings.layout, duplicates=settings.duplicates, but=out)
        scanned = with_recordings(scanned, settings.pack)
        require_sources(licence, {s.name: job.licence_of(s, settings.build.licence) for s in scanned.sources})
        console.print(
            f"layout: {scanned.layout}; {len(scanned.sources)} sources, {len(scanned.rejects)} rejected at once"
        )
        doubles = {r.source for r in scanned.rejects if r.reason == "duplicate"}
        names = doubles | {s.name for s in scanned.sources}
        unread = {r.source: r.message for r in scanned.rejects if r.reason == "storage"}
        refuse_to_lose(folder, names, settings_fingerprint(settings.pack, store), replace=replace, unread=unread)
        result, info = _ingest_and_build(scanned, folder, settings, store, count, scheduler)
        folder.write("run.json", json.dumps(job.run_report(result), indent=1).encode())
    dataset = Dataset(out)
    rejects = dataset.table("rejects").to_pylist()
    print_ingest(result, {"splits": info.splits, "rejects": rejects, "info": result.info}, out)
    print_stale(dataset)
    unused = any(not s["clips"] for s in dataset.table("sources").to_pylist())
    undecoded = any(r["stage"] in ("scan", "decode") for r in rejects)
    raise typer.Exit(FAILED if result.failures else SOME_REJECTED if unused or undecoded else OK)


def _ingest_and_build(
    scanned: "ScanResult", folder: "Folder", settings: Ingest, store: "Models", workers: int, scheduler: str | None
) -> tuple["IngestResult", "DatasetInfo"]:
    """Make what packs are missing, then the dataset; a pack that turns out to be damaged is made once more."""
    from talkface.console import progress_bar
    from talkface.datasets.build.job import build
    from talkface.datasets.build.packs import DamagedPack
    from talkface.ingest import job
    from talkface.make_dataset import plan_of
    from talkface.store import PACKS

    redone = set[str]()
    while True:
        try:
            with progress_bar() as observe:
                result = job.ingest(
                    scanned, folder, settings, store, workers=workers, scheduler=scheduler, observe=observe
                )
            return result, build(folder, plan_of(result, settings))
        except KeyboardInterrupt:
            typer.echo("Stopped. Finished work is kept; run the same command again to go on.", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except DamagedPack as damage:
            if damage.pack in redone:
                raise
            typer.echo(f"{damage}", err=True)
            redone.add(damage.pack)
            folder.remove(f"{PACKS}/{damage.pack}.json")
