"""Clips ready to be cut, in one file that all workers, ranks and later runs share: decoded once, not once an epoch.

The file has a slot for each clip of the dataset: its columns at the task's frame rate, and its sound as int16, raw. It
is mapped into memory, so that a window is a slice of it and the system decides what stays in memory. Slots are where
the clips table says; a slot that nobody wrote takes no room on the disk. A slot's header, written after its bytes,
has their CRC-32, which each process checks before its first use of the slot: whoever writes, and however often, writes
the same bytes, so nobody has to wait for anybody.
"""

import hashlib
import inspect
import logging
import mmap
import os
import shutil
import sys
import weakref
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import platformdirs
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int16, Int64

import talkface.datasets.loading.clip_data
import talkface.datasets.reader
import talkface.datasets.resample
import talkface.media.flac
from talkface.clip import ColumnSpec, ns_to_samples
from talkface.datasets.format import schema
from talkface.datasets.loading.clip_data import ClipData, Rate
from talkface.datasets.loading.windows import Windows
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError

LOG = logging.getLogger(__name__)

VARIABLE: Final = "TALKFACE_CACHE"
"""Names the folder of caches in place of the user's own."""

SUFFIX: Final = ".clips"
ALIGN: Final = 64
SOUND: Final = "flac"

KEPT_FREE: Final = 0.1
"""The share of the disk that is never taken."""

LOOK_AGAIN: Final = 1 << 25
"""Bytes written between two looks at how full folder and disk are."""

MAKERS: Final[Sequence[ModuleType]] = (
    sys.modules[__name__],
    talkface.datasets.loading.clip_data,
    talkface.datasets.reader,
    talkface.datasets.resample,
    talkface.media.flac,
)
"""The code that decides what is in a slot: where it has changed, older files are not used."""


def default_folder() -> Path:
    """The folder that ``TALKFACE_CACHE`` names, else the user's own for such things."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else platformdirs.user_cache_path("talkface") / "clips"


class _Part(NamedTuple):
    """An array of every slot: how many rows there is room for in each clip, and where in the slot they start."""

    name: str
    kind: Literal["grid", "native", "once", "sound"]
    dtype: np.dtype
    shape: tuple[int, ...]
    room: Int64[np.ndarray, " clips"]
    start: Int64[np.ndarray, " clips"]


class CachedClip:
    """A clip whose columns and sound lie in the cache's memory: read-only views."""

    def __init__(self, key: str, duration_ns: int, specs: Mapping[str, ColumnSpec], rate: Rate) -> None:
        self.key, self.duration_ns, self.specs = key, duration_ns, specs
        self.native: Mapping[str, np.ndarray] = {}
        self._rate = rate
        self._grid: dict[str, np.ndarray] = {}
        self._sound: Int16[np.ndarray, " samples"] = np.zeros(0, np.int16)

    def hold(self, part: _Part, values: np.ndarray) -> None:
        """Take the values of a part."""
        if part.kind == "sound":
            self._sound = values
        elif part.kind == "grid":
            self._grid[part.name] = values
        else:
            self.native = {**self.native, part.name: values[0] if part.kind == "once" else values}

    def rows(self, name: str, rate: Rate, n: int, first: int, last: int) -> np.ndarray:
        """As `ClipData.rows`, at the rate of the cache's windows."""
        assert rate == self._rate and n == len(self._grid[name])
        return self._grid[name][first:last]

    def sound(self, first: int, count: int) -> Int16[np.ndarray, " samples"]:
        """As `ClipData.sound`."""
        return self._sound[first : first + count]


class ClipCache:
    """The clips of one dataset for one kind of windows, in a file in ``folder``.

    ``gigabytes`` is for all files in the folder together; those that were not used for longest make room for a new
    one. A tenth of the disk stays free. Where nothing (more) can be written, clips are simply not kept.

    The file's name is a digest of the dataset's address, its shards' sizes and times, the CRC-32 of each member, the
    windows' settings and the code that makes the content: what was made of anything else is never looked at.
    ``damaged`` counts slots that this process found with other bytes than were written; they are made anew.
    """

    def __init__(self, dataset: Dataset, windows: Windows, folder: Path, gigabytes: float) -> None:
        """Raises ConfigError where `cannot_keep` says why, and OSError where no file can be made in the folder."""
        if why := cannot_keep(dataset, windows):
            raise ConfigError(f"{dataset.url}: clips cannot be cached: {why}")
        self.folder, self.gigabytes, self.damaged = Path(folder), gigabytes, 0
        self._specs, self._rate = windows.specs(dataset), windows.rate
        clips = dataset.table("clips")
        self._slot_of = _rows_in(dataset.clips, clips)
        self._durations = clips.column("end_ns").to_numpy() - clips.column("start_ns").to_numpy()
        self._keys = dataset.clips.column("key").combine_chunks()
        self._parts, self._starts = _layout(dataset, windows, clips, self._durations)
        self.path = self.folder / f"{_digest(dataset, windows, clips)}{SUFFIX}"
        self._known = bytearray(clips.num_rows)
        self._file: _File | None = None
        self._left = 0
        self._open()
        LOG.info("decoded clips are kept in %s (at most %g GB there)", self.folder, gigabytes)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}

    def _open(self) -> "_File":
        if self._file is None:
            make_room(self.folder, self.gigabytes * 1e9 / 2, keep=self.path)
            self._file = _File(self.path, int(self._starts[-1]))
        return self._file

    def has(self, row: int) -> bool:
        """Whether the clip in a row of ``dataset.clips`` is there, whole."""
        slot = int(self._slot_of[row])
        if not self._known[slot]:
            self._known[slot] = self._is_whole(slot)
        return bool(self._known[slot])

    def get(self, row: int) -> CachedClip:
        """The clip in a row that `has` says is there."""
        slot, memory = int(self._slot_of[row]), self._open().memory
        clip = CachedClip(self._keys[row].as_py(), int(self._durations[slot]), self._specs, self._rate)
        counts = self._header(slot)[2:].tolist()
        for part, count in zip(self._parts, counts, strict=True):
            start = int(self._starts[slot] + part.start[slot])
            clip.hold(part, np.ndarray((count, *part.shape), part.dtype, memory, start))
        return clip

    def put(self, row: int, clip: ClipData) -> bool:
        """Keep a clip; False where there is no room. Raises DatasetError where it cannot be decoded."""
        slot = int(self._slot_of[row])
        start, end = int(self._starts[slot]), int(self._starts[slot + 1])
        if not self._may_write(end - start):
            return False
        content = bytearray(end - start)
        header = np.frombuffer(content, np.int64, 2 + len(self._parts))
        for number, part in enumerate(self._parts):
            values = self._values(part, slot, clip)
            np.ndarray(values.shape, part.dtype, content, int(part.start[slot]))[...] = values
            header[2 + number] = len(values)
        header[:2] = 1, zlib.crc32(memoryview(content)[16:])
        try:
            self._open().write(start + header.nbytes, memoryview(content)[header.nbytes :])
            self._open().write(start, memoryview(content)[: header.nbytes])
        except OSError as error:
            LOG.warning("%s: no more clips are kept there (%s)", self.path, error.strerror)
            self.gigabytes = 0
            return False
        self._known[slot] = 1
        return True

    def _values(self, part: _Part, slot: int, clip: ClipData) -> np.ndarray:
        n = int(part.room[slot])
        if part.kind == "grid":
            return clip.rows(part.name, self._rate, n, 0, n)
        if part.kind == "sound":
            return clip.sound(0, -1)
        return clip.native[part.name][None] if part.kind == "once" else clip.native[part.name]

    def _may_write(self, count: int) -> bool:
        if self.gigabytes <= 0:
            return False
        if self._left < count:
            disk = shutil.disk_usage(self.folder)
            free = min(self.gigabytes * 1e9 - _bytes_in(self.folder), disk.free - KEPT_FREE * disk.total)
            self._left = int(min(free, LOOK_AGAIN + count))
        self._left -= count
        return self._left >= 0

    def _header(self, slot: int) -> Int64[np.ndarray, " numbers"]:
        """Whether it was written, the CRC-32 of all that follows, and the rows of each part."""
        return np.ndarray((2 + len(self._parts),), np.int64, self._open().memory, int(self._starts[slot]))

    def _is_whole(self, slot: int) -> bool:
        written, crc32 = self._header(slot)[:2].tolist()
        if not written:
            return False
        start, end = int(self._starts[slot]), int(self._starts[slot + 1])
        if zlib.crc32(memoryview(self._open().memory)[start + 16 : end]) == crc32:
            return True
        self.damaged += 1
        LOG.warning("%s: a clip is damaged there and decoded anew", self.path)
        return False


class _File:
    """A file of a fixed size that is all holes at first, its content in memory, read-only."""

    def __init__(self, path: Path, size: int) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        weakref.finalize(self, os.close, self._handle)
        os.ftruncate(self._handle, size)
        os.utime(path)
        self.memory = mmap.mmap(self._handle, size, access=mmap.ACCESS_READ)

    def write(self, start: int, data: memoryview) -> None:
        """Write all of the data. Not through the mapping: where the disk is full that would end the process."""
        while data:
            count = os.pwrite(self._handle, data, start)
            start, data = start + count, data[count:]


def open_cache(dataset: Dataset, windows: Windows, folder: str | Path | bool, gigabytes: float) -> ClipCache | None:
    """The cache of these windows; None where none is wanted or there can be none."""
    if folder is False or gigabytes <= 0 or cannot_keep(dataset, windows):
        return None
    try:
        return ClipCache(dataset, windows, default_folder() if folder is True else Path(folder), gigabytes)
    except OSError as error:
        LOG.warning("decoded clips are not kept: %s", error)
        return None


def cannot_keep(dataset: Dataset, windows: Windows) -> str | None:
    """Why the clips of these windows cannot be kept, or None."""
    if not hasattr(os, "pwrite"):
        return "this system cannot write anywhere in a file"
    if windows.pictures is not None:
        return "pictures are decoded from the video each time"
    if dataset.folder.in_memory:
        return "the dataset is in memory itself"
    if any(dataset.index_of(member).crc32 is None for member in windows.members(dataset)):
        return "its manifest has no CRC-32 of its members; build it again"
    return None


def make_room(folder: Path, most: float, keep: Path) -> None:
    """Remove the caches in a folder that were not used for longest, until the others than ``keep`` hold ``most``."""
    files = sorted((p for p in folder.glob(f"*{SUFFIX}") if p != keep), key=_used)
    held = [_bytes(p) for p in files]
    for number, path in enumerate(files):
        if sum(held[number:]) <= most:
            break
        path.unlink(missing_ok=True)


def _bytes_in(folder: Path) -> int:
    return sum(map(_bytes, folder.glob(f"*{SUFFIX}")))


def _bytes(path: Path) -> int:
    """What a file takes on the disk: holes take nothing."""
    with suppress(FileNotFoundError):
        return path.stat().st_blocks * 512
    return 0


def _used(path: Path) -> float:
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0


def _rows_in(shown: pa.Table, clips: pa.Table) -> Int64[np.ndarray, " shown"]:
    """The rows of the whole clips table that are shown."""
    keys = clips.column("key").combine_chunks()
    rows: np.ndarray = pc.index_in(shown.column("key"), keys).to_numpy().astype(np.int64)
    return rows


def _layout(
    dataset: Dataset, windows: Windows, clips: pa.Table, durations_ns: Int64[np.ndarray, " clips"]
) -> tuple[list[_Part], Int64[np.ndarray, " starts"]]:
    """The parts of a slot, and where each clip's slot starts; the last start is the file's size."""
    fields, specs = windows.fields(windows.specs(dataset)), windows.specs(dataset)
    ones = np.ones(clips.num_rows, np.int64)
    end = _aligned((2 + len(windows.columns) + windows.sound) * 8 * ones)
    parts: list[_Part] = []

    def add(name: str, kind: Any, dtype: np.dtype, shape: tuple[int, ...], room: np.ndarray) -> None:
        nonlocal end
        parts.append(_Part(name, kind, dtype, shape, room, end))
        end = end + _aligned(room * int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)

    for name in windows.columns:
        spec = specs[schema.member_name(name)]
        dtype = np.dtype(spec.dtype)
        if spec.clock == "clip":
            add(name, "once", dtype, spec.shape, ones)
        elif windows.is_native(spec):
            sizes = _of_member(dataset, "sizes", schema.member_name(name))
            add(name, "native", dtype, spec.shape, sizes // max(int(np.prod(spec.shape)) * dtype.itemsize, 1))
        else:
            add(name, "grid", fields[name].dtype, spec.shape, windows.n_frames(durations_ns))
    if windows.sound:
        add(SOUND, "sound", np.dtype(np.int16), (), np.array([ns_to_samples(int(d)) + 2 for d in durations_ns]))
    return parts, np.cumsum(np.concatenate([[0], end]))


def _aligned(count: Int64[np.ndarray, " clips"]) -> Int64[np.ndarray, " clips"]:
    return -(-count // ALIGN) * ALIGN


def _of_member(dataset: Dataset, what: Literal["sizes", "crc32"], member: str) -> np.ndarray:
    """Of every clip of the dataset."""
    places = dataset.index_of(member)
    values: np.ndarray = getattr(places, what)[:, places.members.index(member)]
    return values


def _digest(dataset: Dataset, windows: Windows, clips: pa.Table) -> str:
    """Stands for all that the content depends on."""
    specs = windows.specs(dataset)
    digest = hashlib.sha256(_code().encode())
    about = (
        dataset.folder.fs.protocol,
        dataset.folder.root,
        windows.rate,
        windows.columns,
        windows.sound,
        windows.sound_rows,
    )
    digest.update(repr((about, specs)).encode())
    digest.update("\n".join(clips.column("key").to_pylist()).encode())
    for column in ("start_ns", "end_ns", "frames"):
        digest.update(clips.column(column).to_numpy().tobytes())
    for member in windows.members(dataset):
        digest.update(np.ascontiguousarray(_of_member(dataset, "crc32", member)).tobytes())
    digest.update(repr(_shards(dataset, windows)).encode())
    return digest.hexdigest()[:32]


def _shards(dataset: Dataset, windows: Windows) -> list[tuple[str, int, int]]:
    """Size and time of each shard on a disk: where one was changed nothing is taken from the cache unseen."""
    if not dataset.folder.is_local:
        return []
    found = []
    for shard in sorted({s for m in windows.members(dataset) for s in dataset.index_of(m).shards.unique().to_pylist()}):
        with suppress(FileNotFoundError):
            about = Path(dataset.folder.path(shard)).stat()
            found.append((shard, about.st_size, about.st_mtime_ns))
    return found


@cache
def _code() -> str:
    return "\n".join([np.__version__, *map(inspect.getsource, MAKERS)])
