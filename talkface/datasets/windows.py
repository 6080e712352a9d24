"""Windows of fixed length at a task's frame rate, cut from clips on their native clocks."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal

import cv2
import numpy as np
import pyarrow as pa
from jaxtyping import Float, Float32, Int16, Int64, UInt8

from talkface.clip import NS, ColumnSpec, finite_rows, ns_to_samples
from talkface.datasets import schema
from talkface.datasets.augment import ON_PICTURE, check_mirror, light, mirror
from talkface.datasets.reader import Dataset, Sample, clock_of, open_sound, sound_part
from talkface.datasets.resample import resample_column
from talkface.errors import ConfigError, DatasetError
from talkface.media import ClipFrames, FlacSamples
from talkface.vocab import SAMPLE_RATE

SLACK_NS = 1_000_000
"""Containers round to milliseconds: a frame due in a clip's last millisecond is not counted as part of it."""

DECODER_BYTES = 4_000_000
"""What an open decoder of a 512 x 512 crop holds."""

SMALL = 64
"""Columns with up to so many numbers a row are put on a task's clock for a whole clip at once."""

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


class ClipData:
    """One clip's columns and media in memory."""

    def __init__(self, dataset: Dataset, row: int, data: Mapping[str, bytes], specs: Mapping[str, ColumnSpec]) -> None:
        """``data`` holds the members; raises DatasetError naming shard and member where one is damaged."""
        clips = dataset.clips
        self.key: str = clips.column("key")[row].as_py()
        self.shard: str = clips.column("shard")[row].as_py()
        self.duration_ns = int(clips.column("end_ns")[row].as_py() - clips.column("start_ns")[row].as_py())
        self.specs = specs
        self.columns = dataset.view(row, data, specs)
        self.bytes = sum(map(len, data.values()))
        self._media = {m: data[m] for m in ("json", "mp4", "flac") if m in data}

        self._on_grid: dict[tuple[str, tuple[int, int]], np.ndarray] = {}

    @cached_property
    def _sound(self) -> FlacSamples:
        return open_sound(f"{self.shard}: {self.key}.flac", self._media["flac"], self.duration_ns)

    def sound(self, first: int, count: int) -> Int16[np.ndarray, " samples"]:
        """``count`` samples, 16 kHz mono int16, from ``first`` on; fewer at the clip's end."""
        return sound_part(f"{self.shard}: {self.key}.flac", self._sound, first, count)

    def on_grid(self, name: str, rate: tuple[int, int], n: int) -> np.ndarray:
        """A column at the clip's ``n`` frames at a task's rate, held in memory: all windows are slices of it."""
        if (name, rate) not in self._on_grid:
            self._on_grid[name, rate] = self.at(name, _grid_ns(np.arange(n, dtype=np.int64), rate))
            self.bytes += self._on_grid[name, rate].nbytes
        return self._on_grid[name, rate]

    def at(self, name: str, times_ns: Int64[np.ndarray, " times"]) -> np.ndarray:
        """A column at any times."""
        spec, values = self.specs[schema.member_name(name)], self.columns[name]
        clock, hold = clock_of(spec, values, self.columns["pts"], self.duration_ns)
        return resample_column(spec, values, clock, times_ns, hold_ns=hold)

    @cached_property
    def crop(self) -> Float[np.ndarray, "2 3"]:
        """Source pixels to crop pixels."""
        try:
            return np.array(json.loads(self._media["json"])["crop"]).reshape(2, 3)
        except (ValueError, KeyError) as error:
            raise self._damaged("json", error) from error

    def frames(self, indices: Sequence[int]) -> Iterator[UInt8[np.ndarray, "side side 3"]]:
        """Frames of the crop's video by rising index, RGB."""
        try:
            # 16 frames in a row: PyAV is three times as fast as decord, which also holds on to a gigabyte.
            yield from self._frames.each(indices)
        except Exception as error:  # decoders have many kinds, decord's own among them
            raise self._damaged("mp4", error) from error

    @cached_property
    def _frames(self) -> ClipFrames:
        self.bytes += DECODER_BYTES
        return ClipFrames(self._media["mp4"], backend="av")

    def _damaged(self, member: str, error: Exception) -> DatasetError:
        return DatasetError(f"{self.shard}: {self.key}.{member} is damaged ({type(error).__name__}: {error}).")


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
    def _rate(self) -> tuple[int, int]:
        """Frames a second as a fraction: 29.97 is 30000/1001 only if given as such."""
        return Fraction(self.fps).limit_denominator(1001).as_integer_ratio()

    def n_frames(self, duration_ns: Int64[np.ndarray, " clips"]) -> Int64[np.ndarray, " clips"]:
        """How many frames at the task's rate fall into clips of these durations; at least one."""
        return np.maximum(self._due(duration_ns), 1)

    def _n_frames(self, duration_ns: int) -> int:
        return max(self._due(duration_ns), 1)

    def _due(self, duration_ns: Any) -> Any:
        top, bottom = self._rate
        return -((SLACK_NS - duration_ns) * top // (NS * bottom))

    def plan(self, clips: pa.Table) -> WindowPlan:
        """The windows of each row of a clips table, in its order; needs nothing but the table."""
        n = self.n_frames(clips.column("end_ns").to_numpy() - clips.column("start_ns").to_numpy())
        left = n - self.length
        if self.pad == "tail":
            count = -(-np.maximum(left, 0) // self.step) + 1
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
        return _grid_ns(np.arange(first, first + self.length, dtype=np.int64), self._rate)

    def cut(self, clip: ClipData, first: int, rng: np.random.Generator) -> Sample:
        """The window that starts with frame ``first`` at the task's rate."""
        times = self.times_ns(first)
        n = self._n_frames(clip.duration_ns)
        inside = np.arange(first, first + self.length) < n
        window: Sample = {"key": clip.key, "times_ns": times}
        valid = inside.copy()
        for name in self.columns:
            spec, values = clip.specs[schema.member_name(name)], clip.columns[name]
            if spec.clock == "clip":
                window[name] = values
            elif spec.clock == "sound" and self.sound_rows == "native":
                window[name] = self._sound_rows(spec, values, int(times[0]))
            else:
                window[name] = self._column(clip, name, times, first, n)
                if spec.clock == "frame" and window[name].dtype.kind == "f":
                    valid &= finite_rows(window[name])
        window["valid"] = valid
        if self.sound:
            window["sound"] = self._sound(clip, int(times[0]))
        if self.pictures is not None:
            self._add_pictures(window, clip, inside, rng)
        if self.mirror:
            window["mirrored"] = np.bool_(rng.random() < self.mirror)
            if window["mirrored"]:
                window = mirror(window, self.pictures.size if self.pictures else 0)
        if self.fill is not None:
            for name in self.columns:
                if window[name].dtype.kind == "f":
                    window[name] = np.nan_to_num(window[name], nan=self.fill)
        return window

    def _column(self, clip: ClipData, name: str, times: np.ndarray, first: int, n: int) -> np.ndarray:
        """A column at the window's times, missing outside of the clip's ``n`` frames."""
        spec = clip.specs[schema.member_name(name)]
        if np.prod(spec.shape, dtype=int) <= SMALL:
            part = clip.on_grid(name, self._rate, n)[first : first + self.length]
        else:
            part = clip.at(name, times[: max(n - first, 0)])
        out = np.full((self.length, *part.shape[1:]), np.nan if part.dtype.kind == "f" else 0, part.dtype)
        out[: len(part)] = part
        return out

    def _sound_rows(self, spec: ColumnSpec, values: np.ndarray, start_ns: int) -> np.ndarray:
        first = round((start_ns / NS - spec.first_seconds) * spec.rate)
        count = round(self.length / self.fps * spec.rate)
        out = np.full((count, *values.shape[1:]), np.nan, np.promote_types(np.float32, values.dtype))
        low, high = np.clip([first, first + count], 0, len(values))
        out[low - first : high - first] = values[low:high]
        return out

    def _sound(self, clip: ClipData, start_ns: int) -> Float32[np.ndarray, " samples"]:
        first = ns_to_samples(start_ns)
        out = np.zeros(round(self.length / self.fps * SAMPLE_RATE), np.float32)
        part = clip.sound(first, len(out))
        np.multiply(part, np.float32(1 / 32768), out=out[: len(part)])
        return out

    def _add_pictures(self, window: Sample, clip: ClipData, inside: np.ndarray, rng: np.random.Generator) -> None:
        """Frames, resized, and the points on them in step."""
        assert self.pictures is not None
        pts, size = clip.columns["pts"], self.pictures.size
        index = nearest(pts, window["times_ns"])
        index[~inside] = -1
        different, place = np.unique(index[inside], return_inverse=True)
        shown = np.empty((len(different), size, size, 3), np.uint8)
        for number, frame in enumerate(clip.frames(different.tolist())):
            if number == 0:
                x, y, side = self.pictures.square(len(frame), rng)
            _resize(frame[y : y + side, x : x + side], shown[number])
        if self.pictures.light:
            shown = light(shown, self.pictures.light, rng)
        if len(shown) < self.length:
            shown = _spread(shown[place], inside)
        window["frames"] = shown
        window["frame_index"] = index
        scale = size / side
        # Coordinates are continuous and the first pixel spans 0..1, so that sizes and coordinates scale alike.
        to_part = np.array([[scale, 0, -x * scale], [0, scale, -y * scale]])
        to_picture = to_part @ np.vstack([clip.crop, [0, 0, 1]])
        for name in set(ON_PICTURE) & set(self.columns):
            window[name] = move_points(window[name], to_picture)


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


def _spread(frames: UInt8[np.ndarray, "n size size 3"], at: np.ndarray) -> UInt8[np.ndarray, "length size size 3"]:
    """Frames where ``at`` is true, black elsewhere."""
    out = np.zeros((len(at), *frames.shape[1:]), np.uint8)
    out[at] = frames
    return out


def _resize(picture: UInt8[np.ndarray, "side side 3"], out: UInt8[np.ndarray, "size size 3"]) -> None:
    """Fill ``out`` with the picture."""
    size = len(out)
    if size == len(picture):
        out[:] = picture
        return
    smaller = size < len(picture)
    cv2.resize(picture, (size, size), dst=out, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def _grid_ns(frames: Int64[np.ndarray, " n"], rate: tuple[int, int]) -> Int64[np.ndarray, " n"]:
    """Times of frames at a rate from a clip's start; no rounding error adds up."""
    top, bottom = rate
    times: np.ndarray = frames * (NS * bottom) // top
    return times


class Companions:
    """Other clips with the same labels: the same speaker with the same emotion, unless told otherwise."""

    def __init__(self, clips: pa.Table, by: Sequence[str] = ("speaker", "emotion")) -> None:
        self._group = label_groups(clips, by)
        self._order = np.argsort(self._group, kind="stable")
        self._place = np.empty_like(self._order)
        self._place[self._order] = np.arange(len(self._order))
        sorted_groups = self._group[self._order]
        self._low = np.searchsorted(sorted_groups, self._group, side="left")
        self._high = np.searchsorted(sorted_groups, self._group, side="right")

    def rows(self, row: int) -> Int64[np.ndarray, " others"]:
        """Rows of all other clips with the labels of ``row``; none where one of its labels is not known."""
        if self._group[row] < 0:
            return self._order[:0]
        same = self._order[self._low[row] : self._high[row]]
        return same[same != row]

    def draw(self, row: int, rng: np.random.Generator) -> int | None:
        """One of `rows` at random, or None if there is none."""
        others = self._high[row] - self._low[row] - 1
        if self._group[row] < 0 or others < 1:
            return None
        place = self._low[row] + int(rng.integers(others))
        return int(self._order[place + (place >= self._place[row])])


def label_groups(clips: pa.Table, by: Sequence[str]) -> Int64[np.ndarray, " clips"]:
    """A number a combination of labels, from 0; -1 where one of them is not known. Raises ConfigError for no label."""
    groups = np.zeros(clips.num_rows, np.int64)
    known = np.ones(clips.num_rows, bool)
    for name in by:
        if name not in clips.column_names:
            raise ConfigError(f"no label {name!r}; there are: {', '.join(clips.column_names)}")
        codes = clips.column(name).combine_chunks().dictionary_encode().indices
        known &= codes.is_valid().to_numpy(zero_copy_only=False)
        code = codes.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        groups = np.unique(groups * (code.max(initial=0) + 1) + code, return_inverse=True)[1].astype(np.int64)
    found: np.ndarray = np.where(known, groups, -1)
    return found
