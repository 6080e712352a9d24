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
    worker_count,
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

    Without --with, what was added before is brought up to date. Run it again after a stop: finished work is kept.

    Example: `toolkit annotate dataset --with mel,voice`
    """
    from talkface.config import Ingest
    from talkface.console import annotate_bar, print_annotated
    from talkface.datasets.sidecar_job import annotate_dataset
    from talkface.store import Folder
    from talkface.weights import Models

    settings = None if config is None else Ingest.load(config).pack.annotate
    folder, count = Folder(url), worker_count(workers)
    with folder.lock(), annotate_bar() as observe:
        folder.sweep()
        try:
            made = annotate_dataset(
                url,
                names_in(with_ or ""),
                settings,
                Models(models, offline=offline),
                use=licence,
                workers=count,
                scheduler=scheduler,
                observe=observe,
            )
        except KeyboardInterrupt:
            typer.echo("Stopped. Finished work is kept; run the same command again to go on.", err=True)
            raise typer.Exit(INTERRUPTED) from None
    for sidecar in made:
        print_annotated(sidecar)
    raise typer.Exit(FAILED if any(s.rejects for s in made) else OK)
