"""``toolkit annotate``."""

import typer

from talkface.commands._options import (
    FAILED,
    INTERRUPTED,
    OK,
    Config,
    Licence,
    ModelsDir,
    Offline,
    Scheduler,
    Url,
    With,
    Workers,
    names_in,
)


def command(
    url: Url,
    with_: With = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    models: ModelsDir = None,
    offline: Offline = False,
    config: Config = None,
    licence: Licence = "any",
) -> None:
    """Add columns and scores to a finished dataset, beside it: its shards stay as they are.

    Without --with, what was added before is brought up to date; model files are looked for only where clips are new or
    changed. Run it again after a stop: finished work is kept.

    Example: `toolkit annotate dataset --with mel,voice`
    """
    from talkface.api.annotate import annotate
    from talkface.config import Ingest
    from talkface.console import annotate_bar, print_annotated
    from talkface.datasets.sidecars.job import Made

    settings, made = None if config is None else Ingest.load(config).pack.annotate, list[Made]()
    try:
        with annotate_bar() as observe:
            annotate(
                url, names_in(with_ or ""), settings=settings, licence=licence, workers=workers, scheduler=scheduler,
                models=models, offline=offline, observe=observe, finished=made.append,
            )  # fmt: skip
    except KeyboardInterrupt:
        typer.echo("Stopped. Finished work is kept; run the same command again to go on.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    finally:
        for sidecar in made:
            print_annotated(sidecar)
    raise typer.Exit(FAILED if any(s.rejects for s in made) else OK)
