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

from talkface.progress import advance, bar

PART: Final = ".part"
"""Ending of a file that is being written. A crash may leave one behind."""

CHUNK: Final = 1 << 18
TIMEOUT_SECONDS: Final = 20
TRIES: Final = 3


@contextmanager
def whole_file(final: Path) -> Iterator[BinaryIO]:
    """A new file that takes its name when the block ends without an error; otherwise nothing is left of it."""
    final.parent.mkdir(parents=True, exist_ok=True)
    part = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}{PART}")
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
    with bar(Path(url).name, size, "B", unit_scale=True) as shown:
        for left in reversed(range(TRIES)):
            try:
                for _ in _chunks(url, file):
                    advance(shown, file.tell())
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
