"""Clips cut to where their face speaks. Of several faces that are seen at once, one at most speaks at any moment."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8

from talkface.annotate.base import ClipView, Rows
from talkface.clip import NS, Clip, FrameTable, Reject, Timeline, runs
from talkface.config import Cut
from talkface.ingest.cut import CutClip, Cutter, Loudness
from talkface.ingest.faces import Face
from talkface.media import Frame, Sound
from talkface.speech.turns import FLICKER_SECONDS, context_ns, owners, turns_of

SPEAKER: Final = "speaker"
"""The annotator that tells who speaks."""

Claim = Float[np.ndarray, " frames"]
"""See `talkface.speech.turns.claims`."""


@dataclass(frozen=True)
class _Judged:
    """A clip that has closed, and its claims; without pictures, which take room."""

    track: int
    start_ns: int
    end_ns: int
    pts_ns: Int64[np.ndarray, " frames"]
    claim: Claim

    def claim_at(self, times_ns: Int64[np.ndarray, " times"]) -> Claim:
        """Claims to these times of the source, NaN where the clip is not."""
        last = np.searchsorted(self.pts_ns, times_ns, side="right") - 1
        return np.where((self.start_ns <= times_ns) & (times_ns < self.end_ns), self.claim[last], np.nan)


@dataclass
class SpeakingCutter:
    """A `Cutter` whose clips are only where their face speaks.

    ``judge`` gives a clip's claims to its frames, ``loudness`` finds the pauses in which parts begin and end. A clip is
    held back until all clips have closed that were seen at the same time or a little later. What is cut away goes to
    ``rejects``, and so does speech of less than ``cut.min_seconds``.
    """

    cutter: Cutter
    cut: Cut
    judge: Callable[[CutClip], Claim]
    loudness: Loudness
    source: str
    _rejects: list[Reject] = field(default_factory=list)
    _waiting: list[CutClip] = field(default_factory=list)
    _judged: list[_Judged] = field(default_factory=list)

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
        """The parts of the clips whose turns no clip to come can change: those begin at ``since_ns`` or later."""
        self._waiting += closed
        self._judged += [self._heard(c) for c in closed]
        known_ns = None if since_ns is None else since_ns - self._context_ns
        ready = [c for c in self._waiting if known_ns is None or c.end_ns <= known_ns]
        self._waiting = [c for c in self._waiting if known_ns is not None and c.end_ns > known_ns]
        parts = [part for clip in ready for part in self._parts(clip)]
        oldest = min([c.start_ns for c in self._waiting], default=since_ns)
        self._judged = [j for j in self._judged if oldest is not None and j.end_ns > oldest - self._context_ns]
        return parts

    def _heard(self, clip: CutClip) -> _Judged:
        """Without a mesh there is no face that could speak: parts begin and end with one."""
        claim = np.where(clip.has_mesh, self.judge(clip), np.nan)
        return _Judged(clip.track, clip.start_ns, clip.end_ns, clip.pts_ns, claim)

    @property
    def _manner(self) -> dict[str, float]:
        flicker = min(FLICKER_SECONDS, self.cut.min_seconds)
        return {"flicker_seconds": flicker, "silence_seconds": self.cut.silence_seconds}

    @property
    def _context_ns(self) -> int:
        return context_ns(**self._manner)

    def _parts(self, clip: CutClip) -> Iterator[CutClip]:
        times, least = np.append(clip.pts_ns, clip.end_ns), round(self.cut.min_seconds * NS)
        since, longest_ns = clip.start_ns, 0
        for start, end, speaks in runs(self._speaks(clip)):
            part = clip.part(start, end) if speaks else None
            if part is not None and part.end_ns - part.start_ns >= least:
                self._reject(clip.track, since, part.start_ns, longest_ns)
                since, longest_ns = part.end_ns, 0
                yield part
            elif speaks:
                longest_ns = max(longest_ns, int(times[end] - times[start]))
        self._reject(clip.track, since, clip.end_ns, longest_ns)

    def _speaks(self, clip: CutClip) -> Bool[np.ndarray, " frames"]:
        """In which frames the clip's face is the one that speaks; its short silences are among them.

        Turns are those of all that were seen from some time before it to some time after it, so that all clips agree.
        """
        around = (clip.start_ns - self._context_ns, clip.end_ns + self._context_ns)
        heard = [j for j in self._judged if j.start_ns < around[1] and around[0] < j.end_ns]
        own = next(i for i, j in enumerate(heard) if (j.track, j.start_ns) == (clip.track, clip.start_ns))
        times = np.unique(np.concatenate([around, *([*j.pts_ns, j.end_ns] for j in heard)]))
        claim = np.stack([j.claim_at(times[:-1]) for j in heard])
        places = [np.searchsorted(times, (j.start_ns, j.end_ns)) for j in heard]
        seen = [(int(first), ~np.isnan(row[first:after])) for row, (first, after) in zip(claim, places, strict=True)]
        owner = turns_of(owners(claim), seen, times, self.loudness(times), **self._manner)
        return np.asarray(owner[np.isin(times[:-1], clip.pts_ns)] == own)

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


def uncoded(clip: Clip, cut: CutClip, columns: Mapping[str, np.ndarray], sound: Sound) -> ClipView:
    """What the annotator of who speaks sees of a clip that is not encoded yet."""
    table = FrameTable(Timeline(cut.pts_ns - cut.start_ns), columns)
    return _Uncoded(clip, table, sound.samples, sound.present, crops=cut)


@dataclass(frozen=True)
class _Uncoded(ClipView):
    crops: CutClip = field(kw_only=True)

    def pictures(self) -> Iterator[UInt8[np.ndarray, "size size 3"]]:
        return self.crops.crops()
