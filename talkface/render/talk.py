"""Motion to pictures: on a rig, beside a clip, as a contact sheet, and as an mp4 that says what it is."""

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, Int16, Int64, UInt8
from scipy.spatial.transform import Rotation

from talkface.clip import NS, ns_to_samples
from talkface.datasets.resample import resample
from talkface.errors import SourceError
from talkface.media import VideoWriter, read_sound
from talkface.motion import Motion, head_rows, steady_pts
from talkface.render.label import label
from talkface.render.overlay import below, contact_sheet, curves
from talkface.render.rigs import Rig
from talkface.store import Folder
from talkface.vocab import ARKIT

Picture = UInt8[np.ndarray, "_height _width 3"]
SHOWN = ("jawOpen", "mouthFunnel", "mouthSmileLeft", "browInnerUp", "eyeBlinkLeft")
"""Shapes whose curves are drawn."""
_ORIGINS = ("checkpoint", "made_from", "clip", "live_link_face")
"""Parts of a provenance that say where motion is from, the first that is there."""
_STRIP = 96
_PNG_HEAD = 33
"""Bytes of a PNG's signature and header chunk."""
_FOREVER = (1 << 60, 1 << 60)
_HOLD = 12
"""Frames that the range of motion spends on one shape."""


def without_gaps(motion: Motion) -> Motion:
    """``motion`` with what is missing filled: between two known values on a line (rotations along the great arc),
    before the first and after the last held. What is never known is at rest.
    """
    arkit = np.stack([_filled(c, motion.pts_ns, 0.0) for c in motion.arkit.T], axis=1)
    turn = _filled(motion.head[:, :4], motion.pts_ns, np.array([1.0, 0, 0, 0]))
    place = np.stack([_filled(c, motion.pts_ns, 0.0) for c in motion.head[:, 4:].T], axis=1)
    head = np.concatenate([turn, place], axis=1)
    return replace(motion, arkit=arkit.astype(np.float32), head=head.astype(np.float32))


def at_times(motion: Motion, pts_ns: Int64[np.ndarray, " frames"]) -> Motion:
    """``motion`` at other times; its ends are held."""
    full = without_gaps(motion)
    arkit = resample(full.arkit, full.pts_ns, pts_ns, hold_ns=_FOREVER)
    turn = resample(full.head[:, :4], full.pts_ns, pts_ns, "slerp", hold_ns=_FOREVER)
    place = resample(full.head[:, 4:], full.pts_ns, pts_ns, hold_ns=_FOREVER)
    head = np.concatenate([turn, place], axis=1).astype(np.float32)
    return replace(motion, pts_ns=pts_ns, arkit=arkit.astype(np.float32), head=head)


def _filled(values: np.ndarray, pts_ns: np.ndarray, rest: float | np.ndarray) -> np.ndarray:
    seen = np.isfinite(values) if values.ndim == 1 else np.isfinite(values).all(axis=1)
    if not seen.any():
        return np.broadcast_to(rest, values.shape)
    return resample(values[seen], pts_ns[seen], pts_ns, "linear" if values.ndim == 1 else "slerp", hold_ns=_FOREVER)


def frames(motion: Motion, rig: Rig, size: int) -> Iterator[Picture]:
    """One picture of the rig a frame. Gaps are bridged (`without_gaps`); the head's translation is not followed."""
    full = without_gaps(motion)
    turns = Rotation.from_quat(full.head[:, [1, 2, 3, 0]].astype(np.float64)).as_matrix()
    for row, turn in zip(full.arkit, turns, strict=True):
        yield rig.picture(row, turn, size)


def range_of_motion(fps: float = 25.0) -> Motion:
    """Every shape in Apple's order, up to 1 and back, then the head turned in each way: to look at a rig."""
    one = np.sin(np.linspace(0, np.pi, _HOLD)) ** 2
    one /= one.max()
    shapes = np.zeros((_HOLD * len(ARKIT), len(ARKIT)), np.float32)
    for i in range(len(ARKIT)):
        shapes[_HOLD * i : _HOLD * (i + 1), i] = one
    swing = np.sin(np.linspace(0, 2 * np.pi, 4 * _HOLD))[:, None]
    turns = np.concatenate([swing * np.radians(amount) for amount in np.diag([35.0, 20.0, 20.0])])
    angles = np.concatenate([np.zeros((len(shapes), 3)), turns])
    arkit = np.concatenate([shapes, np.zeros((len(turns), len(ARKIT)), np.float32)])
    pts = steady_pts(len(arkit), fps)
    about = {"synthetic": True, "made_from": "range of motion"}
    return Motion(pts_ns=pts, arkit=arkit, head=head_rows(angles), fps=fps, provenance=about)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A clip beside which motion is shown: its frames (RGB, in order), their times, the motion extracted from it."""

    pictures: Iterator[Picture]
    pts_ns: Int64[np.ndarray, " frames"]
    motion: Motion


def side_by_side(motion: Motion, source: Source, rig: Rig, size: int) -> Iterator[Picture]:
    """The source clip, the rig moved by what was extracted from it, and by ``motion``, over the curves of both.

    Frames are those of ``motion``; the source shows what is on the screen at that time, its last frame once it is over.
    """
    extracted = at_times(source.motion, motion.pts_ns)
    panels = zip(
        _on_screen(source, motion.pts_ns), frames(extracted, rig, size), frames(motion, rig, size), strict=True
    )
    full, word = without_gaps(motion), "generated" if motion.is_synthetic else "motion"
    for now, (clip, truth, made) in enumerate(panels):
        titled = [
            _titled(cv2.resize(clip, (size, size), interpolation=cv2.INTER_AREA), "source"),
            _titled(truth, "extracted"),
            _titled(made, word),
        ]
        strips = [
            _strip(m.arkit, (3 * size, _STRIP), now, name) for m, name in ((extracted, "extracted"), (full, word))
        ]
        yield below(np.concatenate(titled, axis=1), np.concatenate(strips))


def _on_screen(source: Source, times_ns: np.ndarray) -> Iterator[Picture]:
    wanted = np.clip(np.searchsorted(source.pts_ns, times_ns, side="right") - 1, 0, None)
    picture = next(source.pictures)
    for before, now in pairwise([0, *wanted.tolist()]):
        for _ in range(now - before):
            picture = next(source.pictures, picture)
        yield picture


def _titled(picture: Picture, title: str) -> Picture:
    out = picture.copy()
    scale = max(0.4, len(out) / 640)
    at = (int(14 * scale), int(26 * scale))
    for colour, width in (((250, 250, 248), 4), ((40, 44, 52), 1)):
        cv2.putText(out, title, at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, width, cv2.LINE_AA)
    return out


def _strip(arkit: Float32[np.ndarray, "frames 52"], size: tuple[int, int], now: int | None, word: str) -> Picture:
    rows = {name if i else f"{word}: {name}": arkit[:, ARKIT.index(name)] for i, name in enumerate(SHOWN)}
    return curves(rows, size=size, now=now)


def sheet(motion: Motion, rig: Rig, *, n_frames: int = 12, size: int = 256) -> Picture:
    """``n_frames`` frames spread over the motion, each with its time, over the curves of the whole.

    Frames are those in which the mouth is widest open within each of ``n_frames`` equal spans: rest says little.
    """
    full = without_gaps(motion)
    jaw = full.arkit[:, ARKIT.index("jawOpen")]
    spans = np.array_split(np.arange(len(full)), min(n_frames, len(full)))
    chosen = [int(s[np.argmax(jaw[s])]) for s in spans]
    part = replace(full, pts_ns=full.pts_ns[chosen], arkit=full.arkit[chosen], head=full.head[chosen])
    titles = [f"{pts / NS:.2f} s" for pts in part.pts_ns]
    picture = contact_sheet(list(frames(part, rig, size)), titles, tile=(size, size))
    return below(picture, _strip(full.arkit, (picture.shape[1], _STRIP), None, "motion"))


def shapes_sheet(rig: Rig, *, size: int = 192) -> Picture:
    """The rig at rest and with each of the 52 shapes at 1, with their names; those it lacks say so."""
    rows = np.concatenate([np.zeros((1, len(ARKIT))), np.eye(len(ARKIT))])
    pictures = [rig.picture(row, np.eye(3), size) for row in rows]
    names = ["rest", *(f"{n} (missing)" if n in rig.missing else n for n in ARKIT)]
    return contact_sheet(pictures, names, columns=9, tile=(size, size))


def write_png(picture: Picture, path: str | Path, tags: Mapping[str, str]) -> None:
    """Write a picture that says what it is; the file is whole or absent."""
    data = cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes()
    said = b"".join(_png_text(*tag) for tag in tags.items())
    Folder(Path(path).parent).write(Path(path).name, data[:_PNG_HEAD] + said + data[_PNG_HEAD:])


def _png_text(keyword: str, text: str) -> bytes:
    """An iTXt chunk: text in UTF-8 (PNG specification, 11.3.3)."""
    body = b"iTXt" + keyword.capitalize().encode() + b"\0\0\0\0\0" + text.encode()
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def tags_of(motion: Motion, rig_name: str) -> Mapping[str, str]:
    """What a rendered file says of itself: that it is synthetic, and what it was made from (MagicTalk 5.2)."""
    made = dict(motion.provenance)
    told = next((f"{word} {_short(made[word])}" for word in _ORIGINS if made.get(word)), "origin unknown")
    origin = "Motion of a model" if motion.is_synthetic else "Recorded motion"
    return label(f"{origin} on the rig {rig_name}; {told}.", rig=rig_name, motion=made)


def _short(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def write_video(
    path: str | Path,
    pictures: Iterator[Picture],
    pts_ns: Int64[np.ndarray, " frames"],
    *,
    tags: Mapping[str, str],
    sound: Int16[np.ndarray, " samples"] | None = None,
) -> int:
    """Write an mp4 of pictures at their times, with sound (16 kHz, sample 0 at time 0); returns the number of frames.

    The sound is cut where the last frame leaves the screen. The file is whole or absent.
    """
    first = next(pictures)
    if sound is not None:
        sound = sound[: ns_to_samples(end_ns(pts_ns))]
    height, width = first.shape[:2]
    with (
        Folder(Path(path).parent).create(Path(path).name) as file,
        VideoWriter(file, width, height, sound=sound, tags=tags) as video,
    ):
        for picture, pts in zip(_then(first, pictures), pts_ns.tolist(), strict=True):
            video.write(picture, pts)
    return len(pts_ns)


def end_ns(pts_ns: Int64[np.ndarray, " frames"]) -> int:
    """When the last frame leaves the screen: it lasts as long as the one before it."""
    step = int(pts_ns[-1] - pts_ns[-2]) if len(pts_ns) > 1 else NS // 25
    return int(pts_ns[-1]) + step


def read_audio(path: str, until_ns: int) -> Int16[np.ndarray, " samples"]:
    """16 kHz samples for motion that lasts until ``until_ns``; the sound's start is the motion's time 0.

    Raises MediaError; SourceError where there is no sound.
    """
    sound = read_sound(path, 0, until_ns)
    if not sound.present:
        raise SourceError(f"{path}: no sound in it. Give --audio a file with sound.", "no_sound")
    return sound.samples


def _then(first: Picture, rest: Iterator[Picture]) -> Iterator[Picture]:
    yield first
    yield from rest
