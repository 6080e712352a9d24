"""Windows of fixed length at a task's frame rate, cut from clips on their native clocks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal

import cv2
import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int64, UInt8

from talkface.clip import NS, ColumnSpec, finite_rows, ns_to_samples
from talkface.datasets.format import schema
from talkface.datasets.loading.augment import ON_PICTURE, check_mirror, light, mirror
from talkface.datasets.loading.clip_data import ClipData, Cuttable, grid_ns
from talkface.datasets.loading.companions import label_groups
from talkface.datasets.loading.shared_batch import Field
from talkface.datasets.reader import Dataset, Sample
from talkface.errors import ConfigError
from talkface.vocab import SAMPLE_RATE

SLACK_NS = 1_000_000
"""Containers round to milliseconds: a frame due in a clip's last millisecond is not counted as part of it."""

Pad = Literal["never", "short", "tail"]


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The video's frames: a square part of the crop, resized.

    ``size`` is the side in pixels, ``part`` the middle of the crop that is kept (1.0: all). ``zoom`` is the largest
    share that is cut off at random, from sides drawn at random too; ``light`` the largest change of brightness,
    contrast and colour. One draw a window.
    """

    size: int = 256
    part: float = 1.0
    zoom: float = 0.0
    light: float = 0.0

    def __post_init__(self) -> None:
        if not (self.size > 0 and 0 < self.part <= 1 and 0 <= self.zoom < 1 and 0 <= self.light < 1):
            raise ConfigError(f"{self}: expected size > 0, 0 < part <= 1, 0 <= zoom < 1 and 0 <= light < 1")

    def square(self, side: int, rng: np.random.Generator) -> tuple[int, int, int]:
        """x, y and side of the part to keep of a crop with ``side`` pixels."""
        middle = max(round(side * self.part), 1)
        kept = max(round(middle * (1 - self.zoom * rng.random())), 1)
        x, y = rng.integers(0, middle - kept, 2, endpoint=True) + (side - middle) // 2
        return int(x), int(y), kept


@dataclass(frozen=True)
class WindowPlan:
    """All windows of a table of clips: the row of its clip, and the window's first frame at the task's rate."""

    clip: Int64[np.ndarray, " windows"]
    first: Int64[np.ndarray, " windows"]

    def __len__(self) -> int:
        return len(self.clip)


@dataclass(frozen=True, kw_only=True)
class Windows:
    """What a task sees of a clip.

    ``length`` frames at ``fps``; the next window starts ``stride`` frames later (``length`` unless told, so that none
    overlap). ``pad`` says what becomes of frames that fill no window: ``never`` leaves them and shorter clips out,
    ``short`` pads clips shorter than a window, ``tail`` also keeps each clip's last frames in a padded window.

    A window is a dict of: ``key``, ``times_ns`` (length,) from the clip's start, ``valid`` bool (length,), and

    - columns on the frames' clock (length, ...) at ``times_ns``: float32, interpolated (slerp for rotations);
    - columns on the sound's clock: their own consecutive rows from the one nearest to the window's start,
      round(length / fps x rate) of them; with ``sound_rows="frames"`` interpolated at ``times_ns`` too;
    - columns without a clock as they are;
    - ``sound`` float32 in -1..1, round(length / fps x 16000) samples, zeros past the end (``sound=True``);
    - ``frames`` uint8 (length, size, size, 3), the nearest in time, black where padded, and ``frame_index`` (length,),
      -1 there (``pictures=``); ``box``, ``lm``, ``lm68`` and ``fan`` are then in these pictures' pixels, else in the
      source's.

    ``mirror`` is the share of windows that come as a mirror shows them: pictures, points, blendshapes and head alike;
    ``mirrored`` in the window says so.

    ``valid[i]`` says that frame i lies in the clip and that no frame column is missing there as a whole. What is
    missing is NaN, or ``fill`` where it is set.
    """

    length: int
    fps: float
    columns: tuple[str, ...] = ("arkit", "head")
    stride: int | None = None
    pad: Pad = "short"
    sound: bool = False
    sound_rows: Literal["native", "frames"] = "native"
    pictures: Pictures | None = None
    fill: float | None = None
    mirror: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        if self.length < 1 or self.step < 1 or not self.fps > 0:
            raise ConfigError(
                f"length, stride and fps must be positive, got {self.length}, {self.stride} and {self.fps}"
            )
        if self.pad not in ("never", "short", "tail") or self.sound_rows not in ("native", "frames"):
            raise ConfigError(f"pad is never, short or tail; sound_rows native or frames; got {self}")
        if not 0 <= self.mirror <= 1:
            raise ConfigError(f"mirror is a share of windows, 0 to 1; got {self.mirror}")
        if taken := {"pts", "valid"} & set(self.columns):
            raise ConfigError(f"{', '.join(taken)}: every window says which of its frames are valid, and their times")

    @property
    def step(self) -> int:
        return self.length if self.stride is None else self.stride

    @cached_property
    def rate(self) -> tuple[int, int]:
        """Frames a second as a fraction: 29.97 is 30000/1001 only if given as such."""
        return Fraction(self.fps).limit_denominator(1001).as_integer_ratio()

    def n_frames(self, duration_ns: Int64[np.ndarray, " clips"]) -> Int64[np.ndarray, " clips"]:
        """How many frames at the task's rate fall into clips of these durations; at least one."""
        return np.maximum(self._due(duration_ns), 1)

    def frames_in(self, duration_ns: int) -> int:
        """As `n_frames`, of one clip."""
        return max(self._due(duration_ns), 1)

    def _due(self, duration_ns: Any) -> Any:
        top, bottom = self.rate
        return -((SLACK_NS - duration_ns) * top // (NS * bottom))

    def plan(self, clips: pa.Table) -> WindowPlan:
        """The windows of each row of a clips table, in its order; needs nothing but the table."""
        n = self.n_frames(clips.column("end_ns").to_numpy() - clips.column("start_ns").to_numpy())
        left = n - self.length
        if self.pad == "tail":
            count = np.minimum(-(-np.maximum(left, 0) // self.step), (n - 1) // self.step) + 1
        else:
            count = np.where(left >= 0, left // self.step + 1, int(self.pad == "short"))
        clip = np.repeat(np.arange(len(n)), count)
        number = np.arange(len(clip)) - np.repeat(np.cumsum(count) - count, count)
        return WindowPlan(clip, number * self.step)

    def weights(self, clips: pa.Table, by: Sequence[str] = ("emotion",)) -> Float[np.ndarray, " windows"]:
        """A weight a window of `plan`, so that every speaker, emotion or combination of labels has an equal share.

        Clips whose label is not known share one group.
        """
        group = label_groups(clips, by)[self.plan(clips).clip] + 1
        share = 1 / np.maximum(np.bincount(group), 1)[group]
        weights: np.ndarray = share / share.sum()
        return weights

    def specs(self, dataset: Dataset) -> dict[str, ColumnSpec]:
        """The columns to read, by member. Raises ConfigError for one that the dataset does not have."""
        if self.pictures is not None and not dataset.info.has_video:
            raise ConfigError(f"{dataset.url}: was made without pictures")
        found = {schema.member_name(c): dataset.spec(c) for c in dict.fromkeys(("pts", *self.columns))}
        if self.mirror:
            check_mirror(found.values(), pictures=self.pictures is not None)
        return found

    def members(self, dataset: Dataset) -> tuple[str, ...]:
        """All members to read."""
        media = ["json", "mp4"] if self.pictures is not None else []
        return (*media, *(["flac"] if self.sound else []), *self.specs(dataset))

    def open(self, dataset: Dataset, row: int) -> ClipData:
        """The clip in a row of ``dataset.clips``, ready to be cut. Raises DatasetError naming shard and member."""
        return ClipData(dataset, row, dataset.read([row], self.members(dataset))[0], self.specs(dataset))

    def of(self, dataset: Dataset, key: str, rng: np.random.Generator | None = None) -> Iterator[Sample]:
        """All windows of one clip. ``rng`` draws zoom, light and mirror."""
        row = dataset.row(key)
        clip = self.open(dataset, row)
        for first in self.plan(dataset.clips.slice(row, 1)).first.tolist():
            yield self.cut(clip, first, rng or np.random.default_rng(0))

    def of_samples(
        self, dataset: Dataset, samples: Iterable[Mapping[str, Any]], rng: np.random.Generator | None = None
    ) -> Iterator[Sample]:
        """All windows of raw samples (members as bytes, and ``__key__``), as plain webdataset gives them.

        Samples of clips that ``dataset`` does not show are passed over. ``rng`` as in `of`.
        """
        specs, members = self.specs(dataset), self.members(dataset)
        for sample in samples:
            if sample["__key__"] in dataset:
                row = dataset.row(sample["__key__"])
                clip = ClipData(dataset, row, {m: sample[m] for m in members}, specs)
                for first in self.plan(dataset.clips.slice(row, 1)).first.tolist():
                    yield self.cut(clip, first, rng or np.random.default_rng(0))

    def times_ns(self, first: int) -> Int64[np.ndarray, " length"]:
        """Times of a window's frames from its clip's start; no rounding error adds up."""
        return grid_ns(np.arange(first, first + self.length, dtype=np.int64), self.rate)

    def cut(self, clip: ClipData, first: int, rng: np.random.Generator) -> Sample:
        """The window that starts with frame ``first`` at the task's rate."""
        fields = self.fields(clip.specs)
        batch = {name: np.empty((1, *field.shape), field.dtype) for name, field in fields.items()}
        self.cut_into({name: values[0, ...] for name, values in batch.items()}, clip, first, rng)
        self.finish(batch, clip.specs)
        return {"key": clip.key} | {name: values[0] for name, values in batch.items()}

    def fields(self, specs: Mapping[str, ColumnSpec]) -> dict[str, Field]:
        """The arrays of a window."""
        found = {"times_ns": Field(np.dtype(np.int64), (self.length,)), "valid": Field(np.dtype(bool), (self.length,))}
        for spec in (specs[schema.member_name(name)] for name in self.columns):
            dtype = np.dtype(spec.dtype)
            real = np.promote_types(np.float32, dtype) if dtype.kind == "f" else dtype
            if spec.clock == "clip":
                found[spec.name] = Field(dtype, spec.shape)
            elif self.is_native(spec):
                rows = round(self.length / self.fps * spec.rate)
                found[spec.name] = Field(np.promote_types(np.float32, dtype), (rows, *spec.shape))
            else:
                found[spec.name] = Field(real, (self.length, *spec.shape))
        if self.sound:
            found["sound"] = Field(np.dtype(np.float32), (round(self.length / self.fps * SAMPLE_RATE),))
        if self.pictures is not None:
            size = self.pictures.size
            found["frames"] = Field(np.dtype(np.uint8), (self.length, size, size, 3))
            found["frame_index"] = Field(np.dtype(np.int64), (self.length,))
        if self.mirror:
            found["mirrored"] = Field(np.dtype(bool), ())
        return found

    def is_native(self, spec: ColumnSpec) -> bool:
        """Whether a column comes as rows on its own clock, or without one."""
        return spec.clock == "clip" or (spec.clock == "sound" and self.sound_rows == "native")

    def cut_into(self, window: Mapping[str, np.ndarray], clip: Cuttable, first: int, rng: np.random.Generator) -> None:
        """Fill the arrays of one window (those of `fields`); `finish` then completes many at once.

        Raises DatasetError naming shard and member; what the arrays hold then is of no use.
        """
        times = window["times_ns"]
        times[:] = self.times_ns(first)
        n = self.frames_in(clip.duration_ns)
        window["valid"][:] = np.arange(first, first + self.length) < n
        for name in self.columns:
            out = window[name]
            spec = clip.specs[schema.member_name(name)]
            if spec.clock == "clip":
                out[...] = clip.native[name]
            elif self.is_native(spec):
                _rows_from(clip.native[name], round((int(times[0]) / NS - spec.first_seconds) * spec.rate), out)
            else:
                part = clip.rows(name, self.rate, n, first, first + self.length)
                out[: len(part)] = part
                out[len(part) :] = np.nan if out.dtype.kind == "f" else 0
        if self.sound:
            out = window["sound"]
            part = clip.sound(ns_to_samples(int(times[0])), len(out))
            np.multiply(part, np.float32(1 / 32768), out=out[: len(part)])
            out[len(part) :] = 0
        if self.pictures is not None:
            assert isinstance(clip, ClipData)
            self._add_pictures(window, clip, rng)
        if self.mirror:
            window["mirrored"][()] = rng.random() < self.mirror
            if window["mirrored"]:
                for name, values in mirror(window, self.pictures.size if self.pictures else 0).items():
                    if values is not window[name]:
                        window[name][...] = values

    def finish(self, windows: Mapping[str, np.ndarray], specs: Mapping[str, ColumnSpec]) -> None:
        """What is left to do for windows that lie one after the other in arrays: ``valid``, and ``fill``."""
        for name in self.columns:
            values = windows[name]
            if values.dtype.kind != "f":
                continue
            if specs[schema.member_name(name)].clock == "frame":
                valid = windows["valid"]
                valid &= finite_rows(values.reshape(-1, *values.shape[2:])).reshape(valid.shape)
            if self.fill is not None:
                np.nan_to_num(values, copy=False, nan=self.fill)

    def _add_pictures(self, window: Mapping[str, np.ndarray], clip: ClipData, rng: np.random.Generator) -> None:
        """Frames, resized, and the points on them in step."""
        assert self.pictures is not None
        pts, size = clip.native["pts"], self.pictures.size
        inside, index, frames = window["valid"], window["frame_index"], window["frames"]
        index[:] = nearest(pts, window["times_ns"])
        index[~inside] = -1
        different, place = np.unique(index[inside], return_inverse=True)
        in_place = len(different) == self.length and not self.pictures.light
        shown = frames if in_place else np.empty((len(different), size, size, 3), np.uint8)
        for number, frame in enumerate(clip.frames(different.tolist())):
            if number == 0:
                x, y, side = self.pictures.square(len(frame), rng)
            _resize(frame[y : y + side, x : x + side], shown[number])
        if not in_place:
            shown = light(shown, self.pictures.light, rng) if self.pictures.light else shown
            frames[inside], frames[~inside] = shown[place], 0
        scale = size / side
        # Coordinates are continuous and the first pixel spans 0..1, so that sizes and coordinates scale alike.
        to_part = np.array([[scale, 0, -x * scale], [0, scale, -y * scale]])
        to_picture = to_part @ np.vstack([clip.crop, [0, 0, 1]])
        for name in set(ON_PICTURE) & set(self.columns):
            window[name][...] = move_points(window[name], to_picture)


def _rows_from(values: np.ndarray, first: int, out: np.ndarray) -> None:
    """Fill ``out`` with the rows from ``first`` on; those that there are not are missing."""
    low, high = (int(at) for at in np.clip([first, first + len(out)], 0, len(values)))
    out[:] = np.nan
    out[low - first : high - first] = values[low:high]


def move_points(values: np.ndarray, matrix: Float[np.ndarray, "2 3"]) -> np.ndarray:
    """Boxes (n, 5) or points (n, points, 2 or 3) through a matrix that scales and shifts; z scales along."""
    out = values.copy()
    if values.ndim == 2:
        corners = values[:, :4].reshape(-1, 2, 2) @ matrix[:, :2].T + matrix[:, 2]
        out[:, :4] = corners.reshape(-1, 4)
        return out
    out[..., :2] = values[..., :2] @ matrix[:, :2].T + matrix[:, 2]
    out[..., 2:] = values[..., 2:] * np.sqrt(np.linalg.det(matrix[:, :2]))
    return out


def nearest(clock_ns: Int64[np.ndarray, " frames"], times_ns: Int64[np.ndarray, " times"]) -> np.ndarray:
    """Index of the frame nearest to each time; the earlier one of two."""
    high = np.clip(np.searchsorted(clock_ns, times_ns), 1, max(len(clock_ns) - 1, 1))
    high = np.minimum(high, len(clock_ns) - 1)
    low = np.maximum(high - 1, 0)
    index: np.ndarray = np.where(times_ns - clock_ns[low] <= clock_ns[high] - times_ns, low, high)
    return index


def _resize(picture: UInt8[np.ndarray, "side side 3"], out: UInt8[np.ndarray, "size size 3"]) -> None:
    """Fill ``out`` with the picture."""
    size = len(out)
    if size == len(picture):
        out[:] = picture
        return
    smaller = size < len(picture)
    cv2.resize(picture, (size, size), dst=out, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
