"""A take of Live Link Face: the recording of a video, on the video's clock.

The recording's timecode is laid on the video by what says most: the app's ``frame_log.csv``, which has the timecode of
every picture; the video's own timecode track; else the first row belongs to the first picture.
"""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float32, Int64

from talkface.clip import NS
from talkface.errors import SourceError
from talkface.media import PictureStart, picture_start
from talkface.motion.live_link import LiveLink, read_live_link, read_text, seconds_of, stamp_of

FRAME_LOG: Final = "frame_log.csv"

ENDINGS: Final = (".csv", "_cal.csv", "_raw.csv")
"""What follows a video's name in that of its recording; the app writes the latter two where it was calibrated."""

GAP_NS: Final = NS // 10
"""Between rows further apart than this the face was not seen: nothing is known there."""


@dataclass(frozen=True)
class Take:
    """Blendshapes at times in ns on the source clock of their video."""

    times_ns: Int64[np.ndarray, " rows"]
    arkit: Float32[np.ndarray, "rows 52"]

    def at(self, times_ns: Int64[np.ndarray, " times"]) -> Float32[np.ndarray, "times 52"]:
        """Blendshapes at other times, on lines between rows; NaN outside, and in gaps of more than `GAP_NS`."""
        after = np.clip(np.searchsorted(self.times_ns, times_ns), 1, max(len(self.times_ns) - 1, 1))
        low, high = after - 1, np.minimum(after, len(self.times_ns) - 1)
        step = np.maximum(self.times_ns[high] - self.times_ns[low], 1)
        share = np.clip((times_ns - self.times_ns[low]) / step, 0.0, 1.0)[:, None]
        mixed = self.arkit[low] * (1 - share) + self.arkit[high] * share
        away = np.minimum(abs(times_ns - self.times_ns[low]), abs(times_ns - self.times_ns[high]))
        inside = (times_ns >= self.times_ns[0]) & (times_ns <= self.times_ns[-1]) & (step <= GAP_NS)
        near = away <= _half_step(self.times_ns)
        mixed[~(inside | near)] = np.nan
        return mixed.astype(np.float32)


def _half_step(times_ns: Int64[np.ndarray, " rows"]) -> int:
    return int(np.median(np.diff(times_ns))) // 2 if len(times_ns) > 1 else 0


def recording_names(uri: str) -> tuple[str, ...]:
    """Where the recording of a video may lie, the likeliest first."""
    return tuple(posixpath.splitext(uri)[0] + ending for ending in ENDINGS)


def frame_log_name(uri: str) -> str:
    """Where the app's log of a video's pictures may lie."""
    return posixpath.join(posixpath.dirname(uri), FRAME_LOG)


def read_take(uri: str, recording: Sequence[str]) -> Take:
    """The take of a video: its recording, and the app's log where ``recording`` names that too.

    Raises SourceError with reason ``bad_recording`` where they cannot be read or belong to another video.
    """
    found = read_live_link(recording[0])
    first = picture_start(uri)
    shift_ns = _logged(found, recording) if len(recording) > 1 else _tracked(found, first)
    return Take(first.pts_ns + shift_ns + found.pts_ns, found.arkit)


def _logged(found: LiveLink, recording: Sequence[str]) -> int:
    """ns from the first picture to the first row, by the log."""
    pictures = [cells for line in read_text(recording[1]).splitlines() if (cells := line.split(","))[0] == "V"]
    try:
        seconds = seconds_of([stamp_of(cells[4]) for cells in pictures])
        first, last = (found.since_ns(float(seconds[i])) for i in (0, -1))
    except (IndexError, ValueError) as error:
        raise SourceError(
            f"{recording[1]}: not a log of pictures ({error}). Correct it, or remove it to begin with the first row.",
            "bad_recording",
        ) from error
    if first + found.pts_ns[-1] < 0 or last > 0:
        raise SourceError(
            f"{recording[0]}: its timecodes are not those of the video ({FRAME_LOG} says {pictures[0][4]} to "
            f"{pictures[-1][4]}). Put the files of one take together.",
            "bad_recording",
        )
    return first


def _tracked(found: LiveLink, first: PictureStart) -> int:
    """As `_logged` by the video's timecode track; one that the recording does not overlap is an editor's."""
    try:
        whole, frames = stamp_of(first.timecode)
        since = found.since_ns(whole + frames / round(first.fps))
    except (ValueError, ZeroDivisionError):
        return 0
    return since if -found.pts_ns[-1] <= since <= NS else 0
