"""Encoding pictures as H.264 in mp4 with their original timestamps."""

import io
import os
import shutil
import tempfile
from collections.abc import Mapping
from fractions import Fraction
from types import TracebackType
from typing import IO, Any, BinaryIO, Self

import av
import cv2
import numpy as np
from av.codec.context import Flags
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from jaxtyping import Int16, UInt8

from talkface.clip import NS, ns_to_samples
from talkface.media.flac import sound_frame
from talkface.vocab import SAMPLE_RATE

TICKS = 1_000_000
"""Timestamps in our mp4 files are whole microseconds."""

IN_MEMORY = 16 << 20
"""Bytes of a file that are kept in memory while it is written; a longer one goes to a temporary file."""
COPIED = 1 << 20

_DEFAULT_NS = NS // 25
_AAC_BITS = 96_000
_MUXER = {
    "fflags": "+bitexact",
    "movflags": "+faststart",
    "movie_timescale": str(TICKS),
    "video_track_timescale": str(TICKS),
}
_X264 = "scenecut=0:keyint=infinite:bframes=0:mbtree=0:rc-lookahead=0:sync-lookahead=0"
"""No macroblock tree: with it one in thirty encodings of a small picture differs, even on one thread (core 165)."""


class VideoWriter:
    """H.264 (yuv420p, BT.601, limited range, all tagged) in an mp4 whose index comes first; no B-frames, one thread.

    Frames keep their own timestamps, to the nearest microsecond: any rate, variable ones, and a first frame after 0
    (an empty edit). The last frame lasts as long as the one before it. The first frame at least ``keyframe_seconds``
    after a key frame is the next one. ``sound`` (16 kHz mono, its first sample at time 0) is added as AAC. ``tags`` are
    the container's metadata; players show ``title``, ``comment`` and ``description``. The same
    calls give the same bytes with the same libraries: no dates, no names of libraries but x264's own.

    ``file`` is a path, or a binary file open for writing and seeking. Sizes must be even. The file is complete after
    ``close`` or at the end of the ``with`` block; after an exception in the block it is worthless.
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | BinaryIO | IO[bytes],
        width: int,
        height: int,
        *,
        crf: float = 18,
        preset: str = "veryfast",
        keyframe_seconds: float = 0.5,
        sound: Int16[np.ndarray, " samples"] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        if width % 2 or height % 2:
            raise ValueError(f"width and height must be even for yuv420p, got {width} x {height}")
        self._file = file
        self._size = (height, width)
        self._keyframe_ns = round(keyframe_seconds * NS)
        # Muxed here first: the index goes to the front when all is known. A long video is on disk, not in memory.
        self._buffer = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 (lives as long as the writer)
        self._container = av.open(
            self._buffer, "w", format="mp4", container_options=_MUXER, io_open=lambda *_: _Reader(self._buffer)
        )
        self._container.metadata.update(tags or {})
        self._stream = self._add_picture(crf, preset)
        self._sound = sound
        self._heard = 0
        self._sound_stream = self._add_sound() if sound is not None else None
        self._last_ns: int | None = None
        self._last_step = _DEFAULT_NS // 1000
        self._last_key_ns = 0
        self._waiting: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self._container.close()

    def write(self, rgb: UInt8[np.ndarray, "height width 3"], pts_ns: int) -> None:
        """Add one frame; times must rise by at least a microsecond and not be negative."""
        if rgb.shape != (*self._size, 3) or rgb.dtype != np.uint8:
            raise ValueError(f"expected uint8 {(*self._size, 3)}, got {rgb.dtype} {rgb.shape}")
        ticks = ticks_of(pts_ns)
        if ticks < 0 or (self._last_ns is not None and ticks <= ticks_of(self._last_ns)):
            raise ValueError(f"pts_ns must rise by at least 1000 from 0 on, got {pts_ns} after {self._last_ns}")
        frame = VideoFrame.from_ndarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420), format="yuv420p")
        frame.pts, frame.time_base = ticks, Fraction(1, TICKS)
        if self._last_ns is None or pts_ns - self._last_key_ns >= self._keyframe_ns:
            frame.pict_type = PictureType.I
            self._last_key_ns = pts_ns
        self._last_ns = pts_ns
        self._write_sound(until=ns_to_samples(pts_ns))
        self._mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what is left, and the file."""
        self._mux(self._stream.encode(None))
        if self._waiting is not None:
            self._send(self._waiting, self._last_step)
        self._write_sound()
        self._container.close()
        self._buffer.seek(0)
        if isinstance(self._file, str | os.PathLike):
            with open(self._file, "wb") as file:  # noqa: PTH123  one call for str and PathLike
                shutil.copyfileobj(self._buffer, file, COPIED)
        else:
            shutil.copyfileobj(self._buffer, self._file, COPIED)
        self._buffer.close()

    def _add_picture(self, crf: float, preset: str) -> Any:
        options = {"crf": str(crf), "preset": preset, "x264-params": _X264, "forced-idr": "1"}
        stream = self._container.add_stream("libx264", rate=25, options=options)
        stream.height, stream.width = self._size
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS)
        context = stream.codec_context
        context.thread_count = 1
        context.colorspace, context.color_range, context.color_primaries, context.color_trc = 6, 1, 6, 6
        return stream

    def _add_sound(self) -> Any:
        stream = self._container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        stream.codec_context.bit_rate = _AAC_BITS
        stream.codec_context.flags |= Flags.bitexact
        stream.codec_context.thread_count = 1
        return stream

    def _mux(self, coming: list[Any]) -> None:
        # One packet behind, because a packet's duration is known when the next one comes.
        for packet in coming:
            if self._waiting is not None:
                self._last_step = packet.pts - self._waiting.pts
                self._send(self._waiting, self._last_step)
            self._waiting = packet

    def _send(self, packet: Packet, duration: int) -> None:
        packet.duration = duration
        self._container.mux(packet)

    def _write_sound(self, until: int | None = None) -> None:
        """Add the sound up to a sample, or all that is left: in the file it lies beside the pictures of its time."""
        if self._sound is None or self._sound_stream is None:
            return
        size = self._sound_stream.codec_context.frame_size or 1024
        end = len(self._sound) if until is None else min(until, len(self._sound))
        while self._heard + (size if until is not None else 0) <= end and self._heard < len(self._sound):
            part = self._sound[self._heard : self._heard + size]
            self._container.mux(self._sound_stream.encode(sound_frame(part, self._heard)))
            self._heard += len(part)
        if until is None:
            self._container.mux(self._sound_stream.encode(None))


def ticks_of(pts_ns: int) -> int:
    """The timestamp that is written for a time: the nearest microsecond."""
    return (pts_ns + 500) // 1000


class _Reader(io.RawIOBase):
    """What has been written to a file, read at a position of its own: the muxer moves the index to the front."""

    def __init__(self, file: tempfile.SpooledTemporaryFile[bytes]) -> None:
        self._file = file
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        writing_at = self._file.tell()
        self._file.seek(self._at)
        data = self._file.read(size)
        self._file.seek(writing_at)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._length() if whence == 2 else 0)[whence]
        return self._at

    def _length(self) -> int:
        writing_at = self._file.tell()
        length = self._file.seek(0, os.SEEK_END)
        self._file.seek(writing_at)
        return length

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
