"""Where the members of clips lie inside the shards, and reading them, many at once."""

import io
import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from tarfile import BLOCKSIZE
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from jaxtyping import Int64, UInt32

from talkface.clip import ColumnSpec
from talkface.errors import DatasetError
from talkface.store import TIMEOUT, Folder

GAP = 1 << 16
"""Bytes that nobody asked for are read along where they part two wanted members by no more than this."""

OPEN_FILES = 16


@dataclass(frozen=True)
class Wanted:
    """One member to read: where it should lie, and what it should be."""

    shard: str
    key: str
    member: str
    offset: int
    size: int
    crc32: int | None = None

    @property
    def name(self) -> str:
        return f"{self.key}.{self.member}"


@dataclass(frozen=True)
class Places:
    """Offset, size and CRC-32 of every member of every clip, as arrays; clips in the order of clips.parquet.

    ``crc32`` is None for a dataset made before the manifest had it.
    """

    url: str
    keys: pa.Array
    shards: pa.Array
    members: tuple[str, ...]
    offsets: Int64[np.ndarray, "clips members"]
    sizes: Int64[np.ndarray, "clips members"]
    crc32: UInt32[np.ndarray, "clips members"] | None = None

    @classmethod
    def of(cls, url: str, clips: pa.Table, table: pa.Table, members: tuple[str, ...]) -> "Places":
        """From clips.parquet and members.parquet. Raises DatasetError where they do not fit each other."""
        shape = clips.num_rows, len(members)
        keys = clips.column("key").combine_chunks()
        shards = clips.column("shard").combine_chunks().dictionary_encode()
        fits = table.num_rows == clips.num_rows * len(members)
        if fits and clips.num_rows:
            clip_of = pa.array(np.repeat(np.arange(clips.num_rows), len(members)))
            member_of = pa.array(np.tile(np.arange(len(members)), clips.num_rows))
            fits = (
                table.column("key").combine_chunks().equals(keys.take(clip_of))
                and table.column("member").combine_chunks().equals(pa.array(members).take(member_of))
                and table.column("shard").combine_chunks().equals(clips.column("shard").combine_chunks().take(clip_of))
            )
        if not fits:
            raise DatasetError(
                f"{url}: manifest/members.parquet does not belong to manifest/clips.parquet. "
                f"Run: toolkit verify --repair {url}"
            )
        offsets, sizes = (table.column(c).to_numpy().reshape(shape) for c in ("offset", "size"))
        has_crc = "crc32" in table.column_names and table.column("crc32").null_count == 0
        crc32 = table.column("crc32").to_numpy().reshape(shape) if has_crc else None
        return cls(url, keys, shards, members, offsets, sizes, crc32)

    def wanted(self, row: int, member: str) -> Wanted:
        """A member of the clip in ``row``. Raises DatasetError if the dataset has no such member."""
        key = self.keys[row].as_py()
        if member not in self.members:
            raise DatasetError(
                f"{self.url}: no member {member!r} of clip {key!r}; there are: {', '.join(self.members)}"
            )
        at = row, self.members.index(member)
        crc32 = None if self.crc32 is None else int(self.crc32[at])
        return Wanted(self.shards[row].as_py(), key, member, int(self.offsets[at]), int(self.sizes[at]), crc32)


class ShardReader:
    """Reads members out of the shards of a dataset.

    Nothing is open until something is read, and every process opens for itself: safe to pickle and to fork. What is
    read is checked against the tar's own headers, so that a manifest older than its shards is noticed, and against the
    manifest's CRC-32, so that no changed byte gets through. ``gap`` is how many bytes that nobody asked for may lie
    between what is read in one go; less than a block reads no other member. ``timeout`` is for how many seconds a
    server may be silent.
    """

    def __init__(self, url: str, gap: int = GAP, timeout: float = TIMEOUT) -> None:
        self.url, self.gap, self.timeout = url, gap, timeout
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._folder: Folder | None = None
        self._files: OrderedDict[str, BinaryIO] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "gap": self.gap, "timeout": self.timeout}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @property
    def folder(self) -> Folder:
        """The dataset's folder, as this process sees it."""
        if self._pid != os.getpid():
            self._reset()
        if self._folder is None:
            self._folder = Folder(self.url, self.timeout)
        return self._folder

    def close(self) -> None:
        """Close what is open; the next read opens again."""
        while self._files:
            self._files.popitem()[1].close()

    def read(self, wanted: Sequence[Wanted]) -> list[bytes | DatasetError]:
        """The bytes of each member, or the DatasetError (naming shard and member) that says why there are none.

        Members that lie near each other are read in one go, shard by shard, front to back; on a remote filesystem all
        of it at the same time.
        """
        order = sorted(range(len(wanted)), key=lambda i: (wanted[i].shard, wanted[i].offset))
        spans: list[tuple[str, int, int]] = []
        inside: list[list[int]] = []
        for i in order:
            shard, low, high = wanted[i].shard, wanted[i].offset - BLOCKSIZE, wanted[i].offset + wanted[i].size
            if spans and spans[-1][0] == shard and low <= spans[-1][2] + self.gap:
                spans[-1] = shard, spans[-1][1], max(high, spans[-1][2])
                inside[-1].append(i)
            else:
                spans.append((shard, low, high))
                inside.append([i])
        found: list[bytes | DatasetError] = [b""] * len(wanted)
        for (_, low, _), data, indices in zip(spans, self._fetch(spans), inside, strict=True):
            for i in indices:
                found[i] = self._part(wanted[i], data, low)
        return found

    def _fetch(self, spans: Sequence[tuple[str, int, int]]) -> list[bytes | Exception]:
        folder = self.folder
        if folder.is_local:
            return [self._read_local(folder, *span) for span in spans]
        paths = [folder.path(shard) for shard, _, _ in spans]
        found: list[bytes | Exception] = folder.fs.cat_ranges(
            paths, [low for _, low, _ in spans], [high for _, _, high in spans], on_error="return"
        )
        return found

    def _read_local(self, folder: Folder, shard: str, low: int, high: int) -> bytes | Exception:
        try:
            with self._lock:
                file = self._files.pop(shard, None) or folder.open(shard)
                self._files[shard] = file
                if len(self._files) > OPEN_FILES:
                    self._files.popitem(last=False)[1].close()
                file.seek(low)
                return file.read(high - low)
        except OSError as error:
            return error

    def _part(self, wanted: Wanted, data: bytes | Exception, low: int) -> bytes | DatasetError:
        """One member out of the bytes that start at ``low``, checked against its header."""
        where = f"{wanted.shard}: {wanted.name}"
        repair = f"Run: toolkit verify --repair {self.url}"
        if isinstance(data, Exception):
            return _not_read(where, data, repair)
        start = wanted.offset - low
        header, body = data[start - BLOCKSIZE : start], data[start : start + wanted.size]
        if len(header) < BLOCKSIZE or len(body) < wanted.size:
            got = max(len(data) - start, 0)
            return DatasetError(f"{where} is cut short: expected {wanted.size} bytes, found {got}. {repair}")
        name, size = header[:100].rstrip(b"\0"), header[124:135]
        if name != wanted.name.encode() or size != b"%011o" % wanted.size:
            return DatasetError(
                f"{where} is not where the manifest has it: the manifest and its shards are of different builds, or "
                f"damaged. {repair}"
            )
        if wanted.crc32 is not None and zlib.crc32(body) != wanted.crc32:
            return DatasetError(f"{where} is damaged: its bytes are not those that were written. {repair}")
        return body


def _not_read(where: str, error: Exception, repair: str) -> DatasetError:
    if isinstance(error, FileNotFoundError):
        return DatasetError(f"{where}: the shard is missing. {repair}")
    if isinstance(error, TimeoutError):
        return DatasetError(f"{where}: the server stopped answering ({error}). Try again.")
    return DatasetError(f"{where}: cannot be read ({type(error).__name__}: {error}).")


def column_view(wanted: Wanted, data: bytes, spec: ColumnSpec, frames: int | None) -> np.ndarray:
    """A column's array, read-only and without a copy, checked against its spec (``frames`` None: any number of rows).

    Raises DatasetError naming shard and member.
    """
    try:
        dtype, shape, start = _npy_header(data[: 10 + int.from_bytes(data[8:10], "little")])
        array = np.frombuffer(data, dtype, offset=start).reshape(shape)
        spec.check(array, frames=len(array) if frames is None else frames)
    except (AssertionError, ValueError, TypeError) as error:
        raise DatasetError(f"{wanted.shard}: {wanted.name} is damaged: {error}") from error
    return array


@lru_cache(maxsize=4096)
def _npy_header(header: bytes) -> tuple[np.dtype, tuple[int, ...], int]:
    """dtype, shape and where the data starts. Raises ValueError for what ``store.npy`` does not write."""
    if header[:8] != b"\x93NUMPY\x01\x00":
        raise ValueError("not a .npy file of version 1.0")
    try:
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(io.BytesIO(header[8:]))
    except Exception as error:  # numpy's parser raises whatever its tokenizer does
        raise ValueError(f"its .npy header cannot be read ({error})") from error
    if fortran or dtype.hasobject:
        raise ValueError("columns are plain numbers in C order")
    return dtype, shape, len(header)
