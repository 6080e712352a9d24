"""The nouns: Source, Reject, Timeline, Clip, ColumnSpec, ScoreSpec, FrameTable. Frozen, self-checking."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Int64, UInt8

from talkface.vocab import EMOTIONS, INTENSITIES, SAMPLE_RATE, VALID_BITS

Clock = Literal["frame", "sound", "clip"]
"""What the first axis of a column counts: picture frames, rows at a rate of their own, or nothing (a value a clip)."""

NS = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What is known about a source from its path or its list; ``None`` is unknown."""

    speaker: str | None = None
    emotion: str | None = None
    intensity: int | None = None
    camera: str | None = None
    language: str | None = None

    def __post_init__(self) -> None:
        if self.emotion is not None and self.emotion not in EMOTIONS:
            raise ValueError(f"emotion {self.emotion!r} is not one of {', '.join(EMOTIONS)}")
        if self.intensity is not None and self.intensity not in INTENSITIES:
            raise ValueError(f"intensity {self.intensity!r} is not one of {INTENSITIES}")


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Facts read from a container's headers, without decoding. Times in seconds, sizes in pixels as displayed."""

    container: str
    duration: float
    video_codec: str | None = None
    width: int = 0
    height: int = 0
    fps: float = 0.0
    rotation: int = 0
    audio_codec: str | None = None
    audio_rate: int = 0
    audio_channels: int = 0


@dataclass(frozen=True, kw_only=True)
class Source:
    """One input file.

    ``uri`` is a path or fsspec url; ``name`` the part of it below the input that it was found in, with ``/``: what
    users know the file by, the same wherever the folder lies. ``audio_uri`` is a sound file that belongs to it (MEAD
    keeps sound apart), ``recording`` the files of a Live Link Face recording that does (`motion.take`).
    ``sha256`` is of the content of all `files` one after the other.
    """

    uri: str
    name: str
    sha256: str
    size: int
    layout: str
    labels: Labels = field(default_factory=Labels)
    audio_uri: str | None = None
    licence: str = "unknown"
    probe: Probe | None = None
    recording: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """The picture file and those that belong to it."""
        return (self.uri, *(() if self.audio_uri is None else (self.audio_uri,)), *self.recording)


@dataclass(frozen=True, kw_only=True)
class Reject:
    """Something that did not get into the dataset, and why: one row of rejects.parquet.

    ``stage`` is where it happened (``scan``, ``decode``, ``track``, ``cut``, ``filter``, ``annotate``, ``run``),
    ``reason`` a short code in snake case, ``message`` the sentence for people. Times are ns on the source's clock,
    ``None`` for the whole source. ``source`` is the source's name, or its uri where it never got one. ``value`` and
    ``threshold`` are set where a score decided, ``key`` where the clip already had one.
    """

    stage: str
    reason: str
    source: str
    message: str = ""
    start_ns: int | None = None
    end_ns: int | None = None
    value: float | None = None
    threshold: float | None = None
    key: str | None = None

    def row(self) -> dict[str, Any]:
        """As a row of rejects.parquet."""
        return asdict(self)


@dataclass(frozen=True)
class Timeline:
    """Presentation times of frames: int64 ns, strictly rising."""

    pts_ns: Int64[np.ndarray, " frames"]

    def __post_init__(self) -> None:
        if self.pts_ns.dtype != np.int64 or self.pts_ns.ndim != 1:
            raise ValueError(f"pts_ns: expected int64 (frames,), got {self.pts_ns.dtype} {self.pts_ns.shape}")
        if len(self.pts_ns) > 1 and not (np.diff(self.pts_ns) > 0).all():
            at = int(np.argmax(np.diff(self.pts_ns) <= 0))
            raise ValueError(
                f"pts_ns must rise: frame {at + 1} at {self.pts_ns[at + 1]} is not after {self.pts_ns[at]}"
            )

    def __len__(self) -> int:
        return len(self.pts_ns)

    @property
    def fps(self) -> float:
        """Frames a second on average; 0.0 for fewer than two frames."""
        if len(self) < 2:
            return 0.0
        return float((len(self) - 1) * NS / (self.pts_ns[-1] - self.pts_ns[0]))

    @property
    def is_variable(self) -> bool:
        """Whether any step differs from the median step by more than a tenth of it."""
        steps = np.diff(self.pts_ns)
        if len(steps) == 0:
            return False
        median = float(np.median(steps))
        return bool((np.abs(steps - median) > 0.1 * median).any())


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A span of one face track of one source; no pixels.

    Times are ns on the source's clock. ``crop`` is the 2 x 3 matrix that maps source pixels to crop pixels.
    """

    key: str
    source: Source
    start_ns: int
    end_ns: int
    track: int
    shot: int
    crop: Float[np.ndarray, "2 3"]
    crop_size: int

    def to_crop(self, points: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Source pixels to pixels of the crop."""
        return points @ self.crop[:, :2].T + self.crop[:, 2]

    def to_source(self, points: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Pixels of the crop to source pixels."""
        return (points - self.crop[:, 2]) @ np.linalg.inv(self.crop[:, :2]).T


@dataclass(frozen=True, kw_only=True)
class ColumnSpec:
    """What an annotator promises about one array: file name in a sample, dtype, shape after the first axis, meaning.

    ``clock`` is ``frame`` (one row a picture frame), ``sound`` (rows at ``rate`` a second, the first centred at
    ``first_seconds``) or ``clip`` (no time axis: ``shape`` is the whole shape). A column that is not ``stored`` is seen
    by `clip` of its own annotator and by those that need it, and never written.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    unit: str
    clock: Clock
    description: str
    names: tuple[str, ...] = ()
    rate: float = 0.0
    first_seconds: float = 0.0
    stored: bool = True

    def check(self, value: np.ndarray, *, frames: int) -> None:
        """Raise AssertionError if ``value`` is not what this spec promises for a clip of ``frames`` frames."""
        assert value.dtype == np.dtype(self.dtype), f"{self.name}: expected {self.dtype}, got {value.dtype}"
        shape = value.shape if self.clock == "clip" else value.shape[1:]
        assert shape == self.shape, f"{self.name}: expected shape {self.shape} a row, got {value.shape}"
        if self.clock == "frame":
            assert len(value) == frames, f"{self.name}: expected {frames} rows, got {len(value)}"


@dataclass(frozen=True, kw_only=True)
class ScoreSpec:
    """One number a clip: a column of clips.parquet, and what a threshold may refer to."""

    name: str
    unit: str
    description: str


@dataclass(frozen=True)
class FrameTable:
    """Columns of one clip that share a clock: the picture's frames. Missing is NaN."""

    timeline: Timeline
    columns: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        for name, column in self.columns.items():
            if len(column) != len(self.timeline):
                raise ValueError(f"{name}: expected {len(self.timeline)} rows, got {len(column)}")

    def valid(self) -> UInt8[np.ndarray, " frames"]:
        """Bit mask a frame: a column's bit is set where its row holds at least one finite value."""
        bits = np.zeros(len(self.timeline), np.uint8)
        for name, column in self.columns.items():
            bit = VALID_BITS.get(name, 0)
            bits |= np.where(finite_rows(column), bit, 0).astype(np.uint8)
        return bits


def runs(values: Int[np.ndarray, " n"] | Bool[np.ndarray, " n"]) -> list[tuple[int, int, int]]:
    """Start, end and value of each stretch of one value."""
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return [(start, end, int(values[start])) for start, end in pairwise(edges) if start < end]


def finite_rows(column: np.ndarray) -> Bool[np.ndarray, " frames"]:
    """Rows of a float column in which any value is finite."""
    return np.asarray(np.isfinite(column.reshape(len(column), -1)).any(axis=1))


def samples_to_ns(samples: int) -> int:
    """Number of samples at 16 kHz to nanoseconds (exact: 62500 ns a sample)."""
    return samples * (NS // SAMPLE_RATE)


def ns_to_samples(ns: int) -> int:
    """Nanoseconds to the nearest number of samples at 16 kHz."""
    return round(ns * SAMPLE_RATE / NS)
