"""Tracks to clips: where a clip starts and ends, and the one square crop that holds its face from end to end.

Pixels are seen once. The best crop is known only when the clip has closed, so while it is open a larger square around
its first box (the region) is kept, from which the crop is taken at the end.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Final

import cv2
import numpy as np
from jaxtyping import Float, Int64, UInt8

from talkface.annotate.base import Rows
from talkface.annotate.landmarks import cut_square, shrink
from talkface.clip import NS, Reject
from talkface.config import Pack
from talkface.errors import RunError
from talkface.ingest.faces import Face
from talkface.media import Frame

REGION: Final = 4 / 3
"""Side of the region in sides of the first frame's crop: how far a face may wander before its clip ends."""
MARGIN: Final = 1.15
"""The crop's side is at least this many times what the face covered during the clip."""
SNAP: Final = 0.04
"""A crop whose scale differs by less than this from the kept region's is taken as it is, which is the sharpest."""
MEMORY_BYTES: Final = 256 << 20
"""Pictures of open clips beyond this go to disk: at the default size a face takes at most 1.4 MB a frame."""
HOLE_NS: Final = NS
"""The last frame before a longer hole in time is taken to stay for as long as the clip's other frames."""

Box = Float[np.ndarray, " 4"]
Span = tuple[int, int]


@dataclass(frozen=True)
class CutClip:
    """A closed clip: frames ``pts_ns`` (source clock) with one mapping of annotations each, empty without a face.

    ``crop`` is the 2 x 3 matrix from source pixels to crop pixels; coordinates are continuous, the first pixel spans
    0..1. ``end_ns`` is where the last frame leaves the screen.
    """

    track: int
    shot: int
    start_ns: int
    end_ns: int
    pts_ns: Int64[np.ndarray, " frames"]
    rows: Sequence[Rows]
    crop: Float[np.ndarray, "2 3"]
    _crops: Iterable[UInt8[np.ndarray, "side side 3"]] = field(repr=False)

    def crops(self) -> Iterator[UInt8[np.ndarray, "side side 3"]]:
        """The crop of every frame, RGB; black outside the picture. Empty where pictures are not kept."""
        return iter(self._crops)


class Cutter:
    """Cuts the tracks of a stream of frames into clips.

    A clip starts and ends with a mesh, and ends where its shot or track ends, where the face was lost for longer than
    ``faces.max_gap_seconds``, where its crop would no longer fit into its region, or at ``planned_end``. Then the
    track's next clip starts. ``pauses`` are silences (start_ns, end_ns) on the source's clock, in order. What is too
    short goes to ``rejects``, and so does a stream without any face.
    """

    def __init__(self, pack: Pack, pauses: Sequence[Span], *, source: str) -> None:
        self._pack, self._pauses, self._source = pack, pauses, source
        self._spool = Spools().open if pack.keep_video else None
        self._open: dict[int, _OpenClip] = {}
        self._shot = -1
        self._shot_ns = 0
        self._seen: Span | None = None
        self._found = False
        self.rejects: list[Reject] = []

    def push(self, frame: Frame, faces: Sequence[Face], rows: Sequence[Rows], new_shot: bool) -> list[CutClip]:
        """Take the next frame, its faces and what was annotated of each; return the clips that this closes.

        Read a clip's pictures before the next push.
        """
        closed: list[CutClip] = []
        if new_shot:
            short = frame.pts_ns - self._shot_ns < self._pack.shots.min_seconds * NS
            closed += self._close_all(frame.pts_ns, short_shot=short)
            self._shot, self._shot_ns = self._shot + 1, frame.pts_ns
        self._seen = (self._seen[0] if self._seen else frame.pts_ns, frame.pts_ns)
        by_track = {face.track: (face, row) for face, row in zip(faces, rows, strict=True)}
        for track, clip in list(self._open.items()):
            face, _ = by_track.get(track, (None, {}))
            if self._ends(clip, face, frame.pts_ns):
                closed += self._close(track, frame.pts_ns)
        for track in sorted(self._open.keys() | by_track.keys()):
            self._take(frame, track, *by_track.get(track, (None, {})))
        return closed

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
        """Where a clip that starts at ``start_ns`` ends at the latest.

        The middle of the last pause in the second half of the longest length allowed, else that length.
        """
        longest = round(self._pack.cut.max_seconds * NS)
        middles = [(a + b) // 2 for a, b in self._pauses if b - a >= self._pack.cut.pause_seconds * NS]
        fitting = [m for m in middles if start_ns + longest // 2 <= m <= start_ns + longest]
        return fitting[-1] if fitting else start_ns + longest

    def _ends(self, clip: "_OpenClip", face: Face | None, pts_ns: int) -> bool:
        if pts_ns >= clip.planned_end_ns:
            return True
        lost = face is None or face.mesh is None
        if lost and pts_ns - clip.mesh_ns > self._pack.faces.max_gap_seconds * NS:
            return True
        return face is not None and not clip.holds(face.box[:4])

    def _take(self, frame: Frame, track: int, face: Face | None, row: Rows) -> None:
        if track not in self._open:
            if face is None or face.mesh is None:
                return
            self._found = True
            self._open[track] = _OpenClip(
                self._pack,
                self._spool,
                face.box[:4],
                track=track,
                shot=self._shot,
                planned_end_ns=self.planned_end(frame.pts_ns),
            )
        self._open[track].append(frame, face, row)

    def _close_all(self, next_ns: int, *, short_shot: bool = False) -> list[CutClip]:
        return [clip for track in sorted(self._open) for clip in self._close(track, next_ns, short_shot=short_shot)]

    def _close(self, track: int, next_ns: int, *, short_shot: bool = False) -> list[CutClip]:
        """The clip, or none and a reject. ``next_ns`` is the time of the frame after its last."""
        clip = self._open.pop(track).closed(next_ns)
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
        spool: Callable[[int], "Spool"] | None,
        box: Box,
        *,
        track: int,
        shot: int,
        planned_end_ns: int,
    ) -> None:
        self._pack, self._track, self._shot = pack, track, shot
        self.planned_end_ns = planned_end_ns
        self.mesh_ns = 0
        self._pts: list[int] = []
        self._rows: list[Rows] = []
        self._boxes: list[Box | None] = []
        self._last = 0
        side = float(max(box[2:] - box[:2])) * max(pack.cut.crop_scale, MARGIN) * REGION
        most = round(pack.video.size * REGION)
        self._times = max(1, int(side) // most)
        self._side = max(2, round(side / self._times)) * self._times
        self._kept = min(self._side // self._times, most)
        x, y = ((box[:2] + box[2:]) / 2 - self._side / 2).tolist()
        self._origin = (round(x), round(y))
        self._spool = None if spool is None else spool(self._kept)

    def holds(self, box: Box) -> bool:
        """Whether the crop still fits into the region when the clip goes on with this box."""
        low, high, side = self._extent([*self._boxes, box])
        slack = (MARGIN - 1) / 2 * (high - low)
        inside = (low - slack >= self._origin).all() and (high + slack <= np.add(self._origin, self._side)).all()
        return bool(inside and side <= self._side)

    def append(self, frame: Frame, face: Face | None, row: Rows) -> None:
        """Take a frame; ``face`` None is one in which the face was not found."""
        if face is not None and face.mesh is not None:
            self.mesh_ns, self._last = frame.pts_ns, len(self._pts)
        self._pts.append(frame.pts_ns)
        self._rows.append(row)
        self._boxes.append(None if face is None else face.box[:4])
        if self._spool is not None:
            self._spool.write(self._region(frame.rgb))

    def closed(self, next_ns: int) -> CutClip:
        """The clip up to its last mesh. ``next_ns`` is the time of the frame that follows its last frame."""
        n = self._last + 1
        pts_ns = np.array(self._pts[:n], np.int64)
        following = self._pts[n] if n < len(self._pts) else min(next_ns, max(self.planned_end_ns, self._pts[-1] + 1))
        if following - self._pts[n - 1] > HOLE_NS:
            following = self._pts[n - 1] + (int(np.median(np.diff(pts_ns))) if n > 1 else 0)
        at, side = self._crop(self._boxes[:n])
        scale = self._pack.video.size / side
        zoom = scale * self._kept / self._side
        shift = -np.multiply(self._origin, zoom) - np.multiply(at, scale)
        crop = np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]]])
        pictures = () if self._spool is None else Crops(self._spool, n, at, side, self._pack.video.size)
        return CutClip(self._track, self._shot, self._pts[0], following, pts_ns, self._rows[:n], crop, pictures)

    def _region(self, rgb: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "kept kept 3"]:
        region = shrink(cut_square(rgb, self._origin, self._side), self._times)
        ratio = len(region) / self._kept
        if ratio == 1:
            return region
        # Blurred, then sampled: as good as INTER_AREA at a third of its cost.
        blurred = cv2.GaussianBlur(region, (3, 3), 0.5 * (ratio**2 - 1) ** 0.5)
        return np.asarray(cv2.resize(blurred, (self._kept, self._kept), interpolation=cv2.INTER_LINEAR))

    def _extent(self, boxes: Sequence[Box | None]) -> tuple[np.ndarray, np.ndarray, float]:
        """Least and greatest x, y that the face covered, and the side of the crop, in source pixels."""
        known = np.array([b for b in boxes if b is not None])
        low, high = known[:, :2].min(axis=0), known[:, 2:].max(axis=0)
        face = float(np.median((known[:, 2:] - known[:, :2]).max(axis=1)))
        return low, high, max(self._pack.cut.crop_scale * face, MARGIN * float((high - low).max()))

    def _crop(self, boxes: Sequence[Box | None]) -> tuple[tuple[int, int], int]:
        """Corner and side of the crop in pixels of the kept region: about the middle of all boxes, moved inside."""
        low, high, side = self._extent(boxes)
        ratio = self._kept / self._side
        kept_side = min(self._kept, round(side * ratio))
        if abs(kept_side / self._pack.video.size - 1) < SNAP and self._pack.video.size <= self._kept:
            kept_side = self._pack.video.size
        corner = ((low + high) / 2 - self._origin) * ratio - kept_side / 2
        x, y = np.clip(np.round(corner), 0, self._kept - kept_side).astype(int)
        return (int(x), int(y)), kept_side


class Spools:
    """Room for the pictures of all open clips: ``memory_bytes`` in memory, the rest in files without a name."""

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self.free_bytes = memory_bytes

    def open(self, side: int) -> "Spool":
        """A new sequence of square RGB pictures."""
        return Spool(self, side)


class Spool:
    """Square RGB pictures of one size, in order. Its room is free again when it is let go."""

    def __init__(self, spools: Spools, side: int) -> None:
        self._spools = spools
        self._shape = (side, side, 3)
        self._bytes = side * side * 3
        self._in_memory: list[UInt8[np.ndarray, "side side 3"]] = []
        self._file: IO[bytes] | None = None

    def __del__(self) -> None:
        self._spools.free_bytes += self._bytes * len(self._in_memory)

    def write(self, picture: UInt8[np.ndarray, "side side 3"]) -> None:
        """Add a picture; it must not change afterwards. Raises RunError when the disk is full."""
        assert picture.shape == self._shape, f"expected {self._shape}, got {picture.shape}"
        if self._file is None and self._spools.free_bytes >= self._bytes:
            self._spools.free_bytes -= self._bytes
            self._in_memory.append(picture if picture.flags.owndata else picture.copy())
            return
        try:
            self._file = self._file or tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (lives as long as the clip)
            left = picture.data.cast("B")
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            where = tempfile.gettempdir()
            raise RunError(f"{where}: {error.strerror}. Make room there, or set TMPDIR to a larger disk.") from error

    def read(self, index: int) -> UInt8[np.ndarray, "side side 3"]:
        """The picture written as number ``index``."""
        if index < len(self._in_memory):
            return self._in_memory[index]
        assert self._file is not None, f"picture {index} of {len(self._in_memory)}"
        self._file.seek((index - len(self._in_memory)) * self._bytes)
        return np.frombuffer(self._file.read(self._bytes), np.uint8).reshape(self._shape)


@dataclass(frozen=True)
class Crops:
    """The crops of a clip, made from its spool one at a time, as often as wanted."""

    spool: Spool
    frames: int
    corner: tuple[int, int]
    side: int
    size: int

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "size size 3"]]:
        (x, y), how = self.corner, cv2.INTER_LINEAR if self.side > self.size else cv2.INTER_CUBIC
        for index in range(self.frames):
            part = self.spool.read(index)[y : y + self.side, x : x + self.side]
            if self.side != self.size:
                part = cv2.resize(part, (self.size, self.size), interpolation=how)
            yield np.ascontiguousarray(part)
