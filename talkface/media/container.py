"""Opening containers from paths and urls, the source clock, and facts from headers."""

import errno
import io
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import av.error
import av.logging
import fsspec
from av.container import InputContainer
from av.stream import Discard, Disposition, Stream

from talkface.clip import NS, Probe
from talkface.errors import MediaError, StorageError

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "mpeg", "mpegts", "flv", "asf", "ogg", "mxf", "nut", "dv", "rm",
    "wav", "w64", "aiff", "caf", "au", "flac", "mp3", "aac", "ac3", "eac3",
)  # fmt: skip
"""Demuxers that may open a source: containers with timestamps, and sound files. No playlists, which open other files,
no pictures, no raw video streams, which have no timestamps, and no text, which FFmpeg would draw."""

_SIGNATURES = re.compile(
    rb"....(?:ftyp|moov|mdat|free|wide)|\x1aE\xdf\xa3|RIFF|\x00\x00\x01[\xba\xb3]|FLV|OggS|ID3|fLaC|0&\xb2u", re.DOTALL
)
_NETWORK_SECONDS = (30.0, 60.0)
_RECONNECT = {"reconnect": "1", "reconnect_on_network_error": "1", "reconnect_delay_max": "4"}

LONGEST_BELIEVED = 24 * 3600.0
"""Seconds up to which a header's word for a length is taken. Work is planned by it, before anything is decoded."""

_PASSING = {
    errno.EAGAIN, errno.EBUSY, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH,
    errno.EINTR, errno.EIO, errno.EMFILE, errno.ENETDOWN, errno.ENETUNREACH, errno.ENFILE, errno.ENODEV, errno.ENOMEM,
    errno.ENOTCONN, errno.ENXIO, errno.EPIPE, errno.ESTALE, errno.ETIMEDOUT, None,
}  # fmt: skip
"""What storage and networks say that fail for a while. File systems beyond the kernel's often give no number."""
_LASTING = (ValueError, FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_DRIVERS = ("aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google")
_SERVER = (av.error.HTTPServerError, av.error.HTTPTooManyRequestsError)


@contextmanager
def open_media(uri: str) -> Iterator[InputContainer]:
    """Container of a local path, an http(s) url or any fsspec url, closed on leaving.

    Raises MediaError with reason ``missing``, ``empty``, ``not_media`` or ``unreadable``, also for what FFmpeg or the
    file system raise in the block; StorageError where another try may do better.
    """
    with ExitStack() as opened:
        try:
            with plain_errors():
                container = opened.enter_context(_opened(uri))
        except (FileNotFoundError, av.error.HTTPNotFoundError) as error:
            raise MediaError(f"{uri}: {_missing(uri)}. Check the path.", "missing") from error
        except (av.error.InvalidDataError, av.error.ArgumentError, av.error.EOFError) as error:
            raise _invalid(uri) from error
        except (av.error.FFmpegError, OSError, ImportError, ValueError) as error:
            raise _unreadable(uri, error) from error
        try:
            with plain_errors():
                yield container
        except (av.error.FFmpegError, OSError) as error:
            raise _unreadable(uri, error) from error


@contextmanager
def _opened(uri: str) -> Iterator[InputContainer]:
    if uri.startswith(("http://", "https://")):
        with _container(uri, timeout=_NETWORK_SECONDS, options=_RECONNECT) as container:
            yield container
        return
    with _file(uri) as file:
        if not file.read(1):
            raise MediaError(f"{uri}: the file is empty. Remove it from the input or copy it again.", "empty")
        file.seek(0)
        path = local_path(uri)
        with _container(file if path is None else f"file:{path}") as container:
            yield container


def _container(file: Any, **options: Any) -> InputContainer:
    whitelist = ",".join(FORMATS)
    container: InputContainer = av.open(
        file, container_options={"format_whitelist": whitelist}, metadata_errors="replace", **options
    )
    return container


def local_path(uri: str) -> Path | None:
    """The path that ``uri`` names on this machine, or None for a url of another file system."""
    if uri.startswith("file://"):
        return Path(uri.removeprefix("file://"))
    return None if "://" in uri else Path(uri)


def _file(uri: str) -> Any:
    path = local_path(uri)
    if path is not None:
        if path.is_fifo():  # opening it would wait for somebody to write
            raise MediaError(f"{uri}: a pipe, not a file. Remove it from the input.", "not_media")
        return path.open("rb")
    file = fsspec.open(uri, "rb").open()
    # The memory file system hands every caller the same object, position included.
    return io.BytesIO(file.getbuffer()) if isinstance(file, io.BytesIO) else file


def _unreadable(uri: str, error: Exception) -> MediaError:
    why = getattr(error, "strerror", None) or next(iter(str(error).splitlines()), type(error).__name__)
    if may_pass(error):
        return StorageError(f"{uri}: cannot be read now ({why}). Check storage and network, then run this again.")
    return MediaError(f"{uri}: cannot be read ({why}). Check permissions and storage.", "unreadable")


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turns the errors that drivers of object stores have of their own into OSError."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0] not in _DRIVERS:
            raise
        raise OSError(f"{type(error).__name__}: {error}") from error


def may_pass(error: BaseException) -> bool:
    """Whether storage or network may be to blame for an error in reading, and not the file."""
    if isinstance(error, _SERVER):
        return True
    return isinstance(error, OSError) and not isinstance(error, _LASTING) and error.errno in _PASSING


def _missing(uri: str) -> str:
    path = local_path(uri)
    return "broken link" if path is not None and path.is_symlink() else "no such file"


def _invalid(uri: str) -> MediaError:
    if _looks_like_media(uri):
        what = "damaged or cut off: its headers cannot be read. Copy it again or remove it from the input."
        return MediaError(f"{uri}: {what}", "unreadable")
    what = "not a video or sound file that FFmpeg knows. Remove it from the input."
    return MediaError(f"{uri}: {what}", "not_media")


def _looks_like_media(uri: str) -> bool:
    if uri.startswith(("http://", "https://")):
        return False
    with suppress(OSError), _file(uri) as file:
        return _SIGNATURES.match(file.read(16)) is not None
    return False


def picture_stream(container: InputContainer) -> Stream | None:
    """The video stream a player would show; cover art does not count."""
    moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    return best if best in moving else next(iter(moving), None)


def sound_stream(container: InputContainer) -> Stream | None:
    """The sound stream a player would play, if it can be decoded here."""
    picture = picture_stream(container)
    best = container.streams.best("audio", related=picture)
    return best if best is not None and best.codec_context is not None else None


def read_only(container: InputContainer, stream: Stream) -> None:
    """Let the demuxer skip all streams but one, and decode that one on one thread."""
    for other in container.streams:
        other.discard = Discard.default if other is stream else Discard.all
    stream.codec_context.thread_count = 1


def zero_of(container: InputContainer) -> Fraction:
    """The container's time, in seconds, of the source clock's 0: the earliest start of picture or sound."""
    streams = [s for s in (picture_stream(container), sound_stream(container)) if s is not None]
    return min((start_of(s) for s in streams), default=Fraction(0))


def start_of(stream: Stream) -> Fraction:
    """When a stream starts, in the container's seconds; a stream without a start starts at 0."""
    return (stream.start_time or 0) * (stream.time_base or Fraction(1))


def to_ns(seconds: Fraction) -> int:
    """Nearest ns."""
    return round(seconds * NS)


@dataclass(frozen=True)
class Clock:
    """Turns a stream's ticks into ns on the source clock, and back."""

    time_base: Fraction
    zero: Fraction

    def ns(self, ticks: int) -> int:
        """Source time of a timestamp, to the nearest ns."""
        return to_ns(ticks * self.time_base - self.zero)

    def ticks(self, ns: int) -> int:
        """The last timestamp that is not after a source time."""
        return int((Fraction(ns, NS) + self.zero) // self.time_base)


def clock_of(container: InputContainer, stream: Stream) -> Clock:
    """The source clock of one stream of a container."""
    return Clock(stream.time_base or Fraction(1), zero_of(container))


def probe(uri: str, *, sound_only: bool = False) -> Probe:
    """Facts from a container's headers; nothing is decoded. Sizes are as displayed, upright and in square pixels.

    ``rotation`` is how far, in degrees clockwise, the stored picture is turned for display. ``sound_only`` looks at the
    sound alone and accepts a file without a picture. Raises MediaError with reason ``missing``, ``empty``,
    ``not_media``, ``unreadable`` or ``no_video``.
    """
    with open_media(uri) as container:
        sound = sound_stream(container)
        picture = None if sound_only and sound is not None else require_picture(uri, container)
        return _facts(container, picture, sound)


def _facts(container: InputContainer, picture: Stream | None, sound: Stream | None) -> Probe:
    rotation = _rotation(container, picture) if picture is not None else 0
    width, height = (picture.codec_context.width, picture.codec_context.height) if picture is not None else (0, 0)
    width = round(width * pixel_aspect(picture)) if picture is not None else 0
    if rotation in (90, 270):
        width, height = height, width
    return Probe(
        container=container.format.name,
        duration=_duration(container),
        video_codec=picture.codec_context.name if picture is not None else None,
        width=width,
        height=height,
        fps=float(picture.average_rate or picture.guessed_rate or 0) if picture is not None else 0.0,
        rotation=rotation,
        audio_codec=sound.codec_context.name if sound is not None else None,
        audio_rate=sound.codec_context.sample_rate if sound is not None else 0,
        audio_channels=sound.codec_context.layout.nb_channels if sound is not None else 0,
    )


def _duration(container: InputContainer) -> float:
    """Seconds; where the header says none that is believed (a recording that was cut off), the last packet's end."""
    if container.duration is not None and 0 < container.duration / av.time_base <= LONGEST_BELIEVED:
        return float(container.duration / av.time_base)
    ends = ((p.pts + (p.duration or 0)) * p.time_base for p in container.demux() if p.pts is not None)
    return max(0.0, float(max(ends, default=Fraction(0)) - zero_of(container)))


def require_picture(uri: str, container: InputContainer) -> Stream:
    """The container's picture stream; MediaError (``no_video`` or ``unreadable``) if there is none to decode."""
    stream = picture_stream(container)
    if stream is None:
        found = ", ".join(f"{s.type} {_codec(s)}" for s in container.streams) or "nothing"
        raise MediaError(f"{uri}: no video stream (found: {found}). Remove it from the input.", "no_video")
    if stream.codec_context is None:
        raise MediaError(f"{uri}: no decoder for its video codec. Convert it to H.264.", "unreadable")
    return stream


def pixel_aspect(picture: Stream) -> Fraction:
    """Width of a stored pixel over its height, 1 where nothing is said. What no camera makes is not believed."""
    aspect = cast("Any", picture).sample_aspect_ratio
    return Fraction(aspect) if aspect and Fraction(1, 4) <= aspect <= 4 else Fraction(1)


def _codec(stream: Stream) -> str:
    return stream.codec_context.name if stream.codec_context is not None else "unknown"


def _rotation(container: InputContainer, picture: Stream) -> int:
    # The display matrix of a stream that has not been decoded can only be had from FFmpeg's own description.
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        text: str = cast("Any", container).dumps_format()
    finally:
        av.logging.set_level(level)
    streams = re.split(r"Stream #\d+:", text)[1:]
    found = re.search(r"rotation of (-?[\d.]+) degrees", streams[picture.index]) if streams else None
    return round(-float(found[1]) / 90) * 90 % 360 if found else 0


def decoders() -> frozenset[str]:
    """Names of the codecs that the FFmpeg in PyAV knows."""
    return frozenset(av.codecs_available)
