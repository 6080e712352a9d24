"""One clip as windows are cut from it: from the bytes of its members."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int16, Int64, UInt8

from talkface.clip import NS, ColumnSpec
from talkface.datasets.format import schema
from talkface.datasets.reader import Dataset, clock_of, open_sound, sound_part
from talkface.datasets.resample import resample_column
from talkface.errors import DatasetError
from talkface.media import ClipFrames, FlacSamples

DECODER_BYTES = 4_000_000
"""What an open decoder of a 512 x 512 crop holds."""

SMALL = 64
"""Columns with up to so many numbers a row are put on a task's clock for a whole clip at once."""

Rate = tuple[int, int]
"""Frames a second as a fraction."""


class Cuttable(Protocol):
    """What `Windows.cut` needs of a clip; ``native`` has its columns on their own clocks."""

    key: str
    duration_ns: int
    specs: Mapping[str, ColumnSpec]
    native: Mapping[str, np.ndarray]

    def rows(self, name: str, rate: Rate, n: int, first: int, last: int) -> np.ndarray:
        """A column at those of the clip's ``n`` frames at a task's rate that have first <= i < last."""

    def sound(self, first: int, count: int) -> Int16[np.ndarray, " samples"]:
        """``count`` samples, 16 kHz mono int16, from ``first`` on; fewer at the clip's end."""


class ClipData:
    """One clip's columns and media in memory."""

    def __init__(self, dataset: Dataset, row: int, data: Mapping[str, bytes], specs: Mapping[str, ColumnSpec]) -> None:
        """``data`` holds the members; raises DatasetError naming shard and member where one is damaged."""
        clips = dataset.clips
        self.key: str = clips.column("key")[row].as_py()
        self.shard: str = clips.column("shard")[row].as_py()
        self.duration_ns = int(clips.column("end_ns")[row].as_py() - clips.column("start_ns")[row].as_py())
        self.specs = specs
        self.native: Mapping[str, np.ndarray] = dataset.view(row, data, specs)
        self.bytes = sum(map(len, data.values()))
        self._media = {m: data[m] for m in ("json", "mp4", "flac") if m in data}
        self._on_grid: dict[tuple[str, Rate], np.ndarray] = {}

    @cached_property
    def _sound(self) -> FlacSamples:
        return open_sound(f"{self.shard}: {self.key}.flac", self._media["flac"], self.duration_ns)

    def sound(self, first: int, count: int) -> Int16[np.ndarray, " samples"]:
        """``count`` samples (all that are left: -1), 16 kHz mono int16, from ``first`` on; fewer at the clip's end."""
        return sound_part(f"{self.shard}: {self.key}.flac", self._sound, first, count)

    def rows(self, name: str, rate: Rate, n: int, first: int, last: int) -> np.ndarray:
        """A column at those of the clip's ``n`` frames at a task's rate that have first <= i < last.

        Small columns are then held in memory for the whole clip: all windows are slices of them.
        """
        spec = self.specs[schema.member_name(name)]
        if np.prod(spec.shape, dtype=int) > SMALL:
            return self.at(name, grid_ns(np.arange(first, min(last, n), dtype=np.int64), rate))
        if (name, rate) not in self._on_grid:
            self._on_grid[name, rate] = self.at(name, grid_ns(np.arange(n, dtype=np.int64), rate))
            self.bytes += self._on_grid[name, rate].nbytes
        return self._on_grid[name, rate][first:last]

    def at(self, name: str, times_ns: Int64[np.ndarray, " times"]) -> np.ndarray:
        """A column at any times."""
        spec, values = self.specs[schema.member_name(name)], self.native[name]
        clock, hold = clock_of(spec, values, self.native["pts"], self.duration_ns)
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


def grid_ns(frames: Int64[np.ndarray, " n"], rate: Rate) -> Int64[np.ndarray, " n"]:
    """Times of frames at a rate from a clip's start; no rounding error adds up."""
    top, bottom = rate
    times: np.ndarray = frames * (NS * bottom) // top
    return times
