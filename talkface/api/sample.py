"""``talkface.sample`` and ``talkface.transfer``."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from talkface.api.weights import store_of
from talkface.config import Strict, parse
from talkface.datasets.open import open_dataset
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError
from talkface.generate import motion as motions
from talkface.generate import transfer as transfers
from talkface.generate import video as videos
from talkface.generate.expression import dialled_style, recorded_style
from talkface.generate.extract import read_portrait
from talkface.generate.provenance import sampling_of
from talkface.generate.speech import read_speech
from talkface.generate.style import read_style
from talkface.motion import Motion
from talkface.render.talk import end_ns, read_audio
from talkface.train import checkpoint as checkpoints
from talkface.train.checkpoint import Model
from talkface.train.protocols import MotionTransfer, Style, VideoGenerator
from talkface.weights import Models

Settings = Strict | Mapping[str, Any] | None
"""An instance of the task's ``Sampling``, values over its defaults by name, or None for the defaults."""


@dataclass(frozen=True)
class Sampled:
    """What was sampled: one `Motion` or `Video` a variant, each with ``save(path)``.

    ``seconds`` is how long each lasts, ``style`` the name of the clip or file whose style it has. ``times_real_time``
    is how fast motion was made; a video is made when it is saved.
    """

    results: Sequence[Motion | videos.Video]
    seconds: float
    style: str | None = None
    times_real_time: float | None = None


def sample(
    run: str | Path | Model,
    audio: str | Path,
    *,
    picture: str | Path | None = None,
    lip: str | Path | Model | None = None,
    style: str | Path | None = None,
    data: str | Dataset | None = None,
    emotion: str | None = None,
    intensity: float | str | None = None,
    expression: str | Path | None = None,
    seed: int = 0,
    variants: int = 1,
    settings: Settings = None,
    checkpoint: str = "best",
    models: str | Path | Models | None = None,
    offline: bool = False,
    device: str = "cpu",
) -> Sampled:
    """Generate motion for a sound, or with ``picture`` a video of that face speaking.

    ``run`` is a run of ``talkface.train``, one of its checkpoints, or a loaded one. ``style`` is a video, a motion file
    or the key of a clip of ``data``; ``emotion`` takes a clip of ``data`` with that label instead. ``expression`` is a
    run of expression_gan, which acts ``emotion`` at an ``intensity`` (0 to 1, or a curve ``seconds:value,...``), or a
    recording (motion file, video, clip of ``data``) whose expressions a video follows. ``lip`` is a run
    that refines the mouth. The same ``seed`` gives the same result; variants differ.

    Raises ConfigError for what does not fit together, WeightsError for a checkpoint that cannot be used, SourceError
    for sound without samples and pictures without one face.
    """
    store, dataset = store_of(models, offline), dataset_of(data)
    model = opened(run, checkpoint, device, store)
    refiner = None if lip is None else opened(lip, "best", device, store)
    how, named = settings_of(model, settings), style is not None or emotion is not None
    is_video = _makes_video(model, picture, refiner)
    face = read_portrait(str(picture), store) if is_video else None
    speech = read_speech(str(audio), [m for m in (model, refiner) if m is not None], store)
    about = {"sound": Path(audio).name}
    look: Style | None = None
    if expression is not None:
        frames = speech.frames(model.task.config.fps)
        if Path(expression).is_dir():
            gan = opened(expression, "best", device, store)
            look = dialled_style(model, gan, emotion, "1" if intensity is None else str(intensity), frames, seed)
        else:
            look = recorded_style(model, str(expression), store, dataset, frames)
    elif named or face is None:
        named_style = None if style is None else str(style)
        look = read_style(named_style, store, data=dataset, emotion=emotion, intensity=level_of(intensity), seed=seed)
    if face is not None:
        films = [
            videos.sample_video(model, speech, face, how, style=look, seed=seed + n, about=about | {"variant": n})
            for n in range(variants)
        ]
        return Sampled(films, speech.seconds, None if look is None else look.name)
    assert look is not None
    made = motions.sample(model, speech, look, how, lip=refiner, seed=seed, variants=variants, about=about)
    return Sampled(made.motions, speech.seconds, look.name, made.times_real_time)


@contextmanager
def transfer(
    run: str | Path | Model,
    picture: str | Path,
    driving: str | Path,
    *,
    data: str | Dataset | None = None,
    audio: str | Path | None = None,
    seed: int = 0,
    settings: Settings = None,
    checkpoint: str = "best",
    models: str | Path | Models | None = None,
    offline: bool = False,
    device: str = "cpu",
) -> Iterator[videos.Video]:
    """The face of a picture moving as a motion file, a clip of ``data`` or a video does.

    The file has the sound of ``audio``, else that of the driving clip. Use it in a ``with`` block and save the video
    there: what was extracted of a driving video is removed at its end.
    """
    model = opened(run, checkpoint, device, store_of(models, offline))
    how = settings_of(model, settings)
    if not isinstance(model.task, MotionTransfer):
        raise ConfigError(f"--run: a run of {model.about.task} transfers no motion to a picture.")
    store, dataset = store_of(models, offline), dataset_of(data)
    face = read_portrait(str(picture), store)
    with transfers.read_driving(str(driving), store, dataset) as moves:
        if audio is not None:
            sound = read_audio(str(audio), end_ns(moves.pts_ns))
            yield transfers.transfer(model, face, replace(moves, sound=sound), how, seed=seed)
        else:
            yield transfers.transfer(model, face, moves, how, seed=seed)


def level_of(intensity: float | str | None) -> int | None:
    """The intensity of a label. Raises ConfigError for what is no level."""
    if intensity is None or str(intensity) in ("1", "2", "3"):
        return None if intensity is None else int(intensity)
    raise ConfigError(f"--intensity {intensity}: labels have 1, 2 or 3. Others need --expression.")


def opened(run: str | Path | Model, checkpoint: str, device: str, models: Models) -> Model:
    """A run's model, unless it is one already; frozen weights of the registry are among ``models``."""
    return run if isinstance(run, Model) else checkpoints.load(run, which=checkpoint, device=device, models=models)


def dataset_of(data: str | Dataset | None) -> Dataset | None:
    """A dataset, opened unless it is already."""
    return open_dataset(data) if isinstance(data, str) else data


def settings_of(model: Model, given: Settings) -> Strict:
    """Settings of sampling. Raises ConfigError for one that the task does not have."""
    default = sampling_of(model.task)
    if given is None:
        return default
    return (
        given
        if isinstance(given, Strict)
        else parse(type(default), default.model_dump() | dict(given), where="settings")
    )


def _makes_video(model: Model, picture: str | Path | None, refiner: Model | None) -> bool:
    """Whether a run makes a video. Raises ConfigError where a picture is missing, or of no use."""
    name, makes = model.about.task, isinstance(model.task, VideoGenerator)
    if isinstance(model.task, MotionTransfer) and not makes:
        raise ConfigError(
            f"a run of {name} follows motion, not sound: toolkit transfer --run RUN --picture P --driving M"
        )
    if makes and picture is None:
        raise ConfigError(f"a run of {name} animates a portrait: give --picture face.png.")
    if picture is not None and not makes:
        raise ConfigError(
            f"--picture: a run of {name} generates motion, not video. Leave --picture out, then: toolkit transfer"
        )
    if makes and refiner is not None:
        raise ConfigError(f"--lip refines motion, and a run of {name} generates video. Leave --lip out.")
    return makes
