"""``toolkit import``."""

from typing import Annotated, Literal

import typer

from talkface.commands._options import (
    Config,
    Inputs,
    Layout,
    Licence,
    ModelsDir,
    Offline,
    Out,
    Replace,
    Scheduler,
    Video,
    With,
    Workers,
    settings_of,
)
from talkface.commands.ingest import run
from talkface.config import Ingest
from talkface.errors import ConfigError


def command(
    inputs: Inputs,
    out: Out = "dataset",
    without: Annotated[
        Literal["reject", "estimate"], typer.Option(help="What becomes of a video without a recording.")
    ] = "reject",
    workers: Workers = None,
    scheduler: Scheduler = None,
    models: ModelsDir = None,
    offline: Offline = False,
    config: Config = None,
    layout: Layout = None,
    with_: With = None,
    licence: Licence = "any",
    video: Video = True,
    replace: Replace = False,
) -> None:
    """Turn Live Link Face takes into a dataset: an ingest that takes the blendshapes from the CSV beside each video.

    Example: `toolkit import ./takes --out recorded`
    """
    settings = recorded(settings_of(config, layout, with_, video), "required" if without == "reject" else "preferred")
    run(
        inputs, out, settings, workers=workers, scheduler=scheduler, models=models, offline=offline, licence=licence,
        replace=replace,
    )  # fmt: skip


def recorded(settings: Ingest, mode: Literal["required", "preferred"]) -> Ingest:
    """The settings with recorded blendshapes. Raises ConfigError where there are to be no blendshapes at all."""
    pack = settings.pack
    if "arkit" not in pack.annotators:
        raise ConfigError("what is imported are blendshapes: leave arkit among the annotators (--with, or --config)")
    annotate = {**pack.annotate, "arkit": {**pack.annotate.get("arkit", {}), "recording": mode}}
    return settings.model_copy(update={"pack": pack.model_copy(update={"annotate": annotate})})
