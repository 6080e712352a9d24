"""``toolkit evaluate``."""

import json
from typing import Annotated

import typer

from talkface.commands._options import ModelsDir, Offline, names_in


def command(
    generated: Annotated[str, typer.Argument(help="Video, motion file (.npz, .csv), a folder of them, or a dataset.")],
    reference: Annotated[str | None, typer.Option(help="What to compare with: a dataset, a folder or a file.")] = None,
    audio: Annotated[
        str | None, typer.Option(help="Sound of one motion file; its start is the motion's time 0.")
    ] = None,
    metrics: Annotated[str | None, typer.Option(help="Metrics, separated by commas (default: all).")] = None,
    window: Annotated[int, typer.Option(min=2, help="Frames of a sampling window, for jumps between windows.")] = 32,
    stride: Annotated[int | None, typer.Option(min=1, help="By how many frames windows advance (window - 1).")] = None,
    sync: Annotated[
        str | None, typer.Option(help="A run of sync_expert: how well mouth and sound go together.")
    ] = None,
    models: ModelsDir = None,
    offline: Offline = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure generated faces: alone, against a reference as a population, and clip by clip where keys agree.

    Example: `toolkit evaluate motion.npz --audio speech.wav --reference dataset --sync runs/expert`
    """
    from talkface.api.evaluate import evaluate
    from talkface.console import print_evaluation

    found = evaluate(
        generated, reference, audio=audio, metrics=None if metrics is None else names_in(metrics), window=window,
        stride=stride, sync=sync, models=models, offline=offline,
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        print_evaluation(found)
