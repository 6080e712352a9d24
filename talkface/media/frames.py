"""Random access to the frames of a clip in memory."""

import io
from bisect import bisect_right
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

    Uses decord where it has a wheel and PyAV elsewhere; ``backend`` forces one of ``decord`` and ``av``. The decoder
    stays open until `close`, and goes on where it stands if the next frames come soon after. Not made to be pickled or
    shared between threads.
    """

    def __init__(self, data: bytes | str | Path, *, backend: str | None = None) -> None:
        self._data = data if isinstance(data, bytes) else Path(data).read_bytes()
        backend = backend or ("av" if decord is None else "decord")
        self._get = {"decord": self._get_decord, "av": self._get_av}[backend]
        self._running: _Running | None = None

    def __len__(self) -> int:
        return len(self._index.ticks)

    def get(self, indices: Sequence[int] | np.ndarray) -> UInt8[np.ndarray, "n height width 3"]:
        """RGB frames at ``indices``, in the order given. Raises IndexError for one that is not there."""
        wanted = self._checked(indices)
        return self._get(wanted) if wanted else np.zeros((0, *self._shape, 3), np.uint8)

    def each(self, indices: Sequence[int] | np.ndarray) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """RGB frames at rising ``indices``, by PyAV, one in memory at a time. Raises as `get`."""
        return (picture for _, picture in self._decoded(self._checked(indices)))

    def close(self) -> None:
        """Let go of the decoder; the next `get` opens it again."""
        if self._running is not None:
            self._running.container.close()
            self._running = None

    def _checked(self, indices: Sequence[int] | np.ndarray) -> list[int]:
        wanted = [int(i) for i in indices]
        if wanted and not 0 <= min(wanted) <= max(wanted) < len(self):
            raise IndexError(f"frame {min(wanted)} to {max(wanted)} of a clip of {len(self)}")
        return wanted

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
        clock = self._index.clock
        return np.array([clock.ns(t) for t in self._index.ticks], np.int64)

    @cached_property
    def _index(self) -> "_Index":
        if self._running is None:
            self._running = _Running(self._open())  # opening a file takes as long as decoding two of its frames
        try:
            return self._running.index()
        except Exception:
            self.close()
            raise

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
        for index, picture in self._decoded(sorted(places)):
            out[places[index]] = picture
        return out

    def _decoded(self, wanted: list[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "height width 3"]]]:
        """Index and picture of each of the frames at rising indices."""
        try:
            for index in wanted:
                yield index, self._decoder_at(index).picture(index, self._index)
        except Exception:
            self.close()  # nobody knows where it stands
            raise

    def _decoder_at(self, first: int) -> "_Running":
        """A decoder whose next frame is ``first``, or comes before it with no key frame between them."""
        if self._running is None:
            self._running = _Running(self._open())
        if not self._index.key_before(first) <= self._running.next <= first:
            self._running.seek(self._index.ticks[first], first)
        return self._running


class _Index:
    """The frames of a file in the order of their times: ticks, and which are key frames."""

    def __init__(self, clock: Clock, frames: list[tuple[int, bool]]) -> None:
        self.clock = clock
        self.ticks = [ticks for ticks, _ in frames]
        self.of = {ticks: i for i, ticks in enumerate(self.ticks)}
        self._keys = [i for i, (_, is_key) in enumerate(frames) if is_key]

    def key_before(self, index: int) -> int:
        """The last key frame that is not after a frame; the first frame if there is none."""
        at = bisect_right(self._keys, index)
        return self._keys[at - 1] if at else 0


class _Running:
    """An open decoder: ``next`` is the index of the frame that it gives next."""

    def __init__(self, container: Any) -> None:
        self.container, self.to_rgb, self.next = container, ToRGB(), 0
        self._stream = container.streams.video[0]
        self._stream.codec_context.thread_count = 1
        self._frames = container.decode(self._stream)

    def index(self) -> _Index:
        """All frames of the file, from its packets; it has to seek after that."""
        self.next = -1
        packets = self.container.demux(self._stream)
        found = [(p.pts, p.is_keyframe) for p in packets if p.pts is not None and not p.is_discard]
        return _Index(_file_clock(self._stream), sorted(found))

    def seek(self, ticks: int, index: int) -> None:
        """Go to the key frame before a frame."""
        self.container.seek(ticks, stream=self._stream)
        self._frames, self.next = self.container.decode(self._stream), index

    def picture(self, wanted: int, index: _Index) -> UInt8[np.ndarray, "height width 3"]:
        """The frame with an index, RGB; what comes before it is passed over. Raises ValueError if it never comes."""
        for frame in self._frames:
            at = index.of[frame.pts]
            self.next = at + 1
            if at == wanted:
                return self.to_rgb(frame)
        raise ValueError(f"frame {wanted} cannot be decoded")


def _file_clock(stream: Any) -> Clock:
    """The clock of our own clips: 0 is where the writer's was, wherever the first frame starts."""
    return Clock(stream.time_base, Fraction(0))
