"""``talkface.evaluate``: numbers of generated faces."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from talkface.api.weights import store_of
from talkface.errors import ConfigError
from talkface.flame import find_flame
from talkface.generate.speech import speech_from
from talkface.metrics.base import Comparison, Face, SyncExpert, metric, metric_names
from talkface.metrics.evaluate import evaluate as measured
from talkface.metrics.faces import on_rig, pair_up, read_faces
from talkface.nets.lip import BlendshapeSyncNet
from talkface.render.landmarks import rig_points
from talkface.render.rig import Head
from talkface.render.talk import end_ns, read_audio
from talkface.train.checkpoint import load
from talkface.train.tasks.sync_expert import Expert, Task
from talkface.weights import Models


def evaluate(
    generated: str | Path,
    reference: str | Path | None = None,
    *,
    audio: str | Path | None = None,
    metrics: Sequence[str] | None = None,
    window: int = 32,
    stride: int | None = None,
    sync: str | Path | None = None,
    models: str | Path | Models | None = None,
    offline: bool = False,
) -> dict[str, Any]:
    """Measure generated faces: alone, against a reference as a population, and clip by clip where keys agree.

    ``generated`` and ``reference`` are a video or motion file, a folder of them, or a dataset; ``audio`` is the sound
    of one motion file, ``sync`` a run of sync_expert. ``window`` and ``stride`` are the frames of a sampling window and
    by how many the windows advance. What comes back is plain JSON: ``values`` by name, each with its unit.
    """
    store, names = store_of(models, offline), metric_names() if metrics is None else tuple(metrics)
    faces = read_faces(str(generated))
    if audio is not None:
        faces = [_speaking(faces, str(audio))]
    references = [] if reference is None else read_faces(str(reference))
    rig = partial(rig_points, Head())
    pairs = [(on_rig(a, rig), on_rig(b, rig)) for a, b in pair_up(faces, references)]
    heard = {face.key: face for face, _ in pairs}
    given = Comparison(
        generated=[heard.get(face.key, face) for face in faces],
        references=references,
        pairs=pairs,
        window=window,
        stride=window - 1 if stride is None else stride,
        sync_expert=None if sync is None else _expert(sync, store),
    )
    return {
        "generated": {"from": str(generated), "faces": len(faces)},
        "reference": {"from": None if reference is None else str(reference), "faces": len(references),
                      "pairs": len(pairs)},
        **measured(_with_flame(given, names, store), names, store),
    }  # fmt: skip


def _speaking(faces: list[Face], audio: str) -> Face:
    """The one face with its sound. Raises ConfigError for several, MediaError and SourceError as `read_audio`."""
    if len(faces) != 1:
        raise ConfigError(f"--audio {audio}: is the sound of one motion file, but here are {len(faces)} faces.")
    return replace(faces[0], sound=read_audio(audio, end_ns(faces[0].pts_ns)))


def _expert(run: str | Path, models: Models) -> SyncExpert:
    """The sync expert of a run. Raises WeightsError for what is missing or of another task."""
    model = load(run, task="sync_expert")
    task = cast(Task, model.task)
    return Expert(
        task,
        cast(BlendshapeSyncNet, model.net),
        lambda samples: speech_from(samples, [model], models).columns[task.config.sound],
    )


def _with_flame(given: Comparison, names: Sequence[str], models: Models) -> Comparison:
    """FLAME's head beside what is compared, or why there is none, where a metric asks for it."""
    if not any("flame_model" in metric(name).needs for name in names):
        return given
    known = any(a.has("flame") and b.has("flame") for a, b in given.pairs)
    found = find_flame(models) if known else "no pair face with flame"
    if isinstance(found, str):
        return replace(given, lacking={"flame_model": found})
    return replace(given, flame_model=found)
