"""``talkface.render``: motion to a video or a sheet of pictures."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from talkface.api.weights import store_of
from talkface.datasets.export import motion_of
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError, DatasetError
from talkface.generate.extract import ingested, longest
from talkface.media import ClipFrames, decode_flac
from talkface.motion import Motion
from talkface.render import talk
from talkface.render.rigs import GL, Rig, open_rig
from talkface.weights import Models

Clip = tuple[Dataset, str]
"""A dataset and a key of it."""


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """What was written, the seconds that it lasts and that it took, and the shapes that the rig lacks."""

    files: tuple[Path, ...]
    frames: int = 0
    seconds: float = 0.0
    spent: float = 0.0
    rig: str
    missing: tuple[str, ...] = ()


def render(
    motion: str | Path | Motion,
    out: str | Path | None = None,
    *,
    sheet: str | Path | None = None,
    rig: str = "synthetic",
    audio: str | Path | None = None,
    size: int = 512,
    side_by_side: str | Path | None = None,
    data: str | None = None,
    gl: GL = "auto",
    draft: bool = False,
    models: str | Path | Models | None = None,
    offline: bool = False,
) -> Rendered:
    """Draw motion as a talking face: ``out`` is an mp4, ``sheet`` a PNG of frames and curves. Both say what made them.

    ``motion`` is a motion file, a clip's key with ``data``, or ``shapes``: every shape and turn once. ``rig`` is
    ``synthetic``, a .glb or .gltf file, or ICT-FaceKit's folder. ``side_by_side`` is a key of ``data`` or a video.
    Raises ConfigError for what cannot be, SourceError for files that cannot be used.
    """
    if gl not in ("auto", "never", "egl"):
        raise ConfigError(f"--gl {gl}: expected auto, never or egl.")
    if out is None and sheet is None:
        raise ConfigError("Nothing to write: give --out talk.mp4, --sheet talk.png, or both.")
    shown, what = (
        open_rig(rig, gl_use=gl, smooth_edges=not draft),
        motion if isinstance(motion, Motion) else str(motion),
    )
    wanted = _motion(what, data)
    if sheet is not None:
        picture = talk.shapes_sheet(shown) if what == "shapes" else talk.sheet(wanted, shown)
        talk.write_png(picture, sheet, talk.tags_of(wanted, shown.name))
    spent = 0.0
    if out is not None:
        clip = (_dataset(data), what) if data is not None and isinstance(what, str) and what in _dataset(data) else None
        with _beside(None if side_by_side is None else str(side_by_side), data, store_of(models, offline)) as beside:
            sound = _sound(None if audio is None else str(audio), clip, beside, talk.end_ns(wanted.pts_ns))
            spent = _write(out, wanted, shown, size - size % 2, beside, sound)
    files = tuple(Path(p) for p in (sheet, out) if p is not None)
    made = (0, 0.0) if out is None else (len(wanted), talk.end_ns(wanted.pts_ns) / 1e9)
    return Rendered(
        files=files, frames=made[0], seconds=made[1], spent=spent, rig=shown.name, missing=tuple(shown.missing)
    )


def _write(
    out: str | Path, motion: Motion, rig: Rig, size: int, beside: Clip | None, sound: np.ndarray | None
) -> float:
    """Write the video; returns the seconds that it took."""
    pictures = talk.frames(motion, rig, size)
    if beside is not None:
        pictures = talk.side_by_side(motion, _source(*beside), rig, size)
    started = time.perf_counter()
    talk.write_video(out, pictures, motion.pts_ns, tags=talk.tags_of(motion, rig.name), sound=sound)
    return time.perf_counter() - started


def _motion(what: str | Motion, data: str | None) -> Motion:
    if isinstance(what, Motion):
        return what
    if what == "shapes":
        return talk.range_of_motion()
    return Motion.load(what) if data is None or Path(what).is_file() else motion_of(_dataset(data), what)


def _dataset(url: str | None) -> Dataset:

    if url is None:
        raise ConfigError("A clip's key needs its dataset: add --data DATASET.")
    return Dataset(url)


@contextmanager
def _beside(what: str | None, data: str | None, store: Models) -> Iterator[Clip | None]:
    """The clip beside which motion is shown: a key of ``data``, or the longest clip of a video, which is ingested into
    a folder that goes away again. Raises ConfigError for what is neither, SourceError where no face is found.
    """
    if what is None:
        yield None
    elif data is not None and what in (dataset := _dataset(data)):
        yield dataset, what
    elif Path(what).is_file():
        with ingested(what, store) as dataset:
            yield dataset, longest(dataset)
    else:
        known = "" if data is None else f", nor a clip of {data}"
        raise ConfigError(f"--side-by-side {what}: no such file{known}. A clip's key needs --data DATASET.")


def _source(dataset: Dataset, key: str) -> talk.Source:
    """Pictures of a clip and what was extracted from it."""
    if not dataset.info.has_video:
        raise DatasetError(f"{dataset.url}: keeps no pictures to show beside the motion.")
    motion = motion_of(dataset, key)
    return talk.Source(pictures=iter(ClipFrames(dataset.member(key, "mp4"))), pts_ns=motion.pts_ns, motion=motion)


def _sound(audio: str | None, clip: Clip | None, beside: Clip | None, end_ns: int) -> np.ndarray | None:
    """The sound asked for, else that of the clip that the motion is of, or that it stands beside."""
    if audio is not None:
        return talk.read_audio(audio, end_ns)
    for found in (clip, beside):
        if found is not None:
            return decode_flac(found[0].member(found[1], "flac"))
    return None
