"""Datasets whose every value is known: columns are functions of time on clocks of all kinds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from talkface.annotate.head import Annotator as Head
from talkface.clip import ColumnSpec, FrameTable, ScoreSpec, Timeline, ns_to_samples
from talkface.config import Build
from talkface.datasets import Dataset
from talkface.datasets.build.job import build
from talkface.datasets.build.packs import PackUse, Plan
from talkface.datasets.format import schema
from talkface.media import VideoWriter, encode_flac
from talkface.store import PACKS, Folder, TarWriter, npy, table_bytes, tar_members, write_pack
from tests.datasets.conftest import NOTHING, make_plan, source

CROP = np.array([[0.5, 0.0, -10.0], [0.0, 0.5, -20.0]])
SIZE = 64
"""Side of the crop in pixels; a clip's picture i is grey with a white dot at `dot`."""

COLUMNS = (
    ColumnSpec(
        name="box", dtype="float32", shape=(5,), unit="px", clock="frame", description="",
        names=("x0", "y0", "x1", "y1", "score"),
    ),
    ColumnSpec(name="lm", dtype="float32", shape=(3, 3), unit="px", clock="frame", description=""),
    ColumnSpec(name="arkit", dtype="float32", shape=(52,), unit="0..1", clock="frame", description="shapes"),
    Head.columns[0],
    ColumnSpec(name="mel", dtype="float16", shape=(4,), unit="log", clock="sound", description="", rate=80.0),
    ColumnSpec(name="shape", dtype="float32", shape=(3,), unit="", clock="clip", description="one a clip"),
)  # fmt: skip


@dataclass(frozen=True)
class Made:
    """One clip to make."""

    key: str
    pts_ns: np.ndarray
    end_ns: int
    speaker: str = "p"
    emotion: str = "happy"
    seed: int = 0

    @property
    def number(self) -> float:
        """Stands in the clip's columns, so that a window tells which clip it is of."""
        return float(self.seed)


def steady(key: str, frames: int, fps: float = 25.0, **more: Any) -> Made:
    """A clip at a constant rate."""
    times = np.round(np.arange(frames + 1) * 1e9 / fps).astype(np.int64)
    return Made(key, times[:-1], int(times[-1]), **more)


def variable(key: str, frames: int, seed: int, **more: Any) -> Made:
    """A clip whose frames are 10 to 90 ms apart."""
    times = np.cumsum([0, *np.random.default_rng(seed).integers(10_000_000, 90_000_000, frames)])
    return Made(key, times[:-1].astype(np.int64), int(times[-1]), seed=seed, **more)


def dot(pts_ns: np.ndarray) -> np.ndarray:
    """The pixel of the crop in the middle of the dot at each time: (frames, 2)."""
    i = np.arange(len(pts_ns))
    return np.stack([12 + 4 * (i % 10), 12 + 4 * (i // 10 % 10)], axis=1).astype(float)


def columns_of(clip: Made) -> dict[str, np.ndarray]:
    """Lines over time, a head that turns steadily; arkit lacks tongueOut, and every 7th frame."""
    seconds = clip.pts_ns[:, None] / 1e9
    arkit = clip.number + seconds * np.arange(52) / 52
    arkit[:, 51] = np.nan
    arkit[6::7] = np.nan
    turn = Rotation.from_rotvec(seconds * [0.1, 0.8, 0.2]).as_quat()[:, [3, 0, 1, 2]]
    head = np.concatenate([turn, seconds * np.arange(1, 7)], axis=1)
    centre = (dot(clip.pts_ns) + 0.5 - CROP[:, 2]) / 0.5
    box = np.concatenate([centre - 8, centre + 8, np.ones_like(seconds)], axis=1)
    lm = np.concatenate([centre, seconds], axis=1)[:, None].repeat(3, axis=1)
    rows = round(clip.end_ns * 80 / 1e9)
    mel = np.arange(rows)[:, None] / 80 + np.zeros(4)
    return {
        "box": box.astype(np.float32), "lm": lm.astype(np.float32), "arkit": arkit.astype(np.float32),
        "head": head.astype(np.float32), "mel": mel.astype(np.float16), "shape": np.full(3, clip.number, np.float32),
    }  # fmt: skip


def sound_of(clip: Made) -> np.ndarray:
    """Sample i is i, modulo what fits."""
    return (np.arange(ns_to_samples(clip.end_ns)) % 30_000).astype(np.int16)


def pictures(clip: Made, path: Path) -> bytes:
    with VideoWriter(path, SIZE, SIZE) as writer:
        for (x, y), at in zip(dot(clip.pts_ns).astype(int), clip.pts_ns.tolist(), strict=True):
            picture = np.full((SIZE, SIZE, 3), 60, np.uint8)
            picture[y - 2 : y + 3, x - 2 : x + 3] = 255
            writer.write(picture, at)
    return path.read_bytes()


def make(root: str | Path, clips: Sequence[Made], *, video: bool = False, megabytes: float = 0.02) -> str:
    """Build a dataset of ``clips``, one source each, all in one split; returns its url."""
    folder = Folder(str(root))
    packs = Folder(f"{folder.url}/{PACKS}")
    sources = [source(f"{c.key}.mp4", speaker=c.speaker, emotion=c.emotion, intensity=3) for c in clips]
    for clip in clips:
        record = {
            "key": clip.key, "track": 0, "shot": 0, "start_ns": 5_000, "end_ns": 5_000 + clip.end_ns,
            "duration": clip.end_ns / 1e9, "frames": len(clip.pts_ns), "fps_avg": Timeline(clip.pts_ns).fps,
            "is_vfr": Timeline(clip.pts_ns).is_variable, "av_offset_ms": 0.0, "av_drift_ms": 0.0,
            "crop": CROP.tolist(), "crop_size": SIZE, "scores": {"speech_share": 1.0}, **NOTHING,
        }  # fmt: skip
        columns = columns_of(clip)
        on_frames = {c.name: columns[c.name] for c in COLUMNS if c.clock == "frame"}
        members = {
            **({"mp4": pictures(clip, Path(str(root)).with_suffix(".mp4"))} if video else {}),
            "flac": encode_flac(sound_of(clip)),
            "pts.npy": npy(clip.pts_ns),
            "valid.npy": npy(FrameTable(Timeline(clip.pts_ns), on_frames).valid()),
            **{f"{name}.npy": npy(values) for name, values in columns.items()},
        }
        about: dict[str, Any] = {"clips": [record], "rejects": []}
        with write_pack(packs, clip.key, about) as pack:
            pack.add(clip.key, members)
    plan = Plan(
        sources=sources, packs=[PackUse(name=c.key, source=f"{c.key}.mp4") for c in clips], rejects=[], columns=COLUMNS,
        scores=[ScoreSpec(name="speech_share", unit="0..1", description="a share")],
        info=make_plan(folder, 0).info, has_video=video,
        build=Build(thresholds={}, shard_megabytes=megabytes, val=0, test=0),
    )  # fmt: skip
    build(folder, plan)
    return folder.url


def edit_base(root: Path, key: str, member: str, data: bytes) -> None:
    """Build a dataset anew as an ingest of other content would: one member of one clip differs."""
    dataset = Dataset(str(root))
    shards, members = dataset.table("shards").to_pylist(), []
    for shard in shards:
        with dataset.folder.open(shard["shard"]) as file:
            held = [(m.name, d) for m, d in tar_members(file)]
        with dataset.folder.create(shard["shard"]) as new:
            tar = TarWriter(new)
            for name, old in held:
                at = tar.add(name, data if name == f"{key}.{member}" else old)
                place = {"key": name.split(".")[0], "member": name.split(".", 1)[1], "shard": shard["shard"]}
                members.append({**place, "offset": at.offset, "size": at.size})
            tar.close()
        shard |= {"bytes": tar.bytes, "sha256": tar.sha256}
    dataset.folder.write("manifest/shards.parquet", table_bytes(shards, schema.SHARDS))
    dataset.folder.write("manifest/members.parquet", table_bytes(members, schema.MEMBERS))
