"""A disk that counts what is read from it."""

from typing import Any, ClassVar

import fsspec
from fsspec.implementations.local import LocalFileOpener, LocalFileSystem


class CountingFile(LocalFileOpener):
    """A file that notes which bytes are read."""

    def read(self, length: int = -1) -> bytes:
        """Bytes from where the file is; their place is noted."""
        start = self.tell()
        data: bytes = super().read(length)
        CountingFileSystem.spans.append((str(self.path), start, start + len(data)))
        return data


class CountingFileSystem(LocalFileSystem):
    """The local disk as ``counting://``; not known as local, so that ranges are asked for."""

    protocol = "counting"
    spans: ClassVar[list[tuple[str, int, int]]] = []

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        return CountingFile(path, mode, fs=self) if mode == "rb" else super()._open(path, mode, **options)


def counted() -> list[tuple[str, int, int]]:
    """File, start and end of everything that is read through ``counting://`` from now on."""
    fsspec.register_implementation("counting", CountingFileSystem, clobber=True)
    CountingFileSystem.spans.clear()
    return CountingFileSystem.spans


def bytes_within(places: list[tuple[str, int, int]], spans: list[tuple[str, int, int]]) -> int:
    """How many bytes of places (file's end of path, offset, size) were read."""
    return sum(
        max(0, min(high, offset + size) - max(low, offset))
        for name, offset, size in places
        for path, low, high in spans
        if path.endswith(name)
    )
