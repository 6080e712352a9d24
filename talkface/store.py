"""Files that are whole or absent: atomic writes on any fsspec filesystem, hashes, tables, tars with fixed headers."""

import errno
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.memory import MemoryFileSystem

from talkface.download import PART, whole_file
from talkface.errors import ConfigError, DatasetError, RunError

try:
    import fcntl
except ImportError:  # Windows has no flock; two writers are then not kept apart
    fcntl = None  # type: ignore[assignment]


OURS = re.compile(rf"\..+\.[0-9a-f]{{8}}{re.escape(PART)}")
"""Names of such files: other programs have partial files too."""

CHUNK = 1 << 20

TIMEOUT = 60.0
"""Seconds that a server may be silent."""

PACKS = "packs"
"""Folder of the work units' packs inside a dataset's folder."""


class Folder:
    """A folder on any fsspec filesystem, addressed by relative paths with ``/``.

    A file appears under its name only when it is complete: local files by write, fsync and rename; object stores by
    their own all-or-nothing upload. ``timeout`` is for how many seconds a web server or an object store may be silent.
    """

    def __init__(self, url: str | Path, timeout: float = TIMEOUT) -> None:
        self.url = str(url).rstrip("/") or "/"
        try:
            # A listing that is remembered would hide what other processes have written since.
            how = {"use_listings_cache": False, **_patience(self.url, timeout)}
            self.fs, self.root = fsspec.core.url_to_fs(self.url, **how)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"{self.url}: cannot be reached ({error}). Check the address.") from error
        self.is_local = "file" in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,))

    @property
    def in_memory(self) -> bool:
        """Whether it is seen by this process alone."""
        return isinstance(self.fs, MemoryFileSystem)

    def __repr__(self) -> str:
        return f"Folder({self.url!r})"

    def path(self, name: str) -> str:
        """Full path of ``name`` on the folder's filesystem."""
        return f"{self.root}/{name}" if name else self.root

    def exists(self, name: str = "") -> bool:
        """Whether the file or folder is there."""
        return bool(self.fs.exists(self.path(name)))

    def size(self, name: str) -> int:
        """Size in bytes."""
        return int(self.fs.size(self.path(name)))

    def names(self, folder: str = "", suffix: str = "") -> list[str]:
        """Sorted names of the finished files directly in ``folder`` that end in ``suffix``; empty if there is none."""
        with suppress(FileNotFoundError):
            found = self.fs.ls(self.path(folder), detail=False, refresh=True)
            names = (str(p).rstrip("/").rsplit("/", 1)[-1] for p in found)
            return sorted(n for n in names if n.endswith(suffix) and not n.endswith(PART))
        return []

    def open(self, name: str) -> BinaryIO:
        """Open for reading at random."""
        opened: BinaryIO = self.fs.open(self.path(name), "rb")
        return opened

    def read(self, name: str) -> bytes:
        """The whole file. Raises DatasetError where a server stops answering."""
        try:
            return bytes(self.fs.cat_file(self.path(name)))
        except TimeoutError as error:
            raise DatasetError(f"{self.path(name)}: the server stopped answering ({error}). Try again.") from error

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file atomically."""
        with self.create(name) as file:
            file.write(data)

    @contextmanager
    def create(self, name: str) -> Iterator[IO[bytes]]:
        """A new file that takes its name when the block ends without an error; until then it does not exist.

        Raises RunError when the disk is full.
        """
        try:
            with self._create_local(name) if self.is_local else self._create_remote(name) as file:
                yield file
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise RunError(
                f"{self.path(name)}: the disk is full. Free some space and run the same command again; "
                "finished work is kept."
            ) from error

    @contextmanager
    def _create_local(self, name: str) -> Iterator[IO[bytes]]:
        final = Path(self.path(name))
        with whole_file(final) as file:
            yield file
        sync_folder(final.parent)

    @contextmanager
    def _create_remote(self, name: str) -> Iterator[IO[bytes]]:
        with tempfile.NamedTemporaryFile(suffix=PART) as file:
            yield file
            file.flush()
            self.fs.makedirs(self.path(name).rsplit("/", 1)[0], exist_ok=True)
            self.fs.put_file(file.name, self.path(name))

    def remove(self, name: str) -> None:
        """Remove a file or a folder with all in it; nothing happens if it is not there."""
        with suppress(FileNotFoundError):
            self.fs.rm(self.path(name), recursive=True)

    def sweep(self) -> int:
        """Remove what a crash left half-written; returns how many files."""
        if not self.is_local or not Path(self.root).is_dir():
            return 0
        parts = [p for p in Path(self.root).rglob(f".*{PART}") if OURS.fullmatch(p.name) and p.is_file()]
        for part in parts:
            part.unlink(missing_ok=True)
        return len(parts)

    def free_bytes(self) -> int | None:
        """Free space on a local disk; None elsewhere."""
        if not self.is_local:
            return None
        path = Path(self.root)
        while not path.exists():
            path = path.parent
        return shutil.disk_usage(path).free

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep a second writer out of a local folder; released by the system when this process ends in any way.

        A folder that is empty in the end goes as it came. Raises RunError if another process holds it.
        """
        if not self.is_local or fcntl is None:
            yield
            return
        root = Path(self.root)
        new = [folder for folder in (root, *root.parents) if not folder.exists()]
        try:
            root.mkdir(parents=True, exist_ok=True)
            file = _locked(root / ".lock")
        except BlockingIOError as error:
            raise RunError(f"{self.url}: another toolkit is writing here. Wait for it or stop it.") from error
        except OSError as error:
            raise RunError(f"{self.url}: cannot be written ({error.strerror}). Choose another folder.") from error
        with file:
            try:
                yield
            finally:
                with suppress(OSError):
                    (root / ".lock").unlink()
                    for folder in new:
                        folder.rmdir()


def _locked(path: Path) -> BinaryIO:
    """The file, locked. Raises BlockingIOError if another process holds it."""
    while True:
        file = path.open("wb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                return file
            file.close()
        except FileNotFoundError:
            file.close()  # its holder removed it after it was opened here
        except OSError:
            file.close()
            raise


def _patience(url: str, seconds: float) -> dict[str, Any]:
    """Options for fsspec, which else waits for minutes, and breaks off a long download that goes well."""
    if url.startswith(("http://", "https://")):
        # Only those who read from the web need it.
        import aiohttp  # noqa: PLC0415

        return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(sock_connect=seconds, sock_read=seconds)}}
    if url.startswith("s3://"):
        return {"config_kwargs": {"connect_timeout": seconds, "read_timeout": seconds}}
    return {}


def sync_folder(folder: Path) -> None:
    """Make a rename durable; some filesystems refuse to sync a folder, which is no reason to fail."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sha256_of(*files: BinaryIO) -> str:
    """SHA-256 of the files' contents, one after the other."""
    digest = hashlib.sha256()
    for file in files:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@dataclass(frozen=True)
class Member:
    """Where one member's bytes lie inside a tar, and their CRC-32 (that of zlib, gzip and png)."""

    name: str
    offset: int
    size: int
    crc32: int

    def place(self) -> dict[str, int]:
        """All but its name."""
        return {"offset": self.offset, "size": self.size, "crc32": self.crc32}


class TarWriter:
    """A POSIX tar whose bytes depend on the members alone: time, owner and mode are fixed.

    ``file`` only has to know ``write``. ``bytes`` and ``sha256`` describe what has been written; ``close`` ends the
    archive.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.bytes = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def add(self, name: str, data: bytes) -> Member:
        """Append a member."""
        info = tarfile.TarInfo(name)
        info.size = len(data)
        info.mode = 0o644
        self._write(info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict"))
        member = Member(name, self.bytes, len(data), zlib.crc32(data))
        self._write(data)
        self._write(b"\0" * (-len(data) % tarfile.BLOCKSIZE))
        return member

    def close(self) -> None:
        """Write the end marker."""
        self._write(b"\0" * (2 * tarfile.BLOCKSIZE))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.bytes += len(data)


def tar_members(file: BinaryIO) -> Iterator[tuple[Member, bytes]]:
    """Members of a tar in order, with their bytes.

    Raises DatasetError if the archive is cut short, even at a block boundary where most readers see a normal end.
    """
    end = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                handle = tar.extractfile(info)
                data = handle.read() if handle else b""
                if len(data) != info.size:
                    raise DatasetError(
                        f"{info.name}: expected {info.size} bytes, found {len(data)}: the tar is cut short."
                    )
                end = info.offset_data + info.size + -info.size % tarfile.BLOCKSIZE
                yield Member(info.name, info.offset_data, info.size, zlib.crc32(data)), data
    except tarfile.TarError as error:
        raise DatasetError(f"not a whole tar: {error}.") from error
    file.seek(end)
    if file.read() != b"\0" * (2 * tarfile.BLOCKSIZE):
        raise DatasetError("the tar has no end marker: it is cut short.")


def npy(array: np.ndarray) -> bytes:
    """An array as the bytes of a .npy file (version 1.0, C order)."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def from_npy(data: bytes) -> np.ndarray:
    """The array in the bytes of a .npy file; pickles are refused."""
    array: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def table_bytes(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> bytes:
    """Rows as the bytes of a Parquet file; equal rows give equal bytes."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([dict(r) for r in rows], schema=schema), buffer, compression="zstd")
    return buffer.getvalue()


def read_table(folder: Folder, name: str) -> pa.Table:
    """A Parquet file as a table. Raises DatasetError if it is missing or damaged."""
    try:
        # pq.read_table of a buffer leaves a thread behind that aborts the process when Python ends.
        return pq.ParquetFile(pa.BufferReader(folder.read(name))).read()
    except FileNotFoundError as error:
        raise DatasetError(f"{folder.path(name)}: missing. Is {folder.url} a finished dataset?") from error
    except pa.ArrowInvalid as error:
        raise DatasetError(
            f"{folder.path(name)}: damaged ({error}). Run: toolkit verify --repair {folder.url}"
        ) from error


class PackWriter:
    """One work unit's samples in one tar, and the index that says that the pack is whole.

    ``<name>.tar`` is renamed into place first, ``<name>.json`` after it: a unit is done when its index is there. The
    index repeats what is needed to build shards (clips, rejects, where each member lies), so that building never has
    to search a tar.
    """

    def __init__(self, tar: TarWriter) -> None:
        self._tar = tar
        self._members: dict[str, dict[str, tuple[int, int]]] = {}

    def add(self, key: str, members: Mapping[str, bytes]) -> None:
        """Append one sample; ``members`` maps extension to bytes."""
        assert key not in self._members, f"{key}: twice in one pack"
        placed = {ext: self._tar.add(f"{key}.{ext}", data) for ext, data in members.items()}
        self._members[key] = {ext: (m.offset, m.size) for ext, m in placed.items()}

    def index(self) -> dict[str, Any]:
        return {"bytes": self._tar.bytes, "sha256": self._tar.sha256, "members": self._members}


@contextmanager
def write_pack(folder: Folder, name: str, about: dict[str, Any]) -> Iterator[PackWriter]:
    """Write a pack; ``about`` (read when the block ends) joins the index. Nothing remains of it if the block fails."""
    with folder.create(f"{name}.tar") as file:
        tar = TarWriter(file)
        pack = PackWriter(tar)
        yield pack
        tar.close()
    folder.write(f"{name}.json", json.dumps(about | pack.index(), sort_keys=True, separators=(",", ":")).encode())


def read_pack_index(folder: Folder, name: str) -> dict[str, Any] | None:
    """A finished pack's index, or None if the unit is not done or its tar is gone or has another size."""
    try:
        index: dict[str, Any] = json.loads(folder.read(f"{name}.json"))
        whole = folder.size(f"{name}.tar") == index["bytes"]
    except (FileNotFoundError, ValueError, KeyError):
        return None
    return index if whole else None
