"""Decoding pictures in presentation order on the source clock."""

from bisect import insort
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import Any, Self, cast

import av
import av.error
import cv2
import numpy as np
from av.container import InputContainer
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, VideoReformatter
from jaxtyping import UInt8

from talkface.clip import NS
from talkface.media.container import Clock, clock_of, may_pass, open_media, pixel_aspect, read_only, require_picture

_MARGINS_NS = (NS // 2, 5 * NS, 60 * NS)
"""How far before a start to seek, tried in turn: some containers seek by decoding time, or land late."""
_REORDER = 4
"""How many frames wait so that timestamps out of order can be sorted; all but AVI have none."""
Timed = Generator[tuple[int, VideoFrame], None, int]
_MATRICES = {1: Colorspace.ITU709, 4: Colorspace.FCC, 5: Colorspace.ITU601, 6: Colorspace.ITU601,
             7: Colorspace.SMPTE240M, 9: Colorspace.BT2020, 10: Colorspace.BT2020}  # fmt: skip
"""AVColorSpace to the matrix that swscale applies."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture: presentation time on the source clock, and RGB pixels, upright and C-contiguous."""

    pts_ns: int
    rgb: UInt8[np.ndarray, "height width 3"]


class VideoReader:
    """Frames of a source with ``start_ns <= pts_ns < end_ns``, in presentation order, times strictly rising.

    Iterate it once; the container closes at the end of the iteration, on ``close`` and on leaving a ``with`` block.
    Rotation flags are applied, and pixels that are not square are made so: the width changes. If the size changes on
    the way, later frames are scaled to the first one's size. Timestamps out of order are sorted, a missing one is a
    frame's length after the one before, and a frame whose timestamp was there already is dropped.

    ``broken_packets`` counts packets that could not be decoded and frames that were damaged; both are left out.
    ``bad_timestamps`` counts frames whose timestamp was missing, out of order or there already.
    ``frame_duration_ns`` is how long the last frame that was read stays on screen.

    Raises MediaError with the reasons of ``probe``.
    """

    def __init__(self, uri: str, *, start_ns: int = 0, end_ns: int | None = None) -> None:
        self.uri = uri
        self.start_ns = start_ns
        self.end_ns = end_ns
        self.broken_packets = 0
        self.bad_timestamps = 0
        self.frame_duration_ns = 0
        self._before: tuple[int, int] | None = None
        self._aspect = Fraction(1)
        self._frames = self._read()

    def __iter__(self) -> Iterator[Frame]:
        return self._frames

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the container; the iteration ends."""
        self._frames.close()

    def _read(self) -> Generator[Frame, None, None]:
        to_rgb: ToRGB | None = None
        with closing(self._pictures()) as pictures:
            for pts_ns, picture in pictures:
                to_rgb = to_rgb or ToRGB(self._aspect)
                if self.end_ns is not None and pts_ns >= self.end_ns:
                    return
                if pts_ns >= self.start_ns:
                    yield Frame(pts_ns, to_rgb(picture))

    def _pictures(self) -> Generator[tuple[int, VideoFrame], None, None]:
        """Decoded frames with rising times, the first of them not after ``start_ns`` unless the source starts later."""
        for margin_ns in [m for m in _MARGINS_NS if m < self.start_ns] + [None]:
            with open_media(self.uri) as container:
                stream = require_picture(self.uri, container)
                self._aspect = pixel_aspect(stream)
                read_only(container, stream)
                clock = clock_of(container, stream)
                if margin_ns is not None and not seek(container, stream, clock.ticks(self.start_ns - margin_ns)):
                    continue
                self.broken_packets = self.bad_timestamps = 0
                self._before = None
                self.frame_duration_ns = _header_duration_ns(stream)
                pictures = self._in_time(self._decode(container, stream), clock)
                first = next(pictures, None)
                if first is not None and (margin_ns is None or first[0] <= self.start_ns):
                    yield first
                    yield from pictures
                    return

    def _decode(self, container: InputContainer, stream: Stream) -> Iterator[VideoFrame]:
        for packet in packets(container, stream):
            if packet is None:
                self.broken_packets += 1
                continue
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                self.broken_packets += 1
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self.broken_packets += 1
                else:
                    yield frame

    def _in_time(self, frames: Iterator[VideoFrame], clock: Clock) -> Iterator[tuple[int, VideoFrame]]:
        """Give each frame its time. Decoders put frames in order even where the container's timestamps are not (AVI
        stamps B-frames in decoding order), so the oldest of the waiting frames takes the earliest waiting time."""
        waiting: deque[tuple[int, VideoFrame]] = deque()
        stamps: list[int] = []
        last = -(1 << 62)
        for frame in frames:
            stamp = self._stamp(frame, clock, max(stamps, default=last))
            if stamp <= last or stamp in stamps:
                self.bad_timestamps += 1
                continue
            waiting.append((stamp, frame))
            insort(stamps, stamp)
            if len(waiting) > _REORDER:
                last = yield from self._oldest(waiting, stamps)
        while waiting:
            yield from self._oldest(waiting, stamps)

    def _oldest(self, waiting: deque[tuple[int, VideoFrame]], stamps: list[int]) -> Timed:
        (own, frame), pts_ns = waiting.popleft(), stamps.pop(0)
        self.bad_timestamps += own != pts_ns
        self._measure(frame, pts_ns)
        yield pts_ns, frame
        return pts_ns

    def _stamp(self, frame: VideoFrame, clock: Clock, latest: int) -> int:
        if frame.pts is not None:
            return clock.ns(frame.pts)
        self.bad_timestamps += 1
        return clock.ns(frame.dts) if frame.dts is not None else max(latest, 0) + self.frame_duration_ns

    def _measure(self, frame: VideoFrame, pts_ns: int) -> None:
        """A container's word for a frame's length counts where it was right for the frame before."""
        stated = round(frame.duration * (frame.time_base or 0) * NS)
        if self._before is not None:
            before_ns, before_stated = self._before
            step = pts_ns - before_ns
            self.frame_duration_ns = stated if stated and abs(before_stated - step) <= step // 10 else step
        elif stated:
            self.frame_duration_ns = stated
        self._before = pts_ns, stated


def packets(container: InputContainer, stream: Stream, patience: int = 100) -> Iterator[Any]:
    """Packets of one stream; None for each that the demuxer could not read. Gives up after ``patience`` in a row.

    Raises what storage and network raise: the file may be whole.
    """
    failures = 0
    while failures < patience:
        try:
            for packet in container.demux(stream):
                failures = 0
                yield packet
            return
        except av.error.FFmpegError as error:
            if may_pass(error):
                raise
            failures += 1
            yield None


def seek(container: InputContainer, stream: Stream, ticks: int) -> bool:
    """Go to the key frame before a timestamp; false if the container cannot."""
    try:
        container.seek(ticks, stream=stream)
    except av.error.FFmpegError:
        return False
    return True


def _header_duration_ns(stream: Stream) -> int:
    rate = stream.average_rate or stream.guessed_rate
    return round(NS / rate) if rate else NS // 25


class ToRGB:
    """Decoded frame to upright RGB with square pixels, all of the size of the first.

    ``aspect`` is the width of a stored pixel over its height.
    """

    def __init__(self, aspect: Fraction = Fraction(1)) -> None:
        self._aspect = aspect
        self._reformatter = VideoReformatter()
        self._size: tuple[int, int] | None = None
        self._turn: Turn | None = None

    def __call__(self, frame: VideoFrame) -> UInt8[np.ndarray, "height width 3"]:
        if self._size is None or frame.key_frame:
            # Not of every frame: asking ties a frame into a reference cycle, and hundreds would wait for the collector.
            self._turn = _display_matrix(frame)
        rgb = self._reformatter.reformat(
            frame,
            width=round(frame.width * self._aspect),
            format="rgb24",
            src_colorspace=_matrix(frame),
            threads=1,
        ).to_ndarray()
        rgb = _upright(rgb, self._turn)
        self._size = self._size or (rgb.shape[1], rgb.shape[0])
        if (rgb.shape[1], rgb.shape[0]) != self._size:
            rgb = cv2.resize(rgb, self._size, interpolation=cv2.INTER_AREA)
        return np.ascontiguousarray(rgb)


def _matrix(frame: VideoFrame) -> Colorspace:
    """The stated colour matrix, else what players take: BT.709 for high definition and BT.601 below."""
    if frame.colorspace in _MATRICES:
        return _MATRICES[frame.colorspace]
    return Colorspace.ITU709 if frame.height > 576 or frame.width >= 1280 else Colorspace.ITU601


Turn = tuple[int, int, int, int]
"""a, b, c, d of a display matrix: pixel (p, q) goes to (a p + c q, b p + d q)."""


def _display_matrix(frame: VideoFrame) -> Turn | None:
    side = frame.side_data.get("DISPLAYMATRIX")
    if side is None:
        return None
    a, b, _, c, d = np.frombuffer(cast("Any", side), np.int32)[:5].tolist()
    return a, b, c, d


def _upright(rgb: np.ndarray, turn: Turn | None) -> np.ndarray:
    """Apply a display matrix, in quarter turns and flips."""
    if turn is None:
        return rgb
    a, b, c, d = turn
    if abs(b) > abs(a):
        rgb, a, d = cv2.transpose(rgb), c, b
    if a >= 0 and d >= 0:
        return rgb
    return np.asarray(cv2.flip(rgb, -1 if a < 0 and d < 0 else int(a < 0)))
