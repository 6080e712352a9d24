"""Fetching a file over the network, and files that appear only when they are whole."""

import os
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO, Final
from urllib.error import HTTPError

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

CHUNK: Final = 1 << 18
TIMEOUT_SECONDS: Final = 20
TRIES: Final = 3


@contextmanager
def whole_file(final: Path) -> Iterator[BinaryIO]:
    """A new file that takes its name when the block ends without an error; otherwise nothing is left of it."""
    final.parent.mkdir(parents=True, exist_ok=True)
    part = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with part.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(final)
    finally:
        part.unlink(missing_ok=True)


def fetch(url: str, size: int, file: BinaryIO) -> None:
    """Download into ``file``, going on where a connection broke off, ``TRIES`` times in all."""
    with _bar() as bar:
        task = bar.add_task(Path(url).name, total=size or None)
        for left in reversed(range(TRIES)):
            try:
                for _ in _chunks(url, file):
                    bar.update(task, completed=file.tell())
            except HTTPError:
                raise
            except (OSError, HTTPException):
                if not left:
                    raise
            else:
                return


def _chunks(url: str, file: BinaryIO) -> Iterator[int]:
    """Write what follows the bytes already in ``file``, yielding after each chunk. Raises OSError if it breaks off."""
    start = file.tell()
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        if start and response.status != HTTPStatus.PARTIAL_CONTENT:
            file.seek(0)
            file.truncate()
            start = 0
        while chunk := response.read(CHUNK):
            file.write(chunk)
            yield len(chunk)
        expected = response.headers.get("Content-Length")
    if expected is not None and file.tell() != start + int(expected):
        raise OSError(f"the connection closed after {file.tell()} of {start + int(expected)} bytes")


def _bar() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
