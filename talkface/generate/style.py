"""What a made face is to look and move like: a picture, motion or a clip."""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from talkface.clip import finite_rows
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError, SourceError
from talkface.generate.extract import ingested
from talkface.motion import Motion
from talkface.train.protocols import Style
from talkface.vocab import EMOTIONS
from talkface.weights import Models


def read_style(
    style: str | None,
    models: Models,
    *,
    data: Dataset | None = None,
    emotion: str | None = None,
    intensity: int | None = None,
    seed: int = 0,
) -> Style:
    """The frames that show how to look: those of one clip, as in DREAM-Talk 3.2. Pooled people would take turns.

    ``style`` is a video, a motion file (.npz, or .csv of Live Link Face), or the key of a clip of ``data``.
    ``emotion`` (and ``intensity``) take a clip of ``data`` with that label instead, drawn by ``seed``, of the speaker
    of the clip ``style`` where that is given. Raises ConfigError for what cannot be, SourceError where no face is
    found.
    """
    if emotion is not None:
        return _by_label(data, emotion, intensity, style, seed)
    if style is None:
        raise ConfigError("no style: give --style a video, a motion file or a clip's key, or --emotion and --data.")
    if Path(style).suffix in (".npz", ".csv") and Path(style).exists():
        motion = Motion.load(style)
        return _style(motion.arkit, motion.head, style)
    if data is not None and style in data:
        return _of_clip(data, style)
    if not Path(style).exists():
        known = "" if data is None else f", nor a clip of {data.url}"
        raise ConfigError(f"--style {style}: no such file{known}.")
    return _of_video(style, models)


def _style(arkit: np.ndarray, head: np.ndarray, name: str) -> Style:
    """Raises SourceError if no frame has a face."""
    seen = finite_rows(arkit) & finite_rows(head)
    if not seen.any():
        raise SourceError(f"{name}: no valid face in it: it cannot serve as a style.", "no_face")
    return Style(arkit[seen].astype(np.float32), head[seen, :7].astype(np.float32), name)


def _of_clip(data: Dataset, key: str) -> Style:
    arrays = data.arrays(key, ["arkit", "head"])
    return _style(arrays["arkit"], arrays["head"], key)


def _by_label(data: Dataset | None, emotion: str, intensity: int | None, near: str | None, seed: int) -> Style:
    if data is None:
        raise ConfigError("--emotion takes its style from a dataset: give --data.")
    if emotion not in EMOTIONS:
        raise ConfigError(f"--emotion {emotion}: expected one of {', '.join(EMOTIONS)}.")
    speaker = data.clips.column("speaker")[data.row(near)].as_py() if near is not None else None
    wanted = {"emotion": emotion, "intensity": intensity, "speaker": speaker}
    found = data
    for label, value in wanted.items():
        found = found if value is None else found.where(pc.field(label) == value)
    if len(found) == 0:
        level = "" if intensity is None else f" at intensity {intensity}"
        who = "" if speaker is None else f" of {speaker}"
        raise ConfigError(f"{data.url}: no clip{who} is labelled {emotion}{level}. See: toolkit stats {data.url}")
    return _of_clip(found, found.keys()[np.random.default_rng(seed).integers(len(found))])


def _of_video(path: str, models: Models) -> Style:
    """Blendshapes and head pose of the face that a video shows longest."""
    with ingested(path, models, keep_video=False) as dataset:
        tracks = dataset.clips.column("track").to_pylist()
        frames: dict[int, list[dict[str, np.ndarray]]] = {}
        for track, key in zip(tracks, dataset.keys(), strict=True):
            frames.setdefault(track, []).append(dataset.arrays(key, ["arkit", "head"]))
    longest = max(frames.values(), key=lambda clips: sum(len(c["arkit"]) for c in clips))
    arkit, head = (np.concatenate([c[name] for c in longest]) for name in ("arkit", "head"))
    return _style(arkit, head, Path(path).name)
