"""A finished dataset of synthetic people who talk, whose every truth is known: to try models of pictures on.

    from talkface.render.talkers import make_talkers

    url = make_talkers("talkers", identities=2, clips=4, seconds=3.0, size=64)  # about 20 s; at once the next time

Nothing is detected: boxes, landmarks, blendshapes and head are what was drawn. ``open_dataset(url)`` gives clips with

- pictures of ``size`` x ``size`` pixels (a crop is the whole source: pixels of both are the same), sound and ``mel``;
- ``box``, ``lm68`` (no ``lm``: the rig is not MediaPipe's mesh), ``arkit``, ``head`` as an ingest would give them;
- ``truth`` (frames, 4): mouth opening in cm, blink 0..1, yaw in degrees, loudness of the speech 0..1 (`TRUTH` names
  them); ``voice`` (2,): mean pitch in Hz and formants' scale of the person;
- labels: ``speaker`` (``p0``, ``p1``, ...), ``emotion`` and ``intensity``; keys are like ``p0-1`` (person, clip).

The last clip of each person is in the split ``val`` and the others in ``train``; whole people are held out by name
(``--hold-out p1``). `verify` rightly says that the splits share people.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float, Float32

from talkface.annotate.arkit import Annotator as Arkit
from talkface.annotate.box import Annotator as Box
from talkface.annotate.head import Annotator as HeadPose
from talkface.annotate.head import angular_velocity, quaternions
from talkface.annotate.landmarks import Annotator as Landmarks
from talkface.annotate.mel import Annotator as Mel
from talkface.annotate.mel import log_mel
from talkface.clip import NS, ColumnSpec, FrameTable, ScoreSpec, Timeline
from talkface.config import Build
from talkface.datasets.build.job import build
from talkface.datasets.build.packs import PackUse, Plan
from talkface.datasets.split import Splitting, write_splitting
from talkface.media import VideoWriter, encode_flac
from talkface.render.identity import Identity
from talkface.render.landmarks import IBUG68
from talkface.render.performance import MOTIONS, Performance, perform
from talkface.render.raster import Camera
from talkface.render.rig import Head, wall
from talkface.render.synthetic import head_of, pictures, steady
from talkface.store import PACKS, Folder, npy, write_pack
from talkface.vocab import SAMPLE_RATE

VERSION: Final = 1
"""Raised where the same arguments give another dataset."""

FPS: Final = 25.0
FOV_DEGREES: Final = 36.0
"""The face is then about 0.6 of the picture's height."""

TRUTH: Final = ("mouth_open", "blink", "yaw_degrees", "loudness")

ACTS: Final = (("neutral", 2), ("happy", 3), ("sad", 3), ("surprised", 3), ("angry", 3), ("happy", 1))
"""Emotion and intensity of a person's clips, from the first one again after the last."""

COLUMNS: Final = (
    Box.columns[0],
    next(c for c in Landmarks.columns if c.name == "lm68"),
    Arkit.columns[0],
    HeadPose.columns[0],
    Mel.columns[0],
    ColumnSpec(
        name="truth", dtype="float32", shape=(4,), unit="cm, 0..1, degrees, 0..1", clock="frame",
        description="what was drawn and spoken", names=TRUTH,
    ),
    ColumnSpec(
        name="voice", dtype="float32", shape=(2,), unit="Hz, factor", clock="clip",
        description="of the person's voice", names=("pitch", "tract"),
    ),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Clip:
    """One clip to make: the ``number``-th of a person."""

    person: int
    number: int
    held: bool
    act: tuple[str, int]

    @property
    def key(self) -> str:
        return f"p{self.person}-{self.number}"


def make_talkers(
    folder: str | Path,
    *,
    identities: int = 2,
    clips: int = 4,
    seconds: float = 3.0,
    size: int = 64,
    acts: Sequence[tuple[str, int]] = ACTS,
    gaps: int = 0,
) -> str:
    """The dataset's url; it is made unless ``folder`` already holds that of the same arguments.

    ``clips`` is their number a person, ``size`` the side of the pictures, an even number of pixels. With ``gaps``
    every so many frames one has no face, as a tracker may lose it: all of its columns but ``truth`` are NaN. The same
    arguments give the same arrays. What else lies in ``folder`` is replaced.
    """
    root = Path(folder).absolute()
    about = {"version": VERSION, "identities": identities, "clips": clips, "seconds": seconds, "size": size}
    text = json.dumps(about | {"acts": [list(a) for a in acts], "gaps": gaps})
    told = root / "talkers.json"
    if not (told.is_file() and told.read_text() == text):
        root.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=root.parent, prefix=".talkers-"))
        plan = [
            _Clip(person=p, number=n, held=n == clips - 1 > 0, act=acts[n % len(acts)])
            for p in range(identities)
            for n in range(clips)
        ]
        _build(Folder(str(made)), plan, seconds, size, gaps)
        (made / "talkers.json").write_text(text)
        shutil.rmtree(root, ignore_errors=True)
        made.rename(root)
    return Folder(str(root)).url


def _build(folder: Folder, clips: Sequence[_Clip], seconds: float, size: int, gaps: int) -> None:
    packs = Folder(f"{folder.url}/{PACKS}")
    sources = [_source(clip, seconds, size) for clip in clips]
    for clip, source in zip(clips, sources, strict=True):
        _write(packs, clip, source["name"], seconds, size, gaps)
    splits = {"train": _group("train"), "val": _group("val")}
    groups = {s["sha256"]: splits["val" if c.held else "train"] for c, s in zip(clips, sources, strict=True)}
    write_splitting(folder, Splitting(val=0.5, test=0.0, by="source", groups=groups))
    info = {
        "talkface": "0", "annotators": {}, "faces": (), "config": {}, "config_hash": "0", "fingerprint": "0",
        "layout": "plain", "strictest_licence": "Apache-2.0",
    }  # fmt: skip
    score = ScoreSpec(name="speech_share", unit="0..1", description="share of the clip in which somebody speaks")
    plan = Plan(
        sources=sources, packs=[PackUse(name=c.key, source=f"{c.key}.mp4") for c in clips], rejects=[],
        columns=COLUMNS, scores=[score], info=info, has_video=True,
        build=Build(thresholds={}, shard_megabytes=8.0, val=0.5, test=0.0),
    )  # fmt: skip
    build(folder, plan)


def _group(split: str) -> str:
    """A name of a group that goes to a split."""
    halves = Splitting(val=0.5, test=0.0)
    return next(name for name in (f"{split}{i}" for i in count()) if halves.split_of(name) == split)


def _source(clip: _Clip, seconds: float, size: int) -> dict[str, Any]:
    """A row of sources.parquet."""
    name = f"{clip.key}.mp4"
    return {
        "uri": name, "name": name, "sha256": sha256(name.encode()).hexdigest(), "size": 1, "layout": "plain",
        "speaker": f"p{clip.person}", "emotion": clip.act[0], "intensity": clip.act[1], "camera": None,
        "language": None, "audio_uri": None, "container": "mp4", "duration": seconds, "video_codec": "h264",
        "width": size, "height": size, "fps": FPS, "rotation": 0, "audio_codec": "flac", "audio_rate": SAMPLE_RATE,
        "audio_channels": 1, "licence": "Apache-2.0",
    }  # fmt: skip


def _write(packs: Folder, clip: _Clip, source: str, seconds: float, size: int, gaps: int) -> None:
    """Act a clip, draw it, and write its pack."""
    person = Identity.from_seed(clip.person)
    emotion, intensity = clip.act
    motion = MOTIONS[1 + (clip.person + clip.number) % (len(MOTIONS) - 1)]
    acted = perform(
        steady(seconds, FPS), person, emotion=emotion, intensity=intensity, seed=97 * clip.person + clip.number,
        seconds=seconds, motion=motion,
    )  # fmt: skip
    head, camera = head_of(person), Camera(width=size, height=size, fov_degrees=FOV_DEGREES)
    columns = _columns(head, acted, camera)
    for name in ("box", "lm68", "arkit", "head") if gaps else ():
        columns[name][gaps // 2 :: gaps] = np.nan
    frames = len(acted.pts_ns)
    on_frames = {c.name: columns[c.name] for c in COLUMNS if c.clock == "frame"}
    members = {
        "mp4": _video(head, acted, camera),
        "flac": encode_flac(acted.speech.sound),
        "pts.npy": npy(acted.pts_ns),
        "valid.npy": npy(FrameTable(Timeline(acted.pts_ns), on_frames).valid()),
        **{f"{c.name}.npy": npy(columns[c.name].astype(c.dtype)) for c in COLUMNS},
    }
    speaking = sum(end - start for start, end in acted.speech.phrases) / seconds
    record = {
        "key": clip.key, "track": 0, "shot": 0, "start_ns": 0, "end_ns": round(frames * NS / FPS),
        "duration": frames / FPS, "frames": frames, "fps_avg": FPS, "is_vfr": False, "av_offset_ms": 0.0,
        "av_drift_ms": 0.0, "crop": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], "crop_size": size,
        "scores": {"speech_share": speaking}, "sound_filled_seconds": 0.0, "sound_dropped_seconds": 0.0, "share": {},
        "status": {},
    }  # fmt: skip
    with write_pack(packs, clip.key, {"source": source, "clips": [record], "rejects": []}) as pack:
        pack.add(clip.key, members)


def _columns(head: Head, acted: Performance, camera: Camera) -> dict[str, np.ndarray]:
    rows = list(zip(acted.arkit, acted.rotation, acted.translation, strict=True))
    turned = quaternions(acted.rotation)
    boxes = np.array([head.box(*row, camera) for row in rows])
    mouth = [head.mouth_open(row) for row in acted.arkit]
    who = head.identity
    return {
        "box": np.concatenate([boxes, np.ones((len(rows), 1))], axis=1),
        "lm68": np.stack(list(_landmarks(head, rows, camera))),
        "arkit": acted.arkit.copy(),
        "head": np.concatenate([turned, acted.translation, angular_velocity(turned, acted.pts_ns)], axis=1),
        "mel": log_mel(acted.speech.sound),
        "truth": np.stack([mouth, _blink(acted), acted.yaw_degrees, _loudness(acted)], axis=1),
        "voice": np.array([who.voice_hz, who.tract]),
    }


def _blink(acted: Performance) -> Float[np.ndarray, " frames"]:
    at = [i for i, name in enumerate(Arkit.columns[0].names) if name.startswith("eyeBlink")]
    return np.asarray(acted.arkit[:, at].mean(axis=1))


def _loudness(acted: Performance) -> Float[np.ndarray, " frames"]:
    return np.asarray(acted.speech.loudness(acted.pts_ns / NS))


def _landmarks(
    head: Head, rows: Sequence[Sequence[np.ndarray]], camera: Camera
) -> Iterator[Float32[np.ndarray, "68 2"]]:
    for arkit, rotation, translation in rows:
        points = head.some_vertices(IBUG68, arkit) @ rotation.T + translation
        yield camera.project(points).astype(np.float32)


def _video(head: Head, acted: Performance, camera: Camera) -> bytes:
    file = BytesIO()
    behind = wall(camera.width, camera.height, head.identity.wall)
    with VideoWriter(file, camera.width, camera.height, crf=12) as video:
        for picture, pts_ns in zip(pictures([(head, acted)], camera, behind), acted.pts_ns.tolist(), strict=True):
            video.write(picture, pts_ns)
    return file.getvalue()
