"""Clips cut to where their face speaks. Of several faces that are seen at once, one at most speaks at any moment."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from jaxtyping import Float, Int, Int64, UInt8

from talkface.annotate._turns import FLICKER_SECONDS, owners, runs, turns_of
from talkface.annotate.base import ClipView, Rows
from talkface.clip import NS, Clip, FrameTable, Reject, Timeline
from talkface.config import Cut
from talkface.ingest.cut import CutClip, Cutter, Loudness
from talkface.ingest.faces import Face
from talkface.media import Frame, Sound

SPEAKER: Final = "speaker"
"""The annotator that tells who speaks."""

Talk = Float[np.ndarray, " frames"]


@dataclass(frozen=True)
class _Judged:
    """A clip that has closed, and its log-odds; without pictures, which take room."""

    track: int
    end_ns: int
    pts_ns: Int64[np.ndarray, " frames"]
    talk: Talk

    @property
    def span_ns(self) -> tuple[int, int]:
        """From its first frame to its end."""
        return int(self.pts_ns[0]), self.end_ns

    def talk_at(self, pts_ns: Int64[np.ndarray, " frames"]) -> Talk:
        """Log-odds in these frames of the source, NaN in those that are not the clip's."""
        talk = np.full(len(pts_ns), np.nan, np.float32)
        _, here, there = np.intersect1d(pts_ns, self.pts_ns, assume_unique=True, return_indices=True)
        talk[here] = self.talk[there]
        return talk


@dataclass
class SpeakingCutter:
    """A `Cutter` whose clips are only where their face speaks.

    ``judge`` gives a clip's log-odds of speaking for each of its frames, ``loudness`` finds the pauses in which they
    begin and end. A clip is held back until all clips that were seen at the same time have closed. What is cut away
    goes to ``rejects``, and so does speech of less than ``cut.min_seconds``.
    """

    cutter: Cutter
    cut: Cut
    judge: Callable[[CutClip], Talk]
    loudness: Loudness
    source: str
    _rejects: list[Reject] = field(default_factory=list)
    _waiting: list[CutClip] = field(default_factory=list)
    _judged: list[_Judged] = field(default_factory=list)
    _taken: list[tuple[int, int]] = field(default_factory=list)

    @property
    def rejects(self) -> list[Reject]:
        """The cutter's and its own."""
        return self.cutter.rejects + self._rejects

    def push(self, frame: Frame, faces: Sequence[Face], rows: Sequence[Rows], new_shot: bool) -> list[CutClip]:
        """As `Cutter.push`; the clips come later."""
        closed = self.cutter.push(frame, faces, rows, new_shot)
        since = self.cutter.open_since_ns
        return self._let_go(closed, frame.pts_ns if since is None else since) if closed else []

    def close(self, frame_duration_ns: int) -> list[CutClip]:
        """As `Cutter.close`."""
        return self._let_go(self.cutter.close(frame_duration_ns), None)

    def _let_go(self, closed: Sequence[CutClip], since_ns: int | None) -> list[CutClip]:
        """The parts of the clips that no clip to come can overlap: those begin at ``since_ns`` or later, if at all."""
        self._waiting += closed
        self._judged += [_Judged(c.track, c.end_ns, c.pts_ns, self.judge(c)) for c in closed]
        ready = [c for c in self._waiting if since_ns is None or c.end_ns <= since_ns]
        self._waiting = [c for c in self._waiting if since_ns is not None and c.end_ns > since_ns]
        parts = [part for clip in ready for part in self._parts(clip)]
        oldest = min([c.start_ns for c in self._waiting], default=since_ns)
        self._judged = [j for j in self._judged if oldest is not None and j.end_ns > oldest]
        self._taken = [(a, b) for a, b in self._taken if oldest is not None and b > oldest]
        return parts

    def _parts(self, clip: CutClip) -> Iterator[CutClip]:
        times, least = np.append(clip.pts_ns, clip.end_ns), round(self.cut.min_seconds * NS)
        since, longest_ns = clip.start_ns, 0
        for start, end, speaks in runs(self._speaks(clip)):
            part = clip.part(start, end) if speaks else None
            if part is not None and part.end_ns - part.start_ns >= least:
                self._reject(clip.track, since, int(times[start]), longest_ns)
                since, longest_ns = int(times[end]), 0
                self._taken.append((part.start_ns, part.end_ns))
                yield part
            elif speaks:
                longest_ns = max(longest_ns, int(times[end] - times[start]))
        self._reject(clip.track, since, clip.end_ns, longest_ns)

    def _speaks(self, clip: CutClip) -> Int[np.ndarray, " frames"]:
        """1 in frames in which the clip's face is the one that speaks, and in its short silences; 0 elsewhere.

        Another clip may have been judged by what lies beyond this one: what it was given stays its own.
        """
        times = np.append(clip.pts_ns, clip.end_ns)
        heard = [j for j in self._judged if j.span_ns[0] < clip.end_ns and clip.start_ns < j.end_ns]
        own = next(i for i, j in enumerate(heard) if j.track == clip.track and j.end_ns == clip.end_ns)
        places = [(int(first), int(after)) for first, after in (np.searchsorted(clip.pts_ns, j.span_ns) for j in heard)]
        owner = turns_of(
            owners(np.stack([j.talk_at(clip.pts_ns) for j in heard])),
            places,
            times,
            self.loudness(times),
            flicker_seconds=min(FLICKER_SECONDS, self.cut.min_seconds),
            silence_seconds=self.cut.silence_seconds,
        )
        taken = np.any([(a <= clip.pts_ns) & (clip.pts_ns < b) for a, b in self._taken], axis=0)
        return ((owner == own) & ~taken).astype(int)

    def _reject(self, track: int, start_ns: int, end_ns: int, longest_ns: int) -> None:
        """What was cut away between two parts, if anything was; ``longest_ns`` is the longest speech in it."""
        if start_ns == end_ns:
            return
        spoken, least = longest_ns / NS, self.cut.min_seconds
        self._rejects.append(
            Reject(
                stage="cut",
                reason="not_speaking",
                source=self.source,
                message=f"track {track}: its face speaks for {spoken:.2f} s on end at most; clips need {least:g} s",
                start_ns=start_ns,
                end_ns=end_ns,
                value=spoken,
                threshold=least,
            )
        )


def log_odds(speaker: Any, clip: Clip, cut: CutClip, sound: Sound) -> Talk:
    """What the annotator ``speaker`` makes of a clip that is not encoded yet, frame by frame; NaN without a face."""
    nowhere = np.full(5, np.nan, np.float32)
    boxes = np.stack([row.get("box", nowhere) for row in cut.rows])
    table = FrameTable(Timeline(cut.pts_ns - cut.start_ns), {"box": boxes})
    view = _Uncoded(clip, table, sound.samples, sound.present, crops=cut)
    return np.asarray(speaker.clip(view).columns["talk"])


@dataclass(frozen=True)
class _Uncoded(ClipView):
    crops: CutClip = field(kw_only=True)

    def pictures(self) -> Iterator[UInt8[np.ndarray, "size size 3"]]:
        return self.crops.crops()
