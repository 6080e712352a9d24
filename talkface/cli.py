"""The command ``toolkit``: parse, call, print.

Each command imports what it needs when it runs: torch, datasets and others take seconds that ``--help`` can do without.
"""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from talkface.config import Ingest
from talkface.errors import ConfigError, TalkfaceError
from talkface.threads import one_thread

if TYPE_CHECKING:
    from talkface.datasets.build import Plan
    from talkface.ingest.job import IngestResult

OK, FAILED, MISTAKEN, SOME_REJECTED, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes: all good; the run or a check failed; a mistake on the command line; some source rejected; Ctrl-C."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Raw talking-face videos in, verified datasets out.",
)
models_app = typer.Typer(no_args_is_help=True, help="Model files: what is here, fetch, add, check.")
app.add_typer(models_app, name="models")

Inputs = Annotated[
    list[str],
    typer.Argument(help="Folders, files, globs, lists (.csv .parquet .jsonl) or fsspec urls.", show_default=False),
]
Out = Annotated[str, typer.Option("--out", "-o", help="Folder or fsspec url of the dataset.")]
ModelsDir = Annotated[str | None, typer.Option("--models", help="Folder with model files, looked at first.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never touch the network.")]
Config = Annotated[Path | None, typer.Option("--config", help="TOML with whatever changes the output.")]
Layout = Annotated[str | None, typer.Option("--layout", help="auto, plain, mead, hdtf, ravdess, crema_d, vfhq, ...")]
With = Annotated[str | None, typer.Option("--with", help="Annotators, separated by commas.")]
Workers = Annotated[
    int | None, typer.Option("--workers", "-j", min=0, help="Worker processes (default: cores; 0: in this process).")
]
Url = Annotated[str, typer.Argument(metavar="DATASET", help="Folder or fsspec url of a dataset.", show_default=False)]


@app.callback()
def debug_option(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None:
    """Raw talking-face videos in, verified datasets out."""
    if debug:
        os.environ["TALKFACE_DEBUG"] = "1"


@app.command("ingest")
def ingest_command(
    inputs: Inputs,
    out: Out = "dataset",
    workers: Workers = None,
    scheduler: Annotated[str | None, typer.Option(help="Address of a Dask cluster that exists, tcp://...")] = None,
    models: ModelsDir = None,
    offline: Offline = False,
    config: Config = None,
    layout: Layout = None,
    with_: With = None,
    video: Annotated[bool, typer.Option("--video/--no-video", help="Write the face crops.")] = True,
    replace: Annotated[
        bool, typer.Option(help="Let go of sources and packs that the same inputs and settings no longer give.")
    ] = False,
) -> None:
    """Turn raw videos into a dataset. Run it again after a stop: finished work is kept.

    Example: `toolkit ingest ./videos --out mead --workers 8`
    """
    from talkface.console import console, print_ingest, progress_bar
    from talkface.datasets.build import build, refuse_foreign, refuse_to_lose
    from talkface.datasets.reader import Dataset
    from talkface.ingest import job
    from talkface.ingest.pipeline import settings_fingerprint
    from talkface.ingest.scan import scan
    from talkface.store import Folder
    from talkface.weights import Models

    settings = _settings(config, layout, with_, video)
    folder, store, count = Folder(out), Models(models, offline=offline), _workers(workers)
    with folder.lock():
        refuse_foreign(folder)
        folder.sweep()
        scanned = scan(inputs, settings.layout, duplicates=settings.duplicates)
        console.print(
            f"layout: {scanned.layout}; {len(scanned.sources)} sources, {len(scanned.rejects)} rejected at once"
        )
        doubles = {r.source for r in scanned.rejects if r.reason == "duplicate"}
        names = doubles | {s.name for s in scanned.sources}
        refuse_to_lose(folder, names, settings_fingerprint(settings.pack, store), replace=replace)
        try:
            with progress_bar() as observe:
                result = job.ingest(
                    scanned, folder, settings, store, workers=count, scheduler=scheduler, observe=observe
                )
        except KeyboardInterrupt:
            typer.echo("Stopped. Finished work is kept; run the same command again to go on.", err=True)
            raise typer.Exit(INTERRUPTED) from None
        info = build(folder, _plan(result, settings))
        folder.write("run.json", json.dumps(job.run_report(result, count), indent=1).encode())
    dataset = Dataset(out)
    rejects = dataset.table("rejects").to_pylist()
    print_ingest(result, {"splits": info.splits, "rejects": rejects, "info": result.info}, out, count)
    unused = any(not s["clips"] for s in dataset.table("sources").to_pylist())
    undecoded = any(r["stage"] in ("scan", "decode") for r in rejects)
    raise typer.Exit(FAILED if result.failures else SOME_REJECTED if unused or undecoded else OK)


@app.command("plan")
def plan_command(
    inputs: Inputs,
    out: Out = "dataset",
    workers: Workers = None,
    models: ModelsDir = None,
    offline: Offline = False,
    config: Config = None,
    layout: Layout = None,
    with_: With = None,
) -> None:
    """Try a few seconds and say what an ingest would take: time, disk, clips, rejects. Writes nothing.

    Example: `toolkit plan ./videos`
    """
    from talkface.console import print_forecast
    from talkface.ingest.plan import forecast
    from talkface.ingest.scan import scan
    from talkface.store import Folder
    from talkface.weights import Models

    settings = _settings(config, layout, with_, True)
    scanned = scan(inputs, settings.layout, duplicates=settings.duplicates)
    count = _workers(workers)
    store = Models(models, offline=offline)
    print_forecast(forecast(scanned, Folder(out), settings, store, workers=count), count)


@app.command("doctor")
def doctor_command(
    models: ModelsDir = None, folder: Annotated[Path, typer.Argument(help="Where output would go.")] = Path()
) -> None:
    """Look at decoders, models, licences, cores, disk and GPU.

    Example: `toolkit doctor`
    """
    from talkface.console import console
    from talkface.doctor import examine
    from talkface.weights import Models

    findings = examine(Models(models, offline=True), folder)
    for finding in findings:
        console.print(f"{finding.level:>4}  {finding.what}: {finding.detail}")
    raise typer.Exit(FAILED if any(f.level == "bad" for f in findings) else OK)


@app.command("why")
def why_command(url: Url, file: Annotated[str, typer.Argument(help="A source: its name, path, or a pattern.")]) -> None:
    """Tell what became of a source: clips with their spans, and each reject with its reason.

    Example: `toolkit why dataset M003/video/front/angry/level_3/001.mp4`
    """
    from talkface.console import console
    from talkface.datasets.reader import Dataset
    from talkface.datasets.stats import why

    for line in why(Dataset(url), file):
        console.print(line, markup=False)


@app.command("verify")
def verify_command(
    url: Url,
    repair: Annotated[bool, typer.Option("--repair", help="Make what is broken anew from the packs.")] = False,
) -> None:
    """Check checksums, members, shapes, clocks and manifests, and that three readers open it.

    Example: `toolkit verify dataset`
    """
    from talkface.console import console, errors
    from talkface.datasets.build import rebuild
    from talkface.datasets.reader import Dataset
    from talkface.datasets.verify import verify
    from talkface.store import Folder

    problems = verify(url)
    folder = Folder(url)
    if problems and repair and folder.exists():
        for problem in problems:
            console.print(f"found: {problem}", markup=False)
        with folder.lock():
            rebuild(folder)
        problems = verify(url)
    for problem in problems:
        errors.print(str(problem), markup=False)
    console.print(
        f"{url}: {len(problems)} problems" if problems else f"{url}: {len(Dataset(url))} clips, all as promised"
    )
    raise typer.Exit(FAILED if problems else OK)


@app.command("stats")
def stats_command(url: Url, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Hours, speakers, emotions by intensity, quantiles of every score, rejects by reason.

    Example: `toolkit stats dataset`
    """
    from talkface.console import print_stats
    from talkface.datasets.reader import Dataset
    from talkface.datasets.stats import stats

    found = stats(Dataset(url))
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        print_stats(found)


@app.command("synth")
def synth_command(
    folder: Annotated[Path, typer.Argument(help="Where the clips go.", show_default=False)],
    seconds: Annotated[float, typer.Option(help="Length of each clip.")] = 4.4,
) -> None:
    """Make synthetic talking faces with known truth: several people, emotions and head motions.

    Example: `toolkit synth ./videos`
    """
    from talkface.console import console
    from talkface.render.synthetic import make_demo

    for path in make_demo(folder, seconds=seconds):
        console.print(str(path), markup=False)


@app.command("sheet")
def sheet_command(
    url: Url,
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG to write.")] = Path("sheet.png"),
    clips: Annotated[int, typer.Option(min=1, help="How many clips, spread over the dataset.")] = 6,
) -> None:
    """Draw clips with box, mesh, head axes and curves into one picture.

    Example: `toolkit sheet dataset --out sheet.png`
    """
    from talkface.console import console
    from talkface.datasets.reader import Dataset
    from talkface.render.sheet import sheet

    sheet(Dataset(url), out, clips)
    console.print(str(out), markup=False)


@models_app.command("list")
def models_list(models: ModelsDir = None) -> None:
    """List model files: where they are, size, licence.

    Example: `toolkit models list`
    """
    from talkface.console import console
    from talkface.weights import Models, how_to_get

    for row in Models(models, offline=True).status():
        where = row.path or f"not here. {how_to_get(row.weight)}"
        state = "" if row.ok or not row.path else "  DAMAGED"
        console.print(
            f"{row.weight.name}  {row.weight.size / 1e6:.1f} MB  {row.weight.licence}  {where}{state}",
            markup=False,
            soft_wrap=True,
        )


@models_app.command("pull")
def models_pull(
    names: Annotated[list[str] | None, typer.Argument(help="Names; none: all that can be downloaded.")] = None,
) -> None:
    """Download model files into the user cache and check them.

    Example: `toolkit models pull face_landmarker`
    """
    from talkface.console import console
    from talkface.weights import Models

    for path in Models().pull(names or []):
        console.print(str(path), markup=False)


@models_app.command("add")
def models_add(name: str, path: Path) -> None:
    """Put a file that you have into the user cache, if it is the right one.

    Example: `toolkit models add face_landmarker ./face_landmarker.task`
    """
    from talkface.console import console
    from talkface.weights import Models

    console.print(str(Models(offline=True).add(name, path)), markup=False)


@models_app.command("verify")
def models_verify(models: ModelsDir = None) -> None:
    """Check the hash of every model file that is here.

    Example: `toolkit models verify`
    """
    from talkface.console import errors
    from talkface.weights import Models

    wrong = [row for row in Models(models, offline=True).verify() if not row.ok]
    for row in wrong:
        errors.print(
            f"{row.path}: not the {row.weight.name} that talkface knows; remove it and pull it again", markup=False
        )
    raise typer.Exit(FAILED if wrong else OK)


def _settings(config: Path | None, layout: str | None, with_: str | None, video: bool) -> Ingest:
    from talkface.annotate.base import require_scores

    settings = Ingest.load(config)
    require_scores(settings.build.thresholds)
    pack = settings.pack
    if with_ is not None:
        pack = pack.model_copy(update={"annotators": tuple(n.strip() for n in with_.split(",") if n.strip())})
    if not video:
        pack = pack.model_copy(update={"keep_video": False})
    return settings.model_copy(update={"pack": pack, "layout": layout or settings.layout})


def _plan(result: "IngestResult", settings: Ingest) -> "Plan":
    from talkface.datasets.build import Plan

    return Plan(
        sources=result.sources,
        packs=result.packs,
        rejects=result.rejects,
        columns=result.columns,
        scores=result.scores,
        info=result.info,
        has_video=settings.pack.keep_video,
        build=settings.build,
    )


def _workers(asked: int | None) -> int:
    if asked is not None:
        return asked
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main() -> None:
    """Run the command and leave at once: native threads of some libraries abort a process that takes its time."""
    one_thread()
    code = _run()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run() -> int:
    """The exit code; a talkface error is one line, a traceback only with ``--debug``."""
    try:
        app()
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else FAILED if exit_.code else OK
    except TalkfaceError as error:
        if os.environ.get("TALKFACE_DEBUG"):
            traceback.print_exc()
        else:
            typer.echo(f"{type(error).__name__}: {error}", err=True)
        return MISTAKEN if isinstance(error, ConfigError) else FAILED
    except Exception:
        traceback.print_exc()
        return FAILED
    return OK


if __name__ == "__main__":
    main()
