"""Random access to the frames of a clip in memory."""

import io
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import Int64, UInt8

from talkface.media.container import Clock
from talkface.media.picture import ToRGB

try:
    import decord
except ImportError:
    decord = None


class ClipFrames:
    """Frames of an H.264 clip made by ``VideoWriter``, by index, from its bytes (or a path).

    Uses decord where it has a wheel and PyAV elsewhere; ``backend`` forces one of ``decord`` and ``av``. Not made to be
    pickled or shared between threads.
    """

    def __init__(self, data: bytes | str | Path, *, backend: str | None = None) -> None:
        self._data = data if isinstance(data, bytes) else Path(data).read_bytes()
        backend = backend or ("av" if decord is None else "decord")
        self._get = {"decord": self._get_decord, "av": self._get_av}[backend]

    def __len__(self) -> int:
        return len(self.pts_ns)

    def get(self, indices: Sequence[int] | np.ndarray) -> UInt8[np.ndarray, "n height width 3"]:
        """RGB frames at ``indices``, in the order given. Raises IndexError for one that is not there."""
        wanted = [int(i) for i in indices]
        if wanted and not 0 <= min(wanted) <= max(wanted) < len(self):
            raise IndexError(f"frame {min(wanted)} to {max(wanted)} of a clip of {len(self)}")
        return self._get(wanted) if wanted else np.zeros((0, *self._shape, 3), np.uint8)

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Every frame, RGB, in order, one in memory at a time."""
        to_rgb = ToRGB()
        with self._open() as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for frame in container.decode(stream):
                yield to_rgb(frame)

    @cached_property
    def pts_ns(self) -> Int64[np.ndarray, " frames"]:
        """Presentation times as the file has them (microseconds in ns); ``pts.npy`` is exact."""
        with self._open() as container:
            stream = container.streams.video[0]
            clock = _file_clock(stream)
            ticks = sorted(p.pts for p in container.demux(stream) if p.pts is not None and not p.is_discard)
        return np.array([clock.ns(t) for t in ticks], np.int64)

    @cached_property
    def _shape(self) -> tuple[int, int]:
        with self._open() as container:
            context = container.streams.video[0].codec_context
            return context.height, context.width

    def _open(self) -> Any:
        return av.open(io.BytesIO(self._data))

    @cached_property
    def _decord(self) -> Any:
        return decord.VideoReader(io.BytesIO(self._data), ctx=decord.cpu(0), num_threads=1)

    def _get_decord(self, wanted: list[int]) -> np.ndarray:
        frames: np.ndarray = self._decord.get_batch(wanted).asnumpy()
        return frames

    def _get_av(self, wanted: list[int]) -> np.ndarray:
        out = np.empty((len(wanted), *self._shape, 3), np.uint8)
        places: dict[int, list[int]] = {}
        for place, index in enumerate(wanted):
            places.setdefault(index, []).append(place)
        with self._open() as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            clock, to_rgb = _file_clock(stream), ToRGB()
            index_of = {int(t): i for i, t in enumerate(self.pts_ns)}
            container.seek(clock.ticks(int(self.pts_ns[min(wanted)])), stream=stream)
            for frame in container.decode(stream):
                index = index_of[clock.ns(frame.pts)]
                if index in places:
                    out[places[index]] = to_rgb(frame)
                if index >= max(wanted):
                    break
        return out


def _file_clock(stream: Any) -> Clock:
    """The clock of our own clips: 0 is where the writer's was, wherever the first frame starts."""
    return Clock(stream.time_base, Fraction(0))
