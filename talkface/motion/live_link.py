"""Live Link Face's CSV: Apple's blendshapes and angles a row, with a timecode.

The app's take is a folder: ``<slate>_<take>_<subject>.mov``, a ``.csv`` of the same name (``_cal.csv`` and ``_raw.csv``
where the person was calibrated), and ``frame_log.csv``, which has the timecode of every picture of the video.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import fsspec
import numpy as np
from jaxtyping import Float, Float32, Int64

from talkface.clip import NS
from talkface.errors import SourceError
from talkface.media import may_pass, plain_errors
from talkface.vocab import ARKIT

WRITTEN_FPS: Final = 60
"""Frames a second of the timecodes that we write; the app counts so too, also where it records every second frame."""

TIMECODE_FPS: Final = (24, 25, 30, 48, 50, 60, 120, 240)
"""How many frames a second a timecode may count."""

DAY: Final = 86400

EYE_RADIANS: Final = 0.6
"""Turn of an eye at a look shape of 1; a recording of Apple's face tracking shows 0.61 sideways, 0.56 up and down."""

SHAPES: Final = tuple(
    {"jawLeft": "jawRight", "jawRight": "jawLeft", "mouthLeft": "mouthRight", "mouthRight": "mouthLeft"}.get(n, n)
    for n in ARKIT
)
"""The 52 shapes in the order of Live Link Face's columns: right before left for jaw and mouth."""

ANGLES: Final = (
    "HeadYaw", "HeadPitch", "HeadRoll",
    "LeftEyeYaw", "LeftEyePitch", "LeftEyeRoll", "RightEyeYaw", "RightEyePitch", "RightEyeRoll",
)  # fmt: skip
"""In rad; every sign is the opposite of ours: yaw > 0 turns to the person's right, pitch > 0 looks down, roll > 0 tilts
towards the left shoulder. A recording shows it for the eyes; the head is taken to count the same way."""

COLUMNS: Final = ("Timecode", "BlendShapeCount", *(n[0].upper() + n[1:] for n in SHAPES), *ANGLES)

_TIMECODE: Final = re.compile(r"(\d+):(\d+):(\d+):(\d+(?:\.\d+)?)")
_DROP_FRAME: Final = re.compile(r"\d+:\d+:\d+;.*")


@dataclass(frozen=True)
class LiveLink:
    """A recording: rows at ``pts_ns`` from its first, shapes in Apple's order, the head's yaw, pitch and roll in rad.

    ``start_seconds`` is the timecode of the first row. Angles have our signs.
    """

    start_seconds: float
    pts_ns: Int64[np.ndarray, " rows"]
    arkit: Float32[np.ndarray, "rows 52"]
    angles: Float[np.ndarray, "rows 3"]

    def since_ns(self, seconds: float) -> int:
        """ns from another time of the day to the first row, at most half a day."""
        return round(((self.start_seconds - seconds + DAY / 2) % DAY - DAY / 2) * NS)


def read_live_link(path: str | Path) -> LiveLink:
    """A recording at a path or fsspec url: columns by name, in any order; rows without any value are left out.

    Raises SourceError saying row and column where the file is not one.
    """
    where = str(path)
    try:
        return parse_live_link(read_text(where))
    except ValueError as error:
        raise SourceError(f"{where}: not a Live Link Face recording: {error}.", "bad_recording") from error


def read_text(uri: str) -> str:
    """A text file at a path or fsspec url. Raises SourceError."""
    try:
        with plain_errors(), fsspec.open(uri, "rb") as file:
            data: bytes = file.read()
        return data.decode("utf-8-sig")
    except (OSError, ImportError, UnicodeDecodeError) as error:
        reason = "storage" if may_pass(error) else "unreadable"
        raise SourceError(f"{uri}: cannot be read ({error}). Check the file.", reason) from error


def parse_live_link(text: str) -> LiveLink:
    """The recording that a text holds. Raises ValueError saying row and column where it holds none."""
    head, *lines = list(csv.reader(io.StringIO(text, newline=""))) or [[]]
    names = [name.strip() for name in head]
    if missing := [name for name in ("Timecode", *COLUMNS[2:]) if name not in names]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(f"no column {missing[0]}{more}")
    rows = [(number, line) for number, line in enumerate(lines, 2) if any(cell.strip() for cell in line[2:])]
    if not rows:
        raise ValueError("no row with blendshapes")
    values = np.array([_values(number, line, names) for number, line in rows])
    seconds = seconds_of([_stamp(number, line[names.index("Timecode")]) for number, line in rows])
    pts = np.round((seconds - seconds[0]) * NS).astype(np.int64)
    later = pts > np.concatenate([[-1], np.maximum.accumulate(pts)[:-1]])
    at = {name: i for i, name in enumerate(COLUMNS[2:])}
    arkit = values[:, [at[n[0].upper() + n[1:]] for n in ARKIT]].astype(np.float32)
    angles = -values[:, [at[n] for n in ANGLES[:3]]]
    return LiveLink(float(seconds[0]), pts[later], arkit[later], angles[later])


def _values(number: int, line: Sequence[str], names: Sequence[str]) -> list[float]:
    """The 61 values of a row in the order of `COLUMNS`. Raises ValueError."""
    if len(line) != len(names):
        raise ValueError(f"line {number} has {len(line)} cells, expected {len(names)}")
    row = dict(zip(names, line, strict=True))
    count = row.get("BlendShapeCount", row.get("BlendshapeCount", str(len(COLUMNS) - 2)))
    if count.strip() != str(len(COLUMNS) - 2):
        raise ValueError(f"line {number} counts {count!r} values, expected {len(COLUMNS) - 2}")
    return [_value(number, name, row[name]) for name in COLUMNS[2:]]


def _value(number: int, name: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise ValueError(f"line {number}, {name}: {cell!r} is not a number")
    return value


Stamp = tuple[int, float]
"""A timecode: whole seconds since midnight, and frames."""


def _stamp(number: int, cell: str) -> Stamp:
    try:
        return stamp_of(cell)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from None


def stamp_of(timecode: str) -> Stamp:
    """The parts of ``HH:MM:SS:FF.fff``. Raises ValueError for what is none."""
    if _DROP_FRAME.fullmatch(timecode.strip()):
        raise ValueError(f"timecode {timecode!r} counts drop frames, which Live Link Face does not")
    found = _TIMECODE.fullmatch(timecode.strip())
    if found is None:
        raise ValueError(f"timecode {timecode!r}, expected HH:MM:SS:FF.fff")
    hours, minutes, seconds, frames = found.groups()
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds), float(frames)


def seconds_of(stamps: Sequence[Stamp]) -> Float[np.ndarray, " rows"]:
    """Times of rising timecodes in seconds since the first one's midnight. Raises ValueError."""
    fps = _frames_a_second(stamps)
    seconds = np.array([whole + frames / fps for whole, frames in stamps])
    return np.asarray(seconds + DAY * np.cumsum(np.diff(seconds, prepend=seconds[0]) < -DAY / 2))


def _frames_a_second(stamps: Sequence[Stamp]) -> int:
    """How many frames a second timecodes count: what fits best where one second ends and the next begins.

    Rows that were dropped there can only make the last number smaller. Raises ValueError for numbers beyond all.
    """
    whole, frames = np.array([s[0] for s in stamps]), np.array([s[1] for s in stamps])
    possible = [fps for fps in TIMECODE_FPS if fps > frames.max()]
    if not possible:
        raise ValueError(f"a timecode has frame {frames.max():g}, beyond {TIMECODE_FPS[-1]} a second")
    steps, seconds = np.diff(frames), np.diff(whole)
    if not (seconds == 0).any() or not (seconds == 1).any():
        return WRITTEN_FPS if WRITTEN_FPS in possible else possible[0]
    last = float(np.max(np.median(steps[seconds == 0]) - steps[seconds == 1]))
    return min(possible, key=lambda fps: abs(fps - last))


def live_link_text(
    pts_ns: Int64[np.ndarray, " frames"],
    arkit: Float32[np.ndarray, "frames 52"],
    angles: Float[np.ndarray, "frames 3"],
) -> str:
    """Blendshapes, and the head's yaw, pitch and roll in rad, as Live Link Face writes them: timecode from 00:00:00:00.

    The format knows no missing value and no translation: gaps are bridged on a line, shapes that nothing is known of
    are 0. The eyes' angles follow from the look shapes.
    """
    bridged = [_bridge(arkit[:, ARKIT.index(n)], pts_ns) for n in SHAPES]
    head = [-_bridge(angle, pts_ns) for angle in angles.T]
    values = np.stack([*bridged, *head, *_eye_angles(dict(zip(SHAPES, bridged, strict=True)))], axis=1)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for pts, row in zip(pts_ns, values, strict=True):
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
    thousandths = round(pts_ns * WRITTEN_FPS * 1000 / NS)
    seconds, part = divmod(thousandths, WRITTEN_FPS * 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}:{part // 1000:02}.{part % 1000:03}"
