"""Motion: blendshapes and head pose over time, as a file of our own (.npz) and as Live Link Face's (.csv).

The files are described in docs/motion.md.
"""

import csv
import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from jaxtyping import Float, Float32, Int64
from scipy.spatial.transform import Rotation

from talkface.clip import NS, Timeline
from talkface.errors import SourceError
from talkface.store import Folder
from talkface.vocab import ARKIT

VERSION: Final = 1
HEAD_NAMES: Final = ("qw", "qx", "qy", "qz", "tx", "ty", "tz")
"""Parts of a head row: the first seven of the dataset column ``head``."""

TIMECODE_FPS: Final = 60
"""Live Link Face counts frames of its timecode at this rate, also where it records every second one."""

EYE_RADIANS: Final = 0.6
"""Turn of an eye at a look shape of 1; a recording of Apple's face tracking shows 0.61 sideways, 0.56 up and down."""


@dataclass(frozen=True, kw_only=True)
class Motion:
    """What a face does.

    ``pts_ns`` rises strictly. ``arkit`` holds Apple's 52 blendshapes in the order of `vocab.ARKIT`, 0..1. ``head`` is a
    unit quaternion wxyz (head to camera) and a translation in cm, in the axes of docs/head.md. Missing is NaN.
    ``fps`` is the rate it was made at; 0 where that is not known. ``provenance`` is plain JSON; motion that a model
    made has ``"synthetic": true`` in it, and what made it.

    Raises ValueError for arrays that do not fit together.
    """

    pts_ns: Int64[np.ndarray, " frames"]
    arkit: Float32[np.ndarray, "frames 52"]
    head: Float32[np.ndarray, "frames 7"]
    fps: float = 0.0
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(Timeline(self.pts_ns))
        for name, width in (("arkit", len(ARKIT)), ("head", len(HEAD_NAMES))):
            value = getattr(self, name)
            if value.shape != (n, width) or value.dtype != np.float32:
                raise ValueError(f"{name}: expected float32 {(n, width)}, got {value.dtype} {value.shape}")

    def __len__(self) -> int:
        return len(self.pts_ns)

    @property
    def is_synthetic(self) -> bool:
        """Whether a model made it."""
        return bool(self.provenance.get("synthetic", False))

    def angles(self) -> Float[np.ndarray, "frames 3"]:
        """Yaw, pitch and roll of the head in rad, as `head_angles`."""
        return head_angles(self.head[:, :4])

    def save(self, path: str | Path) -> None:
        """Write ``.npz``, or ``.csv`` for Live Link Face; the file is whole or absent."""
        if Path(path).suffix == ".csv":
            write_live_link(self, path)
            return
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            version=np.int64(VERSION),
            pts_ns=self.pts_ns,
            arkit=self.arkit,
            head=self.head,
            fps=np.float64(self.fps),
            arkit_names=np.array(ARKIT),
            head_names=np.array(HEAD_NAMES),
            provenance=np.array(json.dumps(dict(self.provenance), sort_keys=True)),
        )
        _write(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote, or a Live Link Face recording. Raises SourceError for anything else."""
        if Path(path).suffix == ".csv":
            return cls(**vars(read_live_link(path)))
        try:
            with np.load(path, allow_pickle=False) as found:
                names = tuple(found["arkit_names"].tolist())
                if int(found["version"]) > VERSION or names != ARKIT:
                    raise SourceError(f"{path}: motion of another version. Update talkface.")
                return cls(
                    pts_ns=found["pts_ns"],
                    arkit=found["arkit"],
                    head=found["head"],
                    fps=float(found["fps"]),
                    provenance=json.loads(str(found["provenance"])),
                )
        except OSError as error:
            raise SourceError(f"{path}: cannot be read ({error.strerror or error}).") from error
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise SourceError(f"{path}: not a motion file ({error}). Expected the .npz of toolkit sample.") from error


def steady_pts(frames: int, fps: float) -> Int64[np.ndarray, " frames"]:
    """Times in ns of ``frames`` frames at a steady rate, from 0."""
    return np.round(np.arange(frames) * (NS / fps)).astype(np.int64)


def head_angles(quaternion: Float[np.ndarray, "frames 4"]) -> Float[np.ndarray, "frames 3"]:
    """Yaw, pitch and roll in rad of quaternions wxyz; NaN where they are NaN.

    ``R = Ry(yaw) Rx(-pitch) Rz(roll)`` as in docs/head.md: yaw > 0 turns to the person's left, pitch > 0 looks up,
    roll > 0 tilts towards the person's right shoulder.
    """
    angles = np.full((len(quaternion), 3), np.nan)
    seen = np.isfinite(quaternion).all(axis=1)
    if seen.any():
        turned = Rotation.from_quat(quaternion[seen].astype(np.float64)[:, [1, 2, 3, 0]])
        angles[seen] = turned.as_euler("YXZ") * (1, -1, 1)
    return angles


def head_rows(
    angles: Float[np.ndarray, "frames 3"], translation: Float[np.ndarray, "frames 3"] | None = None
) -> Float32[np.ndarray, "frames 7"]:
    """Head rows of yaw, pitch and roll in rad (the inverse of `head_angles`) and a translation in cm, NaN without one.

    Each quaternion has the sign that is closer to the one before it.
    """
    rows = np.full((len(angles), len(HEAD_NAMES)), np.nan)
    seen = np.flatnonzero(np.isfinite(angles).all(axis=1))
    if len(seen) > 0:
        turned = Rotation.from_euler("YXZ", angles[seen].astype(np.float64) * (1, -1, 1))
        q = turned.as_quat()[:, [3, 0, 1, 2]]
        turns = np.where((q[1:] * q[:-1]).sum(-1) < 0, -1.0, 1.0)
        first = -1.0 if q[0, 0] < 0 else 1.0
        rows[seen, :4] = q * first * np.cumprod(np.concatenate([[1.0], turns]))[:, None]
    if translation is not None:
        rows[:, 4:] = translation
    return rows.astype(np.float32)


LIVE_LINK_SHAPES: Final = tuple(
    {"jawLeft": "jawRight", "jawRight": "jawLeft", "mouthLeft": "mouthRight", "mouthRight": "mouthLeft"}.get(n, n)
    for n in ARKIT
)
"""The 52 shapes in the order of Live Link Face's columns: right before left for jaw and mouth."""

LIVE_LINK_ANGLES: Final = (
    "HeadYaw", "HeadPitch", "HeadRoll",
    "LeftEyeYaw", "LeftEyePitch", "LeftEyeRoll", "RightEyeYaw", "RightEyePitch", "RightEyeRoll",
)  # fmt: skip
"""In rad; every sign is the opposite of ours: yaw > 0 turns to the person's right, pitch > 0 looks down, roll > 0 tilts
towards the left shoulder. A recording shows it for the eyes; the head is taken to count the same way."""

LIVE_LINK_COLUMNS: Final = (
    "Timecode",
    "BlendShapeCount",
    *(n[0].upper() + n[1:] for n in LIVE_LINK_SHAPES),
    *LIVE_LINK_ANGLES,
)
_TIMECODE = re.compile(r"(\d+):(\d+):(\d+)[:;](\d+(?:\.\d+)?)")


def read_live_link(path: str | Path) -> Motion:
    """A recording of Live Link Face: columns by name, in any order; rows without values are left out.

    Times count from the first row. Raises SourceError for a file that is not one.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.DictReader(file) if row.get("EyeBlinkLeft")]
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot be read ({error}).") from error
    try:
        seconds = np.array([_seconds(row["Timecode"]) for row in rows])
        values = {name: np.array([float(row[name]) for row in rows]) for name in LIVE_LINK_COLUMNS[2:]}
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{path}: not a Live Link Face recording ({type(error).__name__}: {error}).") from error
    if not rows:
        raise SourceError(f"{path}: no row with blendshapes: not a Live Link Face recording, or an empty one.")
    seconds = seconds + 86400 * np.cumsum(np.diff(seconds, prepend=seconds[0]) < -43200)  # over midnight
    pts = np.round((seconds - seconds[0]) * NS).astype(np.int64)
    keep = np.diff(pts, prepend=-1) > 0
    arkit = np.stack([values[n[0].upper() + n[1:]] for n in ARKIT], axis=1).astype(np.float32)
    angles = np.stack([values[n] for n in LIVE_LINK_ANGLES[:3]], axis=1)
    timeline = Timeline(pts[keep])
    about = {"synthetic": False, "live_link_face": Path(path).name}
    return Motion(
        pts_ns=timeline.pts_ns, arkit=arkit[keep], head=head_rows(-angles)[keep], fps=timeline.fps, provenance=about
    )


def write_live_link(motion: Motion, path: str | Path) -> None:
    """Write a recording as Live Link Face does.

    Motion that a model made gets a ``.json`` beside it that says so, since the format has no place for it.
    """
    if motion.is_synthetic:
        _write(f"{path}.json", json.dumps(dict(motion.provenance), indent=1, sort_keys=True).encode())
    _write(path, live_link_text(motion).encode())


def live_link_text(motion: Motion) -> str:
    """A recording as Live Link Face writes it: 61 values a row, timecode from 00:00:00:00.

    The format knows no missing value and no translation: gaps are bridged on a line, shapes that nothing is known of
    are 0. The eyes' angles follow from the look shapes.
    """
    bridged = [_bridge(motion.arkit[:, ARKIT.index(n)], motion.pts_ns) for n in LIVE_LINK_SHAPES]
    head = [-_bridge(angle, motion.pts_ns) for angle in motion.angles().T]
    values = np.stack([*bridged, *head, *_eye_angles(dict(zip(LIVE_LINK_SHAPES, bridged, strict=True)))], axis=1)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(LIVE_LINK_COLUMNS)
    for pts, row in zip(motion.pts_ns, values, strict=True):
        writer.writerow([_timecode(int(pts)), len(row), *(f"{v:.10f}" for v in row)])
    return text.getvalue()


def _eye_angles(shape: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    angles = []
    for side, inwards in (("Left", 1), ("Right", -1)):
        yaw = inwards * EYE_RADIANS * (shape[f"eyeLookIn{side}"] - shape[f"eyeLookOut{side}"])
        pitch = EYE_RADIANS * (shape[f"eyeLookDown{side}"] - shape[f"eyeLookUp{side}"])
        angles += [yaw, pitch, np.zeros_like(yaw)]
    return angles


def _bridge(values: Float[np.ndarray, " frames"], pts_ns: Int64[np.ndarray, " frames"]) -> Float[np.ndarray, " frames"]:
    seen = np.isfinite(values)
    return np.interp(pts_ns, pts_ns[seen], values[seen]) if seen.any() else np.zeros(len(values))


def _timecode(pts_ns: int) -> str:
    thousandths = round(pts_ns * TIMECODE_FPS * 1000 / NS)
    seconds, part = divmod(thousandths, TIMECODE_FPS * 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}:{part // 1000:02}.{part % 1000:03}"


def _seconds(timecode: str) -> float:
    found = _TIMECODE.fullmatch(timecode.strip())
    if found is None:
        raise ValueError(f"timecode {timecode!r}, expected HH:MM:SS:FF.fff")
    hours, minutes, seconds, frames = found.groups()
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + float(frames) / TIMECODE_FPS


def _write(path: str | Path, data: bytes) -> None:
    Folder(Path(path).parent).write(Path(path).name, data)
