"""One square crop for a whole clip, taken from pixels that are seen once.

The best crop is known only when its clip has closed. While the clip is open, a larger square of every frame (the
region) is kept, in memory and then on disk, from which the crop is taken at the end.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import IO, Final

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from talkface.annotate.landmarks import cut_square, halved, shrink
from talkface.config import Pack
from talkface.errors import RunError

WANDER: Final = 4 / 3
"""Side of the region in sides of the first frame's crop: how far a face may wander before its clip ends."""
MARGIN: Final = 1.15
"""The crop's side is at least this many times what the face covers during the clip."""
SNAP: Final = 0.04
"""A crop whose scale differs by less than this from the kept region's is taken as it is, which is the sharpest."""
MEMORY_BYTES: Final = 64 << 20
"""Pictures of open clips beyond this go to disk: at the default size a face takes at most 1.4 MB a frame."""

Box = Float[np.ndarray, " 4"]


@dataclass(frozen=True)
class Covered:
    """What a face covers of the picture during a clip: least and greatest x, y, and the median of its longer side."""

    low: Float[np.ndarray, " 2"]
    high: Float[np.ndarray, " 2"]
    face: float

    @property
    def extent(self) -> float:
        """Longer side of what is covered."""
        return float((self.high - self.low).max())


@dataclass(frozen=True)
class Square:
    """A square in whole pixels."""

    x: int
    y: int
    side: int


class Region:
    """The part of every frame that is kept for a clip, and the crops that fit into it.

    A crop is ``crop_scale`` times the face, or larger if the face moves a lot, but not larger than the picture, and
    inside the picture wherever the face is. ``kept`` is the side of the region as it is kept: it is shrunk if the crop
    would be shrunk anyway.
    """

    def __init__(self, pack: Pack, box: Box, picture: UInt8[np.ndarray, "height width 3"]) -> None:
        self._size, self._crop_scale = pack.video.size, pack.cut.crop_scale
        self._picture = np.array(picture.shape[1::-1])
        crop = self._wanted(self.covered([box]))
        side = min(crop * WANDER, float(max(self._picture.max(), crop)))
        most = round(self._size * side / crop)
        self._times = halved(side, most)
        side = max(2, round(side / self._times)) * self._times
        self.kept = min(side // self._times, most)
        x, y = _inside((box[:2] + box[2:]) / 2 - side / 2, side, self._picture).round()
        self.square = Square(int(x), int(y), side)

    def covered(self, boxes: Sequence[Box | None]) -> Covered:
        """What these boxes cover of the picture."""
        known = np.array([b for b in boxes if b is not None])
        low, high = (np.clip(c, 0, self._picture) for c in (known[:, :2], known[:, 2:]))
        face = np.median((known[:, 2:] - known[:, :2]).max(axis=1))
        return Covered(low.min(axis=0), high.max(axis=0), float(face))

    def holds(self, covered: Covered) -> bool:
        """Whether a crop that holds this, with its margin, lies in the region."""
        origin, side = np.array([self.square.x, self.square.y]), self.square.side
        slack = (MARGIN - 1) / 2 * (covered.high - covered.low)
        low, high = np.maximum(covered.low - slack, 0), np.minimum(covered.high + slack, self._picture)
        return bool((low >= origin).all() and (high <= origin + side).all() and self._wanted(covered) <= side)

    def take(self, rgb: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "kept kept 3"]:
        """The region of a frame, as it is kept; black outside the picture."""
        region = shrink(cut_square(rgb, (self.square.x, self.square.y), self.square.side), self._times)
        if len(region) == self.kept:
            return region
        # At these ratios (below 2) nearer to a Lanczos filter's picture than INTER_AREA, at a quarter of its cost.
        return np.asarray(cv2.resize(region, (self.kept, self.kept), interpolation=cv2.INTER_LINEAR))

    def crop(self, covered: Covered) -> Square:
        """The crop about the middle of what is covered, in pixels of the kept region."""
        ratio = self.kept / self.square.side
        origin = np.array([self.square.x, self.square.y])
        first, last = -origin * ratio, (self._picture - origin) * ratio
        most = min(self.kept, max(int((np.floor(last) - np.ceil(first)).min()), ceil(covered.extent * ratio)))
        side = min(most, ceil(self._wanted(covered) * ratio))
        if abs(side / self._size - 1) < SNAP and covered.extent * ratio <= self._size <= most:
            side = self._size
        corner = ((covered.low + covered.high) / 2 - origin) * ratio - side / 2
        corner = np.ceil(first) + _inside(corner - np.ceil(first), side, np.floor(last) - np.ceil(first))
        x, y = np.clip(np.round(corner), 0, self.kept - side)
        return Square(int(x), int(y), side)

    def matrix(self, crop: Square) -> Float[np.ndarray, "2 3"]:
        """Source pixels to pixels of the crop, at the size that it is written in."""
        scale = self._size / crop.side
        zoom = scale * self.kept / self.square.side
        return np.array([
            [zoom, 0, -self.square.x * zoom - crop.x * scale],
            [0, zoom, -self.square.y * zoom - crop.y * scale],
        ])  # fmt: skip

    def _wanted(self, covered: Covered) -> float:
        """Side of the crop in source pixels."""
        wanted = max(self._crop_scale * covered.face, MARGIN * covered.extent)
        return max(2.0, covered.extent, min(wanted, float(self._picture.min())))


def _inside(corner: np.ndarray, side: float, room: np.ndarray) -> Float[np.ndarray, " 2"]:
    """Where a square goes whose corner should be at ``corner`` so as to lie in ``room``, or to hold it."""
    return np.asarray(np.clip(corner, np.minimum(0, room - side), np.maximum(0, room - side)))


class Spools:
    """Room for the pictures of all open clips: ``memory_bytes`` in memory, the rest in files without a name."""

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self.free_bytes = memory_bytes

    def open(self, side: int) -> "Spool":
        """A new sequence of square RGB pictures."""
        return Spool(self, side)


class Spool:
    """Square RGB pictures of one size, in order. Its room is free again when it is let go."""

    def __init__(self, spools: Spools, side: int) -> None:
        self._spools = spools
        self._shape = (side, side, 3)
        self._bytes = side * side * 3
        self._in_memory: list[UInt8[np.ndarray, "side side 3"]] = []
        self._file: IO[bytes] | None = None

    def __del__(self) -> None:
        self._spools.free_bytes += self._bytes * len(self._in_memory)

    def write(self, picture: UInt8[np.ndarray, "side side 3"]) -> None:
        """Add a picture; it must not change afterwards. Raises RunError when the disk is full."""
        assert picture.shape == self._shape, f"expected {self._shape}, got {picture.shape}"
        if self._file is None and self._spools.free_bytes >= self._bytes:
            self._spools.free_bytes -= self._bytes
            self._in_memory.append(picture if picture.flags.owndata else picture.copy())
            return
        try:
            self._file = self._file or tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (lives as long as the clip)
            left = picture.data.cast("B")
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            where = tempfile.gettempdir()
            raise RunError(f"{where}: {error.strerror}. Make room there, or set TMPDIR to a larger disk.") from error

    def read(self, index: int) -> UInt8[np.ndarray, "side side 3"]:
        """The picture written as number ``index``."""
        if index < len(self._in_memory):
            return self._in_memory[index]
        assert self._file is not None, f"picture {index} of {len(self._in_memory)}"
        self._file.seek((index - len(self._in_memory)) * self._bytes)
        return np.frombuffer(self._file.read(self._bytes), np.uint8).reshape(self._shape)


@dataclass(frozen=True)
class Crops:
    """The crops of a clip, made from its spool one at a time, as often as wanted."""

    spool: Spool
    frames: int
    square: Square
    size: int
    first: int = 0

    def part(self, start: int, end: int) -> "Crops":
        """Those from number ``start`` up to ``end``."""
        return replace(self, first=self.first + start, frames=end - start)

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "size size 3"]]:
        at, how = self.square, cv2.INTER_LINEAR if self.square.side > self.size else cv2.INTER_CUBIC
        for index in range(self.first, self.first + self.frames):
            part = self.spool.read(index)[at.y : at.y + at.side, at.x : at.x + at.side]
            if at.side != self.size:
                part = cv2.resize(part, (self.size, self.size), interpolation=how)
            yield np.ascontiguousarray(part)
