"""What several commands share: arguments, exit codes, and how flags become settings."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from talkface.config import PRESETS, Build, Ingest
from talkface.threads import core_count

OK, FAILED, MISTAKEN, SOME_REJECTED, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes: all good; the run or a check failed; a mistake on the command line; some source rejected; Ctrl-C."""

Inputs = Annotated[
    list[str],
    typer.Argument(help="Folders, files, globs, lists (.csv .parquet .jsonl) or fsspec urls.", show_default=False),
]
Out = Annotated[str, typer.Option("--out", "-o", help="Folder or fsspec url of the dataset.")]
ModelsDir = Annotated[str | None, typer.Option("--models", help="Folder with model files, looked at first.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never touch the network.")]
NoNetwork = Annotated[bool, typer.Option("--offline", help="Accepted for consistency; this command is always offline.")]
Config = Annotated[Path | None, typer.Option("--config", help="TOML with whatever changes the output.")]
Layout = Annotated[str | None, typer.Option("--layout", help="auto, plain, mead, hdtf, ravdess, crema_d, vfhq, ...")]
With = Annotated[str | None, typer.Option("--with", help="Annotators, separated by commas.")]
Workers = Annotated[
    int | None, typer.Option("--workers", "-j", min=0, help="Worker processes (default: cores; 0: in this process).")
]
Scheduler = Annotated[str | None, typer.Option(help="Address of a Dask cluster that exists, tcp://...")]
Licence = Annotated[
    Literal["any", "commercial"], typer.Option(help="commercial: refuse what forbids commercial use, before the start.")
]
Speaking = Annotated[bool, typer.Option("--speaking", help="Clips are only where their face speaks.")]
Video = Annotated[bool, typer.Option("--video/--no-video", help="Write the face crops.")]
Replace = Annotated[bool, typer.Option(help="Rebuild from scratch; drop sources that are no longer in the input.")]
SamplingChanges = Annotated[
    list[str] | None, typer.Option("--set", help="A setting of sampling, name=value; may be repeated.")
]
Checkpoint = Annotated[str, typer.Option(help="Checkpoint to use: best, last or a step.")]
Cpu = Annotated[bool, typer.Option("--cpu", help="Run on the CPU.")]
Threads = Annotated[int, typer.Option(min=1, help="PyTorch threads on a CPU; more help large networks.")]
Url = Annotated[str, typer.Argument(metavar="DATASET", help="Folder or fsspec url of a dataset.", show_default=False)]


def settings_of(
    config: Path | None,
    layout: str | None,
    with_: str | None,
    video: bool,
    speaking: bool = False,
    fix_offset: bool = False,
) -> Ingest:
    """The file's settings, and over them those of the command line."""
    from talkface.api import ingest

    named = None if with_ is None else names_in(with_)
    settings = ingest.settings_of(
        config, layout=layout, annotators=named, video=video, speaking=speaking, fix_offset=fix_offset
    )
    _tell_of_idle(settings.build, settings.pack.wanted)
    return settings


def _tell_of_idle(build: Build, annotators: tuple[str, ...]) -> None:
    """Say which bounds of a preset will hold nothing back, because nobody measures their scores."""
    for score, rule in PRESETS.get(build.preset or "", {}).items():
        if rule.annotator not in annotators:
            typer.echo(f"preset {build.preset}: {score} is not measured; --with ...,{rule.annotator} does", err=True)


def names_in(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(n.strip() for n in text.split(",") if n.strip()))


def worker_count(asked: int | None) -> int:
    """Processes: as many as asked for, else cores."""
    return core_count() if asked is None else asked
