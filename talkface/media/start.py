"""When a source's pictures begin, and by which timecode."""

from dataclasses import dataclass

from talkface.media.container import clock_of, open_media, require_picture


@dataclass(frozen=True)
class PictureStart:
    """The first picture: its time in ns on the source clock and its timecode, or nothing; pictures a second."""

    pts_ns: int
    timecode: str
    fps: float


def picture_start(uri: str) -> PictureStart:
    """When a source's pictures begin, by its headers. Raises MediaError as `probe`."""
    with open_media(uri) as container:
        stream = require_picture(uri, container)
        timecode = stream.metadata.get("timecode") or container.metadata.get("timecode", "")
        fps = float(stream.average_rate or stream.guessed_rate or 0)
        return PictureStart(clock_of(container, stream).ns(stream.start_time or 0), timecode, fps)
