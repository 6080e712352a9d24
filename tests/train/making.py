"""A small dataset of talkers for trainers: the mouth follows the sound, other shapes the emotion."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from talkface.annotate._transformers import n_rows
from talkface.annotate.ctc import Annotator as Ctc
from talkface.annotate.head import Annotator as Head
from talkface.annotate.mel import Annotator as Mel
from talkface.annotate.mel import log_mel
from talkface.annotate.wav2vec import Annotator as Wav2vec
from talkface.clip import ColumnSpec, FrameTable, ScoreSpec, Timeline, ns_to_samples
from talkface.config import Build
from talkface.datasets.build.job import build
from talkface.datasets.build.packs import PackUse, Plan
from talkface.media import encode_flac
from talkface.motion import head_rows
from talkface.store import PACKS, Folder, npy, write_pack
from talkface.vocab import ARKIT
from tests.datasets.conftest import NOTHING, make_plan, source

ARKIT_COLUMN = ColumnSpec(
    name="arkit", dtype="float32", shape=(52,), unit="0..1", clock="frame", description="shapes", names=ARKIT
)
COLUMNS = (ARKIT_COLUMN, Head.columns[0], Mel.columns[0])
HEARD = (*COLUMNS, Wav2vec.columns[0], Ctc.columns[0])
"""With stand-ins for what speech models give."""
RAISED = {
    "happy": ("mouthSmileLeft", "mouthSmileRight"),
    "angry": ("browDownLeft", "browDownRight", "noseSneerLeft", "noseSneerRight"),
    "surprised": ("browInnerUp",),
}
"""Shapes that a label raises by a half."""
TALKERS = tuple((f"p{i}", emotion) for i in range(3) for emotion in ("neutral", "happy"))


def talker(seed: int, emotion: str, frames: int, *, silent: bool = False) -> dict[str, np.ndarray]:
    """Columns of one clip at 25 fps, and its ``sound``: syllables of noise that open the jaw."""
    rng = np.random.default_rng(seed)
    pts = np.round(np.arange(frames) * 40_000_000).astype(np.int64)
    seconds = pts / 1e9
    loud = np.clip(np.sin(2 * np.pi * (3 + 0.5 * rng.random()) * seconds + rng.random() * 6), 0, None)
    sound = rng.normal(size=ns_to_samples(frames * 40_000_000)) * 6000
    sound *= np.interp(np.arange(len(sound)) / 16000, seconds, loud)
    arkit = rng.normal(0, 0.002, (frames, 52)) + 0.05
    arkit[:, ARKIT.index("jawOpen")] += 0.6 * loud
    for name in RAISED.get(emotion, ()):
        arkit[:, ARKIT.index(name)] += 0.5
    arkit[:, ARKIT.index("tongueOut")] = np.nan
    arkit[5::17] = np.nan
    angles = np.stack([0.3 * np.sin(seconds + seed), 0.1 * np.cos(seconds), 0 * seconds], axis=1)
    head = np.concatenate([head_rows(angles, np.full((frames, 3), 5.0)), np.zeros((frames, 3))], axis=1)
    head[5::17] = np.nan
    samples = sound.clip(-32000, 32000).astype(np.int16)
    mel = log_mel(samples)
    if silent:
        samples[:], mel[:] = 0, np.nan
    return {
        "pts": pts, "sound": samples, "arkit": arkit.clip(0, 1).astype(np.float32), "head": head.astype(np.float32),
        "mel": mel,
    }  # fmt: skip


def heard(mel: np.ndarray, samples: int, spec: ColumnSpec) -> np.ndarray:
    """A stand-in for a speech model's column: of so many samples the mel at its rate, in directions of its own."""
    width = int(np.prod(spec.shape))
    directions = np.random.default_rng(width).normal(0, 0.3, (mel.shape[1], width))
    rows = np.round((spec.first_seconds + np.arange(n_rows(samples)) / spec.rate) * Mel.columns[0].rate).astype(int)
    seen = (mel[rows.clip(0, len(mel) - 1)].astype(np.float64) + 5) @ directions / np.sqrt(width)
    posteriors = np.exp(seen) / np.exp(seen).sum(axis=1, keepdims=True)
    return (posteriors if spec.name == "ctc" else seen).astype(spec.dtype).reshape(-1, *spec.shape)


def make(
    root: str | Path,
    talkers: Sequence[tuple[str, str]] = TALKERS,
    *,
    frames: int = 90,
    columns: Sequence[ColumnSpec] = COLUMNS,
    silent: Sequence[int] = (),
    faceless: Sequence[int] = (),
    val: float = 0.3,
) -> str:
    """Build a dataset, one source a talker (speaker, emotion); returns its url.

    The clips in ``silent`` have no sound, those in ``faceless`` no face.
    """
    folder = Folder(str(root))
    packs = Folder(f"{folder.url}/{PACKS}")
    sources = []
    for number, (speaker, emotion) in enumerate(talkers):
        key = f"{speaker}-{emotion}-{number}"
        sources.append(source(f"{key}.mp4", speaker=speaker, emotion=emotion, intensity=3))
        clip = talker(number, emotion, frames, silent=number in silent)
        if number in faceless:
            clip["arkit"][:] = np.nan
        extra = [c for c in columns if c.name not in clip]
        clip |= {c.name: heard(clip["mel"], len(clip["sound"]), c) for c in extra}
        end = frames * 40_000_000
        record = {
            "key": key, "track": 0, "shot": 0, "start_ns": 0, "end_ns": end, "duration": end / 1e9, "frames": frames,
            "fps_avg": 25.0, "is_vfr": False, "av_offset_ms": 0.0, "av_drift_ms": 0.0,
            "crop": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], "crop_size": 64, "scores": {"speech_share": 1.0}, **NOTHING,
        }  # fmt: skip
        table = FrameTable(Timeline(clip["pts"]), {n: clip[n] for n in ("arkit", "head")})
        members = {
            "flac": encode_flac(clip["sound"]),
            "pts.npy": npy(clip["pts"]),
            "valid.npy": npy(table.valid()),
            **{f"{c.name}.npy": npy(clip[c.name]) for c in columns},
        }
        about: dict[str, Any] = {"source": f"{key}.mp4", "clips": [record], "rejects": []}
        with write_pack(packs, key, about) as pack:
            pack.add(key, members)
    plan = Plan(
        sources=sources, packs=[PackUse(name=s["name"][:-4], source=s["name"]) for s in sources],
        rejects=[], columns=columns,
        scores=[ScoreSpec(name="speech_share", unit="0..1", description="a share")],
        info=make_plan(folder, 0).info, has_video=False,
        build=Build(thresholds={}, shard_megabytes=0.2, val=val, test=0),
    )  # fmt: skip
    build(folder, plan)
    return folder.url
