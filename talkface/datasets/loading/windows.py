"""Windows of fixed length at a task's frame rate, cut from clips on their native clocks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int64

from talkface.clip import NS, ColumnSpec, finite_rows, ns_to_samples
from talkface.datasets.format import schema
from talkface.datasets.loading.augment import ON_PICTURE, check_mirror, light, mirror
from talkface.datasets.loading.clip_data import ClipData, Cuttable, grid_ns
from talkface.datasets.loading.companions import label_groups
from talkface.datasets.loading.pictures import NOSE_TIP, Face, Pictures, cut_out, face_of, move_points, nearest, resize
from talkface.datasets.loading.reference import REFERENCE, far_frames
from talkface.datasets.loading.shared_batch import Field
from talkface.datasets.reader import Dataset, Sample
from talkface.errors import ConfigError
from talkface.vocab import SAMPLE_RATE

SLACK_NS = 1_000_000
"""Containers round to milliseconds: a frame due in a clip's last millisecond is not counted as part of it."""

Pad = Literal["never", "short", "tail"]

__all__ = ["Pictures", "WindowPlan", "Windows"]


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

    ``reference`` is how many more frames of the same clip come along, drawn at random, ``margin`` frames or more (at
    ``fps``) from every frame of the window; where the clip is too short for that, the farthest. They are cut, lit and
    mirrored as the window is: ``reference_times_ns`` and ``reference_valid`` (reference,), ``reference_NAME``
    (reference, ...) for each column on the frames' clock, and with pictures ``reference`` uint8 (reference, size, size,
    3) and ``reference_index``.

    ``sound_margin`` in seconds: ``sound`` and the rows of columns on the sound's clock begin so much before the window
    and end so much after it.

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
    reference: int = 0
    margin: int = 0
    sound_margin: float = 0.0

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
        if self.reference < 0 or self.margin < 0 or not self.sound_margin >= 0:
            raise ConfigError(
                f"reference, margin and sound_margin are at least 0, got {self.reference}, {self.margin} and "
                f"{self.sound_margin}"
            )
        if self.sound_margin and self.sound_rows == "frames":
            raise ConfigError('sound_margin is for rows on the sound\'s own clock: leave sound_rows at "native"')
        if "latent" in self.columns and (self.mirror or (self.pictures is not None and self.pictures.changes)):
            raise ConfigError("latents show the whole crop: set mirror, zoom and light to 0, part to 1, centre to crop")
        if taken := {"pts", "valid"} & set(self.columns):
            raise ConfigError(f"{', '.join(taken)}: every window says which of its frames are valid, and their times")

    @property
    def step(self) -> int:
        return self.length if self.stride is None else self.stride

    @property
    def sound_seconds(self) -> float:
        """What the window's rows of sound and its samples last, both margins with it."""
        return self.length / self.fps + 2 * self.sound_margin

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
        wanted = dict.fromkeys(("pts", *self.columns, *self._aligning(dataset)))
        found = {schema.member_name(c): dataset.spec(c) for c in wanted}
        if self.mirror:
            own = [found[schema.member_name(c)] for c in self.columns]
            check_mirror(own, pictures=self.pictures is not None)
        return found

    def _aligning(self, dataset: Dataset) -> tuple[str, ...]:
        """The columns that say where the nose is, where pictures are aligned by it."""
        if self.pictures is None or self.pictures.centre != "nose":
            return ()
        there = {spec.name for spec in dataset.specs()}
        points = next((name for name in NOSE_TIP if name in there), None)
        if points is None or "box" not in there:
            raise ConfigError(f'{dataset.url}: centre="nose" needs the columns box, and lm or lm68')
        return points, "box"

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
                rows = round(self.sound_seconds * spec.rate)
                found[spec.name] = Field(np.promote_types(np.float32, dtype), (rows, *spec.shape))
            else:
                found[spec.name] = Field(real, (self.length, *spec.shape))
        if self.sound:
            found["sound"] = Field(np.dtype(np.float32), (round(self.sound_seconds * SAMPLE_RATE),))
        if self.pictures is not None:
            size = self.pictures.size
            found["frames"] = Field(np.dtype(np.uint8), (self.length, size, size, 3))
            found["frame_index"] = Field(np.dtype(np.int64), (self.length,))
        if self.mirror:
            found["mirrored"] = Field(np.dtype(bool), ())
        return found | (self._reference_fields(specs, found) if self.reference else {})

    def _reference_fields(self, specs: Mapping[str, ColumnSpec], found: Mapping[str, Field]) -> dict[str, Field]:
        """Of the reference frames: as the window's own, ``reference`` of each in place of ``length``."""
        same = ["times_ns", "valid", *self._on_frames(specs)]
        names = {name: REFERENCE + name for name in same}
        if self.pictures is not None:
            names |= {"frames": "reference", "frame_index": "reference_index"}
        return {new: Field(found[old].dtype, (self.reference, *found[old].shape[1:])) for old, new in names.items()}

    def _on_frames(self, specs: Mapping[str, ColumnSpec]) -> list[str]:
        """The columns on the frames' clock."""
        return [name for name in self.columns if specs[schema.member_name(name)].clock == "frame"]

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
                start = int(times[0]) / NS - self.sound_margin
                _rows_from(clip.native[name], round((start - spec.first_seconds) * spec.rate), out)
            else:
                part = clip.rows(name, self.rate, n, first, first + self.length)
                out[: len(part)] = part
                out[len(part) :] = np.nan if out.dtype.kind == "f" else 0
        if self.sound:
            _samples_from(clip, ns_to_samples(int(times[0])) - round(self.sound_margin * SAMPLE_RATE), window["sound"])
        if self.reference:
            self._add_reference(window, clip, first, n, rng)
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
        on_frames = self._on_frames(specs)
        before = ("", REFERENCE) if self.reference else ("",)
        for name in (b + name for b in before for name in self.columns if b == "" or name in on_frames):
            values = windows[name]
            if values.dtype.kind != "f":
                continue
            if name.removeprefix(REFERENCE) in on_frames:
                valid = windows[REFERENCE + "valid" if name.startswith(REFERENCE) else "valid"]
                valid &= finite_rows(values.reshape(-1, *values.shape[2:])).reshape(valid.shape)
            if self.fill is not None:
                np.nan_to_num(values, copy=False, nan=self.fill)

    def _add_reference(
        self, window: Mapping[str, np.ndarray], clip: Cuttable, first: int, n: int, rng: np.random.Generator
    ) -> None:
        """Draw the reference frames of a clip of ``n`` frames, and their columns."""
        chosen = far_frames(n, first, min(first + self.length, n) - 1, self.margin, self.reference, rng)
        window["reference_times_ns"][:] = grid_ns(chosen, self.rate)
        window["reference_valid"][:] = True
        for name in self._on_frames(clip.specs):
            for place, frame in enumerate(chosen.tolist()):
                window[REFERENCE + name][place] = clip.rows(name, self.rate, n, frame, frame + 1)[0]

    def _add_pictures(self, window: Mapping[str, np.ndarray], clip: ClipData, rng: np.random.Generator) -> None:
        """Frames, resized, those of reference among them, and the points on them in step."""
        assert self.pictures is not None
        size, inside, frames = self.pictures.size, window["valid"], window["frames"]
        wanted = self._index(window, clip)
        different, place = np.unique(wanted, return_inverse=True)
        in_place = len(different) == self.length and not (self.pictures.light or self.reference)
        shown = frames if in_place else np.empty((len(different), size, size, 3), np.uint8)
        for number, frame in enumerate(clip.frames(different.tolist())):
            if number == 0:
                x, y, side = self.pictures.square(len(frame), rng, self._face(window, clip))
            resize(cut_out(frame, x, y, side), shown[number])
        if not in_place:
            shown = light(shown, self.pictures.light, rng) if self.pictures.light else shown
            own = len(wanted) - self.reference
            frames[inside], frames[~inside] = shown[place[:own]], 0
            if self.reference:
                window["reference"][:] = shown[place[own:]]
        scale = size / side
        # Coordinates are continuous and the first pixel spans 0..1, so that sizes and coordinates scale alike.
        to_part = np.array([[scale, 0, -x * scale], [0, scale, -y * scale]])
        to_picture = to_part @ np.vstack([clip.crop, [0, 0, 1]])
        for name in window:
            if name.removeprefix(REFERENCE) in ON_PICTURE:
                window[name][...] = move_points(window[name], to_picture)

    def _face(self, window: Mapping[str, np.ndarray], clip: ClipData) -> Face | None:
        """What pictures are aligned by."""
        if self.pictures is None or self.pictures.centre != "nose":
            return None
        return face_of(clip.native, window["frame_index"][window["valid"]], clip.crop)

    def _index(self, window: Mapping[str, np.ndarray], clip: ClipData) -> Int64[np.ndarray, " wanted"]:
        """Which of the video's frames are shown: those of the window that lie in the clip, then those of reference."""
        inside, index = window["valid"], window["frame_index"]
        index[:] = nearest(clip.native["pts"], window["times_ns"])
        index[~inside] = -1
        if not self.reference:
            return index[inside]
        window["reference_index"][:] = nearest(clip.native["pts"], window["reference_times_ns"])
        return np.concatenate([index[inside], window["reference_index"]])


def _rows_from(values: np.ndarray, first: int, out: np.ndarray) -> None:
    """Fill ``out`` with the rows from ``first`` on; those that there are not are missing."""
    low, high = (int(at) for at in np.clip([first, first + len(out)], 0, len(values)))
    out[:] = np.nan
    out[low - first : high - first] = values[low:high]


def _samples_from(clip: Cuttable, first: int, out: Float[np.ndarray, " samples"]) -> None:
    """Fill ``out`` with a clip's samples from ``first`` on, in -1..1; zeros before its start and after its end."""
    before = min(max(-first, 0), len(out))
    part = clip.sound(first + before, len(out) - before)
    out[:before] = 0
    np.multiply(part, np.float32(1 / 32768), out=out[before : before + len(part)])
    out[before + len(part) :] = 0
