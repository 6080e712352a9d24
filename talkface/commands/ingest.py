"""``toolkit ingest``."""

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
)
from talkface.config import Ingest

if TYPE_CHECKING:
    from talkface.licences import Use


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
    from talkface.api.ingest import ingest
    from talkface.console import console, print_ingest, print_stale, progress_bar

    told = list[str]()

    def say(text: str) -> None:
        told.append(text)
        console.print(text, markup=False)

    try:
        with progress_bar() as observe:
            made = ingest(
                inputs, out, config=settings, workers=workers, scheduler=scheduler, models=models, offline=offline,
                licence=licence, replace=replace, observe=observe, say=say,
            )  # fmt: skip
    except KeyboardInterrupt:
        if not told:  # sources were still being looked at: nothing was begun
            raise
        typer.echo("Stopped. Finished work is kept; run the same command again to go on.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    rejects = made.rejects
    print_ingest(made.result, {"splits": made.info.splits, "rejects": rejects, "info": made.result.info}, out)
    print_stale(made.dataset)
    unused = any(not s["clips"] for s in made.dataset.table("sources").to_pylist())
    undecoded = any(r["stage"] in ("scan", "decode") for r in rejects)
    raise typer.Exit(FAILED if made.result.failures else SOME_REJECTED if unused or undecoded else OK)
