"""From checkpoints, a sound and a style to motion."""

import hashlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.compute as pc
import torch
from jaxtyping import Int16

from talkface import __version__
from talkface.clip import NS, finite_rows
from talkface.config import Cut, Ingest, Pack
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError, SourceError
from talkface.ingest import job
from talkface.ingest.scan import scan
from talkface.media import probe, read_sound
from talkface.motion import Motion
from talkface.store import PACKS, Folder, from_npy, tar_members
from talkface.train.base import Generator, Refiner, Speech, Style
from talkface.train.checkpoint import Model
from talkface.train.inputs.audio_features import SoundFacts, speech_of
from talkface.vocab import EMOTIONS
from talkface.weights import Models


@dataclass(frozen=True)
class Made:
    """What sampling gave, and how fast: seconds of motion (all variants) a second."""

    motions: list[Motion]
    times_real_time: float


def sample(
    model: Model,
    speech: Speech,
    style: Style,
    how: Any,
    *,
    lip: Model | None = None,
    seed: int = 0,
    variants: int = 1,
    about: Mapping[str, Any] | None = None,
) -> Made:
    """Draw motion from a model, its mouth refined by ``lip`` if there is one. The same seed gives the same motion.

    Every motion says in its provenance that it is synthetic, and what made it.
    """
    if not hasattr(model.task, "sample"):
        raise ConfigError(f"a run of {model.about.task} makes no motion: give --run one of emodiff.")
    if lip is not None and not hasattr(lip.task, "refine"):
        raise ConfigError(f"a run of {lip.about.task} refines no motion: give --lip one of lip.")
    device = next(model.net.parameters()).device
    rng = torch.Generator(device).manual_seed(seed)
    began = time.perf_counter()
    made = cast(Generator, model.task).sample(model.net, speech, style, rng, how, variants=variants)
    if lip is not None:
        made = [cast(Refiner, lip.task).refine(lip.net, motion, speech, style) for motion in made]
    spent = time.perf_counter() - began
    known = {
        "synthetic": True, "talkface": __version__, "task": model.about.task, "checkpoint": model.digest,
        "step": model.about.step, "lip": None if lip is None else lip.digest, "style": style.name, "seed": seed,
        "sound_sha256": hashlib.sha256(speech.samples.tobytes()).hexdigest(), "sampling": how.model_dump(mode="json"),
        **(about or {}),
    }  # fmt: skip
    motions = [replace(m, provenance={**m.provenance, **known, "variant": number}) for number, m in enumerate(made)]
    return Made(motions, variants * speech.seconds / max(spent, 1e-9))


def read_speech(path: str, wanted: Sequence[Model], models: Models) -> Speech:
    """Any sound file or video as speech for some models. Raises MediaError; SourceError where there is no sound."""
    duration = probe(path, sound_only=True).duration
    sound = read_sound(path, 0, round(duration * NS))
    if not sound.present or len(sound.samples) == 0:
        raise SourceError(f"{path}: no sound in it. Give --audio a file with sound.", "no_sound")
    return speech_from(sound.samples, wanted, models)


def speech_from(samples: Int16[np.ndarray, " samples"], wanted: Sequence[Model], models: Models) -> Speech:
    """Samples at 16 kHz as speech for some models."""
    facts = [SoundFacts.of(m.about.facts["sound"]) for m in wanted if "sound" in m.about.facts]
    return speech_of(samples, facts, models)


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
    """Blendshapes and head pose of the face that a video shows longest, measured as an ingest does."""
    pack = Pack(annotators=("box", "landmarks", "arkit", "head"), keep_video=False, cut=Cut(min_seconds=0.2))
    with tempfile.TemporaryDirectory() as folder:
        out = Folder(folder)
        result = job.ingest(scan([path]), out, Ingest(pack=pack), models, workers=0)
        tracks = _tracks(Folder(f"{out.url}/{PACKS}"))
    if not tracks:
        why = result.rejects[0]["reason"] if result.rejects else "no face found"
        raise SourceError(f"{path}: no valid face in it ({why}): it cannot serve as a style.", "no_face")
    longest = max(tracks.values(), key=lambda columns: len(columns["arkit"]))
    return _style(longest["arkit"], longest["head"], Path(path).name)


def _tracks(packs: Folder) -> dict[tuple[str, str], dict[str, np.ndarray]]:
    """``arkit`` and ``head`` of every track in every pack of a source, its clips one after the other."""
    found: dict[tuple[str, str], dict[str, list[np.ndarray]]] = {}
    for name in packs.names(suffix=".tar"):
        with packs.open(name) as file:
            for member, data in tar_members(file):
                key, column = member.name.split(".")[:2]
                if column in ("arkit", "head"):
                    track = found.setdefault((name, key.rpartition("-")[2]), {"arkit": [], "head": []})
                    track[column].append(from_npy(data))
    return {track: {c: np.concatenate(parts) for c, parts in of.items()} for track, of in found.items()}
