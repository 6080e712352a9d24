"""Tracks to clips: where a clip starts and ends, and what belongs to it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8

from talkface.annotate.base import Rows
from talkface.clip import NS, Reject, runs
from talkface.config import Pack
from talkface.ingest.crop import Box, Crops, Region, Spools
from talkface.ingest.faces import Face
from talkface.media import Frame
from talkface.speech.loudness import quiet

HOLE_NS: Final = NS
"""The last frame before a longer hole in time is taken to stay for as long as the clip's other frames."""

USUAL_NS: Final = NS // 10
"""Frames follow each other at most this far apart, where there is no hole."""

QUIET_STEP_NS: Final = 10_000_000
"""How finely the quietest moment is looked for."""

Span = tuple[int, int]

Loudness = Callable[[Int64[np.ndarray, " times"]], Float[np.ndarray, " times"]]
"""Power of the source's sound around these times of it."""


def silent(times_ns: Int64[np.ndarray, " times"]) -> Float[np.ndarray, " times"]:
    """The loudness of a source without sound."""
    return np.zeros(len(times_ns))


@dataclass(frozen=True)
class CutClip:
    """A closed clip: frames ``pts_ns`` (source clock) with one mapping of annotations each, empty without a face.

    ``has_mesh`` says which frames have a mesh: the first and the last do. ``crop`` is the 2 x 3 matrix from source
    pixels to crop pixels; coordinates are continuous, the first pixel spans 0..1. ``end_ns`` is where the last frame
    leaves the screen. A clip's pictures take room until it is let go.
    """

    track: int
    shot: int
    start_ns: int
    end_ns: int
    pts_ns: Int64[np.ndarray, " frames"]
    rows: Sequence[Rows]
    has_mesh: Bool[np.ndarray, " frames"]
    crop: Float[np.ndarray, "2 3"]
    _crops: Crops | None = field(repr=False)

    def crops(self) -> Iterator[UInt8[np.ndarray, "side side 3"]]:
        """The crop of every frame, RGB; black outside the picture. Empty where pictures are not kept."""
        return iter(() if self._crops is None else self._crops)

    def part(self, start: int, end: int) -> "CutClip | None":
        """The clip from frame ``start`` up to ``end``, less what has no mesh at its ends; None if nothing has."""
        meshed = start + np.flatnonzero(self.has_mesh[start:end])
        if not len(meshed):
            return None
        start, end = int(meshed[0]), int(meshed[-1]) + 1
        pts_ns = self.pts_ns[start:end]
        return replace(
            self,
            start_ns=int(pts_ns[0]),
            end_ns=_end_ns(pts_ns, int(self.pts_ns[end])) if end < len(self.pts_ns) else self.end_ns,
            pts_ns=pts_ns,
            rows=self.rows[start:end],
            has_mesh=self.has_mesh[start:end],
            _crops=None if self._crops is None else self._crops.part(start, end),
        )


class Cutter:
    """Cuts the tracks of a stream of frames into clips.

    A clip starts and ends with a mesh, and ends where its shot or track ends, where the face was lost for longer than
    ``faces.max_gap_seconds``, where its crop would no longer fit into its region, or at the frame nearest to
    ``planned_end``. Then the track's next clip starts. If that comes to less than ``cut.min_seconds``, the clip before
    goes on to its end, so that nothing is lost; it is then up to that much longer than ``cut.max_seconds``.
    ``pauses`` are silences (start_ns, end_ns) on the source's clock, in order. What is too short goes to ``rejects``,
    and so does a stream without any face.
    """

    def __init__(self, pack: Pack, pauses: Sequence[Span], *, source: str, loudness: Loudness = silent) -> None:
        self._pack, self._pauses, self._source, self._loudness = pack, pauses, source, loudness
        self._spools = Spools() if pack.keep_video else None
        self._open: dict[int, _OpenClip] = {}
        self._next: dict[int, _OpenClip] = {}
        self._shot = -1
        self._shot_ns = 0
        self._seen: Span | None = None
        self._step_ns = 0
        self._found = False
        self.rejects: list[Reject] = []

    def push(self, frame: Frame, faces: Sequence[Face], rows: Sequence[Rows], new_shot: bool) -> list[CutClip]:
        """Take the next frame, its faces and what was annotated of each; return the clips that this closes."""
        closed: list[CutClip] = []
        if new_shot:
            short = frame.pts_ns - self._shot_ns < self._pack.shots.min_seconds * NS
            closed += self._close_all(frame.pts_ns, short_shot=short)
            self._shot, self._shot_ns = self._shot + 1, frame.pts_ns
        first_ns, before_ns = self._seen or (frame.pts_ns, frame.pts_ns)
        self._seen, self._step_ns = (first_ns, frame.pts_ns), min(frame.pts_ns - before_ns, USUAL_NS)
        by_track = {face.track: (face, row) for face, row in zip(faces, rows, strict=True)}
        for track, clip in list(self._open.items()):
            face, _ = by_track.get(track, (None, {}))
            following = self._next.get(track)
            if following is not None and following.meshed_ns >= self._pack.cut.min_seconds * NS:
                closed += self._close(track, frame.pts_ns, before=self._next.pop(track))
                clip = self._open[track] = following  # noqa: PLW2901 (the track's clip from now on)
            if self._ends(clip, face, frame.pts_ns):
                closed += self._close(track, frame.pts_ns)
        for track in sorted(self._open.keys() | by_track.keys()):
            self._take(frame, track, *by_track.get(track, (None, {})))
        return closed

    @property
    def open_since_ns(self) -> int | None:
        """Start of the oldest clip that is still open; None if none is."""
        return min((clip.start_ns for clip in self._open.values()), default=None)

    def close(self, frame_duration_ns: int) -> list[CutClip]:
        """The stream is over; its last frame stays for ``frame_duration_ns``. Return the clips still open."""
        end_ns = (self._seen[1] if self._seen else 0) + frame_duration_ns
        closed = self._close_all(end_ns)
        if self._seen and not self._found:
            self.rejects.append(
                Reject(
                    stage="track",
                    reason="no_face",
                    source=self._source,
                    message="no face was found",
                    start_ns=self._seen[0],
                    end_ns=end_ns,
                )
            )
        return closed

    def planned_end(self, start_ns: int) -> int:
        """Where a clip that starts at ``start_ns`` ends if its track goes on for long enough after that.

        The middle of the last pause in the second half of the longest length allowed; without one, of the last of the
        quietest moments in the last fifth of it, most likely between two words.
        """
        cut = self._pack.cut
        shortest, longest = round(cut.min_seconds * NS), round(cut.max_seconds * NS)
        middles = [(a + b) // 2 for a, b in self._pauses if b - a >= cut.pause_seconds * NS]
        fitting = [m for m in middles if max(shortest, longest // 2) <= m - start_ns <= longest]
        if fitting:
            return fitting[-1]
        first = start_ns + max(shortest, 4 * longest // 5)
        times = np.append(np.arange(first, start_ns + longest, QUIET_STEP_NS), start_ns + longest)
        start, end, _ = [stretch for stretch in runs(quiet(self._loudness(times))) if stretch[2]][-1]
        return int(times[-1] if end == len(times) else times[(start + end) // 2])

    def _ends(self, clip: "_OpenClip", face: Face | None, pts_ns: int) -> bool:
        lost = face is None or face.mesh is None
        if lost and pts_ns - clip.mesh_ns > self._pack.faces.max_gap_seconds * NS:
            return True
        return face is not None and not clip.holds(face.box[:4])

    def _is_due(self, clip: "_OpenClip", pts_ns: int) -> bool:
        """Whether this is the frame nearest to the planned end; no earlier one may make the clip too short."""
        near = pts_ns + self._step_ns // 2 >= clip.planned_end_ns
        return near and pts_ns - clip.start_ns >= self._pack.cut.min_seconds * NS

    def _take(self, frame: Frame, track: int, face: Face | None, row: Rows) -> None:
        if face is not None and face.mesh is not None:
            self._found = True
            if track not in self._open:
                self._open[track] = self._opened(frame, face)
            elif track not in self._next and self._is_due(self._open[track], frame.pts_ns):
                self._next[track] = self._opened(frame, face)
        for clip in (self._open.get(track), self._next.get(track)):
            if clip is not None:
                clip.append(frame, face, row)

    def _opened(self, frame: Frame, face: Face) -> "_OpenClip":
        return _OpenClip(
            self._pack,
            self._spools,
            face.box[:4],
            frame.rgb,
            track=face.track,
            shot=self._shot,
            planned_end_ns=self.planned_end(frame.pts_ns),
        )

    def _close_all(self, next_ns: int, *, short_shot: bool = False) -> list[CutClip]:
        return [clip for track in sorted(self._open) for clip in self._close(track, next_ns, short_shot=short_shot)]

    def _close(
        self, track: int, next_ns: int, *, short_shot: bool = False, before: "_OpenClip | None" = None
    ) -> list[CutClip]:
        """The clip, or none and a reject; up to the clip that takes its place, if one does.

        ``next_ns`` is the time of the frame after its last.
        """
        self._next.pop(track, None)
        clip = self._open.pop(track).closed(next_ns if before is None else before.start_ns)
        seconds = (clip.end_ns - clip.start_ns) / NS
        least = self._pack.shots.min_seconds if short_shot else self._pack.cut.min_seconds
        if not short_shot and seconds >= least:
            return [clip]
        what = "the shot" if short_shot else "the face"
        self.rejects.append(
            Reject(
                stage="cut",
                reason="short_shot" if short_shot else "too_short",
                source=self._source,
                message=f"track {track}: {what} was seen for {seconds:.2f} s; clips need {least:g} s",
                start_ns=clip.start_ns,
                end_ns=clip.end_ns,
                value=seconds,
                threshold=least,
            )
        )
        return []


class _OpenClip:
    """A clip that still takes frames."""

    def __init__(
        self,
        pack: Pack,
        spools: Spools | None,
        box: Box,
        picture: UInt8[np.ndarray, "height width 3"],
        *,
        track: int,
        shot: int,
        planned_end_ns: int,
    ) -> None:
        self._size, self._track, self._shot = pack.video.size, track, shot
        self.planned_end_ns = planned_end_ns
        self.mesh_ns = 0
        self._pts: list[int] = []
        self._with_mesh: list[int] = []
        self._rows: list[Rows] = []
        self._boxes: list[Box | None] = []
        self._region = Region(pack, box, picture)
        self._spool = None if spools is None else spools.open(self._region.kept)

    def holds(self, box: Box) -> bool:
        """Whether the crop still fits into the region when the clip goes on with this box."""
        return self._region.holds(self._region.covered([*self._boxes, box]))

    def append(self, frame: Frame, face: Face | None, row: Rows) -> None:
        """Take a frame; ``face`` None is one in which the face was not found."""
        if face is not None and face.mesh is not None:
            self.mesh_ns = frame.pts_ns
            self._with_mesh.append(len(self._pts))
        self._pts.append(frame.pts_ns)
        self._rows.append(row)
        self._boxes.append(None if face is None else face.box[:4])
        if self._spool is not None:
            self._spool.write(self._region.take(frame.rgb))

    @property
    def start_ns(self) -> int:
        """Time of the first frame."""
        return self._pts[0]

    @property
    def meshed_ns(self) -> int:
        """From the first frame to the last mesh."""
        return self.mesh_ns - self._pts[0]

    def closed(self, next_ns: int) -> CutClip:
        """The clip up to its last mesh before ``next_ns``, where the frame that follows comes on screen."""
        n = 1 + max(i for i in self._with_mesh if self._pts[i] < next_ns)
        pts_ns = np.array(self._pts[:n], np.int64)
        end_ns = _end_ns(pts_ns, self._pts[n] if n < len(self._pts) else next_ns)
        square = self._region.crop(self._region.covered(self._boxes[:n]))
        crop = self._region.matrix(square)
        pictures = None if self._spool is None else Crops(self._spool, n, square, self._size)
        has_mesh = np.isin(np.arange(n), self._with_mesh)
        return CutClip(self._track, self._shot, self._pts[0], end_ns, pts_ns, self._rows[:n], has_mesh, crop, pictures)


def _end_ns(pts_ns: Int64[np.ndarray, " frames"], following_ns: int) -> int:
    """When the last frame leaves the screen: at the next one, unless that comes after a hole."""
    last = int(pts_ns[-1])
    if following_ns - last <= HOLE_NS:
        return following_ns
    return last + (int(np.median(np.diff(pts_ns))) if len(pts_ns) > 1 else 0)
