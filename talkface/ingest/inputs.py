"""What a user names as input, turned into files: folders, globs, single files, lists, urls. Opens no video."""

import csv
import glob
import hashlib
import io
import json
import math
import os
import posixpath
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from http.client import HTTPException
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO, Final
from zipfile import BadZipFile

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from talkface.clip import Reject
from talkface.errors import ConfigError, SourceError, StorageError
from talkface.media import may_pass, plain_errors
from talkface.store import CHUNK

VIDEO_ENDINGS: Final = frozenset((
    ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpe",
    ".mpeg", ".mpg", ".mts", ".mxf", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv",
))  # fmt: skip
"""Endings, in lower case, of the files that a folder is searched for."""

LIST_ENDINGS: Final = frozenset((".csv", ".jsonl", ".parquet"))

LIST_COLUMNS: Final = frozenset(
    ("path", "uri", "audio", "speaker", "emotion", "intensity", "camera", "language", "licence")
)

TIMEOUT_SECONDS: Final = 30

READ_AGAIN_SECONDS: Final = (0.5, 4.0)
"""A source that could not be read, perhaps by its storage's fault, is read again after these."""

ACCESS_ERRORS: Final = (OSError, ValueError, ImportError, BadZipFile)
"""What file systems raise for what cannot be reached: a missing driver and an unknown protocol are among them."""


@dataclass(frozen=True)
class Found:
    """A file to look at: where it is, its name below the input, and its row if a list named it."""

    uri: str
    name: str
    row: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Input:
    """Files of an input. ``root`` is the folder that names are below, ``ignored`` counts files that are not videos.

    ``chain`` is what follows the path in the url of an archive's content (``::/data/raw.zip``).
    """

    root: str
    found: Sequence[Found]
    rejects: Sequence[Reject] = ()
    ignored: int = 0
    chain: str = ""


def expand(inputs: Sequence[str], but: str | None = None) -> list[Input]:
    """One `Input` for each folder, glob and list, and one for all single files together, which comes first.

    What lies in the folder ``but`` is left out. What is not there or may not be read is among the rejects. Raises
    ConfigError for a list that cannot be used.
    """
    single = [text for text in inputs if _is_single(text)]
    expanded = [_files(single)] if single else []
    expanded += [_expand(text) for text in dict.fromkeys(inputs) if text not in single]
    return expanded if but is None else [_without(group, _absolute(but).rstrip("/") + "/") for group in expanded]


def _without(group: Input, folder: str) -> Input:
    return replace(group, found=[f for f in group.found if not f.uri.startswith(folder)])


def is_url(text: str) -> bool:
    """Whether this is a url, not a path of this machine."""
    return "://" in text


@contextmanager
def open_binary(uri: str) -> Iterator[BinaryIO]:
    """Open a path or url for reading from its start. Raises one of ``ACCESS_ERRORS``."""
    if uri.startswith(("http://", "https://")):
        with urllib.request.urlopen(uri, timeout=TIMEOUT_SECONDS) as response:
            yield response
    elif not is_url(uri):
        with Path(uri).open("rb") as file:
            yield file
    else:
        # `fsspec.open` keeps the file system alive with the file: an archive closes when its own is collected.
        with plain_errors(), fsspec.open(uri, "rb") as file:
            # The memory file system hands every caller the same object, position included.
            yield io.BytesIO(file.getbuffer()) if isinstance(file, io.BytesIO) else file


def content_of(uris: Iterable[str]) -> tuple[str, int]:
    """SHA-256 of the files one after the other, and the size of the first in bytes.

    Raises SourceError; StorageError where another try may do better.
    """
    digest, sizes = hashlib.sha256(), []
    for uri in uris:
        size = 0
        try:
            with open_binary(uri) as file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
        except HTTPException as error:
            raise StorageError(f"{uri}: cannot be read now ({error!r}). Check the network.") from error
        except ACCESS_ERRORS as error:
            kind = StorageError if may_pass(error) else SourceError
            raise kind(f"{uri}: cannot be read ({error}). Check permissions and storage.") from error
        sizes.append(size)
    return digest.hexdigest(), sizes[0]


def exists(uri: str) -> bool:
    """Whether there is a file at this path or url; of the web and of what cannot be reached, no."""
    if uri.startswith(("http://", "https://")):
        return False
    if not is_url(uri):
        return Path(uri).is_file()
    try:
        with plain_errors():
            filesystem, path = url_to_fs(uri)
            return bool(filesystem.isfile(path))
    except ACCESS_ERRORS:
        return False


def split_chain(uri: str) -> tuple[str, str]:
    """A url's own part, and from ``::`` on the archive that it lies in; of a path, the whole and nothing."""
    if not is_url(uri):
        return uri, ""
    own, chain, rest = uri.partition("::")
    return own, chain + rest


def _path_of(uri: str) -> str:
    """A path as it is, a url without chain and, on the web, without query."""
    own = split_chain(uri)[0]
    return own.partition("?")[0] if own.startswith(("http://", "https://")) else own


def _ending(uri: str) -> str:
    return posixpath.splitext(_path_of(uri))[1].lower()


def _is_single(text: str) -> bool:
    """Whether a text names one media file: not a list, not a folder, not a glob."""
    if _ending(text) in LIST_ENDINGS and not Path(text).is_dir():
        return False
    if text.startswith(("http://", "https://")):
        return True
    if not is_url(text):
        return not Path(text).is_dir() and (os.path.lexists(text) or not glob.has_magic(text))
    try:
        with plain_errors():
            filesystem, path = url_to_fs(text)
            return not glob.has_magic(path) and not filesystem.isdir(path)
    except ACCESS_ERRORS:
        return True


def _expand(text: str) -> Input:
    if not is_url(text) and Path(text).is_dir():
        return _folder(_absolute(text))
    if _ending(text) in LIST_ENDINGS:
        return _list(text)
    return _remote(text) if is_url(text) else _glob(text)


def _absolute(text: str) -> str:
    """Absolute and without ``..``, but links stay links."""
    if is_url(text):
        return text
    return Path(os.path.abspath(Path(text).expanduser())).as_posix()  # noqa: PTH100 (resolve() would follow links)


def _files(texts: Iterable[str]) -> Input:
    uris = sorted({_absolute(text) for text in texts})
    root = _common_folder(uris)
    return Input(root=root, found=[Found(uri, _below(root, uri)) for uri in uris])


def _common_folder(uris: Sequence[str]) -> str:
    """The deepest folder that all lie in."""
    parts = [_path_of(uri).split("/")[:-1] for uri in uris]
    levels = takewhile(lambda level: len(set(level)) == 1, zip(*parts, strict=False))
    return "/".join(level[0] for level in levels)


def _below(root: str, uri: str) -> str:
    """The part of a uri below ``root``, without what only urls have."""
    return _path_of(uri).removeprefix(root).lstrip("/")


def _folder(root: str) -> Input:
    """All videos below a local folder, by name. Links are followed, each folder once."""
    found: list[Found] = []
    rejects: list[Reject] = []
    ignored = 0

    def refuse(error: OSError) -> None:
        name = _below(root, Path(error.filename).as_posix()) or Path(root).name
        why = f"{error.filename}: this folder cannot be read ({error.strerror}). Check its permissions."
        rejects.append(Reject(stage="scan", reason="unreadable", source=name, message=why))

    seen = set()
    for folder, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        place = Path(folder).stat()
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        if (place.st_dev, place.st_ino) in seen:
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        videos = [n for n in names if _ending(n) in VIDEO_ENDINGS and not n.startswith(".")]
        ignored += len(names) - len(videos)
        paths = [(Path(folder) / n).as_posix() for n in videos]
        found += [Found(path, _below(root, path)) for path in paths]
    return Input(root=root, found=sorted(found, key=lambda f: f.name), rejects=rejects, ignored=ignored)


def _glob(text: str) -> Input:
    """Files that a pattern matches; ``**`` goes into folders. Folders it matches are searched."""
    pattern = _absolute(text)
    parts = pattern.split("/")
    first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root = "/".join(parts[:first]) or "/"
    matches = [Path(m).as_posix() for m in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207
    if not matches:
        message = f"{text}: nothing matches this pattern. Check it."
        return Input(
            root=root, found=(), rejects=[Reject(stage="scan", reason="missing", source=text, message=message)]
        )
    wanted = VIDEO_ENDINGS | {_ending(parts[-1])}
    inside = [_folder(m) for m in matches if Path(m).is_dir()]
    files = [m for m in matches if not Path(m).is_dir()]
    uris = {m for m in files if _ending(m) in wanted} | {f.uri for i in inside for f in i.found}
    return Input(
        root=root,
        found=sorted((Found(uri, _below(root, uri)) for uri in uris), key=lambda f: f.name),
        rejects=[r for i in inside for r in i.rejects],
        ignored=sum(_ending(m) not in wanted for m in files) + sum(i.ignored for i in inside),
    )


def _remote(text: str) -> Input:
    """All videos below a folder, or matched by a pattern, of a file system that fsspec knows."""
    filesystem, path = url_to_fs(text)
    is_pattern = glob.has_magic(path)
    try:
        with plain_errors():
            names = sorted(filesystem.glob(path) if is_pattern else filesystem.find(path))
    except ACCESS_ERRORS as error:
        message = f"{text}: cannot be listed ({error}). Check the address and your access."
        reason = "storage" if may_pass(error) else "unreadable"
        return Input(root=text, found=(), rejects=[Reject(stage="scan", reason=reason, source=text, message=message)])
    scheme, chain = text.split("://", 1)[0], split_chain(text)[1]
    uris = [f"{scheme}://{name}{chain}" if chain else filesystem.unstrip_protocol(name) for name in names]
    videos = [uri for uri in uris if _ending(uri) in VIDEO_ENDINGS]
    base = path.rstrip("/") if not is_pattern else _common_folder([*names, path]) if names else path
    root = f"{scheme}://{base}" if chain else filesystem.unstrip_protocol(base)
    found = [Found(uri, _below(root, uri)) for uri in videos]
    return Input(root=root, found=sorted(found, key=lambda f: f.name), ignored=len(uris) - len(videos), chain=chain)


def _list(text: str) -> Input:
    """The files of a CSV, JSON lines or Parquet list, with its labels; paths are relative to the list."""
    where = _absolute(text)
    folder = where.rpartition("/")[0]
    rows = list(_rows(text, where))
    column = "path" if any("path" in row for row in rows) else "uri"
    if missing := next((i for i, row in enumerate(rows, 1) if not row.get(column)), None):
        raise ConfigError(f"{text}: row {missing} has no path. A list needs a column named path (or uri).")
    pairs = [(_within(folder, row[column]), row) for row in rows]
    uris = [uri for uri, _ in pairs]
    root = folder if all(uri.startswith(f"{folder}/") for uri in uris) else _common_folder(uris)
    found = []
    for uri, row in pairs:
        audio = {"audio": _within(folder, row["audio"])} if row.get("audio") else {}
        found.append(Found(uri, _below(root, uri), {**row, **audio}))
    return Input(root=root, found=sorted(found, key=lambda f: f.name))


def _within(folder: str, path: str) -> str:
    if is_url(path) or Path(path).is_absolute():
        return _absolute(path)
    return posixpath.join(folder, path) if is_url(folder) else _absolute(posixpath.join(folder, path))


def _rows(text: str, where: str) -> Iterator[dict[str, str]]:
    """Rows as text by known column, empty cells left out. Raises ConfigError if the list cannot be read."""
    try:
        with open_binary(where) as file:
            rows = _parse(_ending(where), file.read())
    except (*ACCESS_ERRORS, csv.Error, pa.ArrowException) as error:
        raise ConfigError(f"{text}: not a list that can be read ({error}). Check the file.") from error
    for row in rows:
        cells = {str(k).strip().lower(): v for k, v in row.items() if k is not None}
        yield {k: _text(v) for k, v in cells.items() if k in LIST_COLUMNS and v is not None and _text(v)}


def _text(value: Any) -> str:
    """A cell as text; a whole number that a table holds as a float loses its point, NaN is empty."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    if isinstance(value, float | Decimal):
        return "" if math.isnan(value) else str(int(value)) if value % 1 == 0 else str(value)
    return str(value).strip()


def _parse(ending: str, data: bytes) -> list[dict[str, Any]]:
    if ending == ".parquet":
        rows: list[dict[str, Any]] = pq.ParquetFile(pa.BufferReader(data)).read().to_pylist()
        return rows
    text = data.decode("utf-8-sig")
    if ending == ".csv":
        return list(csv.DictReader(io.StringIO(text, newline="")))
    parsed = [json.loads(line) for line in text.splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in parsed):
        raise ValueError("every line must be an object")
    return parsed
