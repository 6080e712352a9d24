"""``toolkit evaluate``."""

import json
from typing import TYPE_CHECKING, Annotated, cast

import typer

from talkface.commands._options import ModelsDir, Offline, names_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from talkface.metrics.base import Comparison, Face, SyncExpert
    from talkface.weights import Models


def command(
    generated: Annotated[str, typer.Argument(help="Motion file (.npz, .csv), a folder of them, or a dataset.")],
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
    from functools import partial

    from talkface.console import print_evaluation
    from talkface.metrics.base import Comparison, metric_names
    from talkface.metrics.evaluate import evaluate
    from talkface.metrics.faces import on_rig, pair_up, read_faces
    from talkface.render.landmarks import rig_points
    from talkface.render.rig import Head
    from talkface.weights import Models

    rig = partial(rig_points, Head())
    names = metric_names() if metrics is None else names_in(metrics)
    faces = read_faces(generated)
    if audio is not None:
        faces = [_speaking(faces, audio)]
    references = [] if reference is None else read_faces(reference)
    pairs = [(on_rig(a, rig), on_rig(b, rig)) for a, b in pair_up(faces, references)]
    heard = {face.key: face for face, _ in pairs}
    there = Models(models, offline=offline)
    given = Comparison(
        generated=[heard.get(face.key, face) for face in faces],
        references=references,
        pairs=pairs,
        window=window,
        stride=window - 1 if stride is None else stride,
        sync_expert=None if sync is None else _expert(sync, there),
    )
    found = {
        "generated": {"from": generated, "faces": len(faces)},
        "reference": {"from": reference, "faces": len(references), "pairs": len(pairs)},
        **evaluate(_with_flame(given, names, there), names),
    }
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        print_evaluation(found)


def _speaking(faces: "list[Face]", audio: str) -> "Face":
    """The one face with its sound. Raises ConfigError for several, MediaError and SourceError as `read_audio`."""
    from dataclasses import replace

    from talkface.errors import ConfigError
    from talkface.render.talk import end_ns, read_audio

    if len(faces) != 1:
        raise ConfigError(f"--audio {audio}: is the sound of one motion file, but here are {len(faces)} faces.")
    return replace(faces[0], sound=read_audio(audio, end_ns(faces[0].pts_ns)))


def _expert(run: str, models: "Models") -> "SyncExpert":
    """The sync expert of a run. Raises WeightsError for what is missing or of another task."""
    from talkface.generate.speech import speech_from
    from talkface.nets.lip import BlendshapeSyncNet
    from talkface.train.checkpoint import load
    from talkface.train.tasks.sync_expert import Expert, Task

    model = load(run, task="sync_expert")
    task = cast(Task, model.task)
    return Expert(
        task,
        cast(BlendshapeSyncNet, model.net),
        lambda samples: speech_from(samples, [model], models).columns[task.config.sound],
    )


def _with_flame(given: "Comparison", names: "Sequence[str]", models: "Models") -> "Comparison":
    """FLAME's head beside what is compared, or why there is none, where a metric asks for it."""
    from dataclasses import replace

    from talkface.flame import find_flame
    from talkface.metrics.base import metric

    if not any("flame_model" in metric(name).needs for name in names):
        return given
    known = any(a.has("flame") and b.has("flame") for a, b in given.pairs)
    found = find_flame(models) if known else "no pair face with flame"
    if isinstance(found, str):
        return replace(given, lacking={"flame_model": found})
    return replace(given, flame_model=found)
