"""``toolkit train``."""

from pathlib import Path
from typing import Annotated

import typer

from talkface.commands._options import INTERRUPTED, Cpu, ModelsDir, Offline

TaskName = Annotated[
    str, typer.Argument(metavar="TASK", help="emodiff, ... (see docs/training.md).", show_default=False)
]
Data = Annotated[str | None, typer.Option("--data", help="Folder or fsspec url of a dataset.", show_default=False)]
RunOut = Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the run.", show_default=False)]
TaskToml = Annotated[Path | None, typer.Option("--config", help="TOML with values over the preset's.")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="One value over those, a.b=value; may be repeated.")]
HoldOut = Annotated[
    str, typer.Option(help="What is evaluated and never trained on: a split, speakers or sources, or none.")
]


def command(
    task: TaskName,
    data: Data = None,
    out: RunOut = None,
    preset: Annotated[str, typer.Option(help="tiny, paper or modern.")] = "paper",
    config: TaskToml = None,
    set_: Changes = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    hold_out: HoldOut = "val",
    workers: Annotated[int | None, typer.Option("--workers", "-j", min=0, help="Processes that read data.")] = None,
    cpu: Cpu = False,
    models: ModelsDir = None,
    offline: Offline = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of PyTorch (default: 1 for tiny, else cores left).")
    ] = None,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Say what a batch of this size costs, without data or memory for it.")
    ] = False,
) -> None:
    """Train a model on a dataset. Many GPUs: `accelerate launch -m talkface.cli train ...`.

    Example: `toolkit train emodiff --data mead --out runs/emodiff --preset tiny`
    """
    from talkface.api.train import train
    from talkface.console import console, errors

    if dry:
        from talkface.train.base import configure
        from talkface.train.dry_run import dry_run

        settings = configure(task, preset, config, set_ or ())
        for line in dry_run(task, settings).lines(settings.training.ema > 0):
            console.print(line, markup=False)
        return
    if data is None or out is None:
        raise typer.BadParameter("--data and --out are needed to train.")
    try:
        train(
            task, data, out, preset=preset, config=config, settings=set_ or (), resume=resume, hold_out=hold_out,
            workers=workers, cpu=cpu, threads=threads, models=models, offline=offline,
            say=console.print,
        )  # fmt: skip
    except KeyboardInterrupt:
        errors.print("Stopped. The last checkpoint is kept; go on with --resume.")
        raise typer.Exit(INTERRUPTED) from None
