"""Finding faces and following each through a shot.

A detector looks at the whole picture now and then; in between, the mesh of each face is found around where it was a
frame ago, which is cheaper and steadier. A track is one face in one shot. All that is remembered belongs to a track.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from scipy.optimize import linear_sum_assignment

from talkface import config
from talkface.annotate.landmarks import FaceMesh, Mesh, quiet
from talkface.clip import NS
from talkface.errors import WeightsError

DETECTORS: Final = ("yunet", "mediapipe_face_detection")
"""What ``Detector`` can use, the better first."""

SMALLEST_PIXELS, FINE_PIXELS = 16, 27
"""The picture is scaled so that the smallest face wanted has this many pixels. Of 174 faces of 40 pixels in 1080p YuNet
finds 147 at 16 pixels, 171 at 24 and all at 27, which takes 2.5 times as long as 16."""
LONGEST_INPUT: Final = 1280
"""Longest side of the picture that YuNet is given, which bounds its cost."""
LARGE: Final = 2.0
"""Where a face of this many times the smallest one wanted is found, no second, finer look is taken."""
SIDE_ERROR: Final = 0.1
"""By this share YuNet's boxes of small faces are too small now and then."""

TILE_FACES: Final = 16
"""MediaPipe's detector finds faces from about a sixteenth of its picture on."""

ROI_SCALE: Final = 1.8
"""Side of the region that the mesh is looked for in, in sides of the face. From 1.4 to 3 the points do not differ by
more than 0.1 % of the face; smaller regions lose fast faces, larger ones hold the neighbour's."""
ROI_SCALE_MISSED: Final = 2.6
"""Second try where nothing was found."""
ROI_SCALE_OTHER: Final = 1.3
"""Second try where somebody else's face was found."""

MIN_OVERLAP: Final = 0.25
"""Intersection over union with the last box below which a mesh is taken for somebody else's."""
SAME_OVERLAP: Final = 0.45
"""Intersection over union from which two boxes in one frame are one face."""
RETRY_NS: Final = NS // 10
"""While a face is lost, or found without its mesh, the detector looks this often."""

Box = Float[np.ndarray, " 4"]
Clock = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class Face:
    """One face in one frame: its track, its box (x0 y0 x1 y1 in source pixels, score), its mesh if one was found.

    The box is tight around the mesh where there is one, else the detector's; the score is the detector's last.
    """

    track: int
    box: Float[np.ndarray, " 5"]
    mesh: Float[np.ndarray, "478 3"] | None = None
    shapes: Float[np.ndarray, " 52"] | None = None


class Detector:
    """Finds faces in a whole picture: YuNet from a file, or the full-range model in the wheel of mediapipe 0.10.21."""

    def __init__(self, name: str, path: Path | None, config: config.Faces) -> None:
        with quiet():
            self._find = _yunet(path, config) if name == "yunet" else _mediapipe(config)
            self._find(np.zeros((256, 256, 3), np.uint8), SMALLEST_PIXELS)
        self._min_pixels = config.min_pixels

    def detect(
        self, pixels: UInt8[np.ndarray, "height width 3"], *, again: bool = True
    ) -> Float[np.ndarray, "faces 5"]:
        """Boxes x0 y0 x1 y1 and score of the faces in an RGB picture, the largest first.

        With ``again``, a finer look is taken where the first one finds no face, or only small ones.
        """
        found = self._find(pixels, SMALLEST_PIXELS)
        if again and not (longer_side(found) >= LARGE * self._min_pixels).any():
            found = _merged(self._find(pixels, FINE_PIXELS), found)
        sides = longer_side(found)
        order = np.argsort(-sides, kind="stable")
        return np.asarray(found[order[sides[order] >= (1 - SIDE_ERROR) * self._min_pixels]])


@dataclass
class _Track:
    number: int
    box: Box
    score: float
    seen_ns: int
    lost: bool = False
    mesh: Mesh | None = None
    """The last mesh, if the next frame's may be looked for around it."""


class Tracker:
    """Follows the faces of a stream of frames. A face lost for longer than ``max_gap_seconds`` ends its track.

    ``clock`` measures the stages ``detect`` and ``mesh``.
    """

    def __init__(
        self, detector: Detector, mesh: FaceMesh, config: config.Faces, clock: Clock = lambda _: nullcontext()
    ) -> None:
        self._detector, self._mesh, self._config, self._clock = detector, mesh, config, clock
        self._tracks: list[_Track] = []
        self._opened = 0
        self._due_ns: int | None = None
        self._fine_due_ns: int | None = None

    def push(self, pixels: UInt8[np.ndarray, "height width 3"], pts_ns: int, new_shot: bool) -> list[Face]:
        """The faces of the next frame, by track. ``new_shot`` ends all tracks first."""
        if new_shot:
            self._tracks, self._due_ns, self._fine_due_ns = [], None, None
        known = {t.number for t in self._tracks if not t.lost}
        meshes = self._follow(pixels, pts_ns)
        just_lost = known - meshes.keys()
        boxes: dict[int, Box] = {}
        if just_lost or self._due_ns is None or pts_ns >= self._due_ns:
            boxes = self._look(pixels, pts_ns, meshes)
        gap_ns = self._config.max_gap_seconds * NS
        self._tracks = [t for t in self._tracks if pts_ns - t.seen_ns <= gap_ns]
        return list(self._faces(meshes, boxes))

    def _follow(self, pixels: np.ndarray, pts_ns: int) -> dict[int, Mesh]:
        """Mesh by track, of the tracks whose face is near where it was."""
        meshes = {t.number: m for t in self._tracks if (m := self._near(pixels, t.box, t.mesh)) is not None}
        meshes = self._one_each(meshes)
        for track in self._tracks:
            self._mark(track, meshes.get(track.number), pts_ns)
        return meshes

    def _near(self, pixels: np.ndarray, box: Box, last: Mesh | None = None) -> Mesh | None:
        """The mesh of the face that was at ``box``, and had the mesh ``last``, a frame ago."""
        with self._clock("mesh"):
            mesh = None if last is None else self._mesh.follow(pixels, last)
            if mesh is None or overlap(mesh.box, box) < MIN_OVERLAP:
                mesh = self._look_near(pixels, box)
        return mesh

    def _look_near(self, pixels: np.ndarray, box: Box) -> Mesh | None:
        """The mesh of the face at ``box``; a second try with another region where it is not found.

        It is then found once more as it will be in the frames to come, so that it does not jump in the second one.
        """
        mesh = self._mesh.detect(pixels, square_around(box, ROI_SCALE))
        if mesh is None:
            mesh = self._mesh.detect(pixels, square_around(box, ROI_SCALE_MISSED))
        elif overlap(mesh.box, box) < MIN_OVERLAP:
            mesh = self._mesh.detect(pixels, square_around(box, ROI_SCALE_OTHER))
        if mesh is None or overlap(mesh.box, box) < MIN_OVERLAP:
            return None
        return self._mesh.follow(pixels, mesh) or mesh

    def _one_each(self, meshes: dict[int, Mesh]) -> dict[int, Mesh]:
        """Where two tracks hold one face, it belongs to the one that it moved least from."""
        last = {t.number: t.box for t in self._tracks}
        kept: dict[int, Mesh] = {}
        for number in sorted(meshes, key=lambda n: (-overlap(meshes[n].box, last[n]), n)):
            if not any(overlap(meshes[number].box, k.box) >= SAME_OVERLAP for k in kept.values()):
                kept[number] = meshes[number]
        return kept

    def _mark(self, track: _Track, mesh: Mesh | None, pts_ns: int) -> None:
        track.lost, track.mesh = mesh is None, mesh
        if mesh is not None:
            track.box, track.seen_ns = mesh.box, pts_ns

    def _look(self, pixels: np.ndarray, pts_ns: int, meshes: dict[int, Mesh]) -> dict[int, Box]:
        """Detect; bring back lost tracks, open new ones. Adds to ``meshes``; returns boxes of faces without a mesh."""
        fine = self._fine_due_ns is None or pts_ns >= self._fine_due_ns
        if fine:
            self._fine_due_ns = pts_ns + round(self._config.every_seconds * NS)
        with self._clock("detect"):
            found = list(self._detector.detect(pixels, again=fine))
        owners = [self._known(f) for f in found]
        for followed in self._tracks:
            if not any(followed is owner for owner in owners):
                followed.mesh = None  # the detector sees no face here: it is looked for anew, not followed
        found = [f for f, owner in zip(found, owners, strict=True) if owner is None]
        boxes: dict[int, Box] = {}
        unclear = False
        for lost, face in self._match([t for t in self._tracks if t.lost], found):
            mesh = self._fresh(pixels, face[:4], meshes)
            track = lost or self._open(face, mesh)
            unclear |= mesh is None
            if track is None:
                continue
            track.score = float(face[4])
            self._mark(track, mesh, pts_ns)
            if mesh is None:
                boxes[track.number] = face[:4]
            else:
                meshes[track.number] = mesh
        unclear |= any(t.lost for t in self._tracks)
        self._due_ns = pts_ns + (RETRY_NS if unclear else round(self._config.every_seconds * NS))
        return boxes

    def _open(self, face: Float[np.ndarray, " 5"], mesh: Mesh | None) -> _Track | None:
        """A new track for a detection whose mesh was found; a detection without one is not believed."""
        if mesh is None or len(self._tracks) >= self._config.max_faces:
            return None
        self._opened += 1
        self._tracks.append(_Track(self._opened, mesh.box, float(face[4]), seen_ns=0))
        return self._tracks[-1]

    def _known(self, face: Float[np.ndarray, " 5"]) -> _Track | None:
        """The track that follows this detection's face, if any; its score is taken over."""
        for track in self._tracks:
            if not track.lost and same_face(face[:4], track.box):
                track.score = float(face[4])
                return track
        return None

    def _match(
        self, lost: Sequence[_Track], found: Sequence[Float[np.ndarray, " 5"]]
    ) -> Iterator[tuple[_Track | None, Float[np.ndarray, " 5"]]]:
        """Each detection with the lost track that it continues, if any; those first."""
        pairs: dict[int, _Track] = {}
        if lost and found:
            cost = np.array([[distance(t.box, f[:4]) for f in found] for t in lost])
            for i, j in zip(*linear_sum_assignment(cost), strict=True):
                if cost[i, j] < 1:
                    pairs[int(j)] = lost[i]
        for j in sorted(range(len(found)), key=lambda j: j not in pairs):
            yield pairs.get(j), found[j]

    def _fresh(self, pixels: np.ndarray, box: Box, meshes: dict[int, Mesh]) -> Mesh | None:
        """The mesh of a detection, unless it is that of a face that is followed already."""
        mesh = self._near(pixels, box)
        if mesh is None or any(overlap(mesh.box, m.box) >= SAME_OVERLAP for m in meshes.values()):
            return None
        return mesh

    def _faces(self, meshes: dict[int, Mesh], boxes: dict[int, Box]) -> Iterator[Face]:
        for track in self._tracks:
            mesh = meshes.get(track.number)
            box = boxes.get(track.number) if mesh is None else mesh.box
            if box is not None:
                scored = np.array([*box, track.score], np.float32)
                points, shapes = (None, None) if mesh is None else (mesh.points, mesh.shapes)
                yield Face(track.number, scored, points, shapes)


def longer_side(boxes: Float[np.ndarray, "faces _"]) -> Float[np.ndarray, " faces"]:
    """Longer side of each box."""
    return np.asarray(np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]))


def square_around(box: Box, scale: float) -> Box:
    """The square about a box's middle whose side is ``scale`` times the box's longer side."""
    half = scale * max(box[2] - box[0], box[3] - box[1]) / 2
    middle = (box[:2] + box[2:4]) / 2
    return np.concatenate([middle - half, middle + half])


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    shared = _area(np.concatenate([np.maximum(a[:2], b[:2]), np.minimum(a[2:4], b[2:4])]))
    union = _area(a) + _area(b) - shared
    return shared / union if union > 0 else 0.0


def covers(a: Box, b: Box) -> bool:
    """Whether two boxes share more than two fifths of the smaller one: a face and a part of it."""
    shared = _area(np.concatenate([np.maximum(a[:2], b[:2]), np.minimum(a[2:4], b[2:4])]))
    return shared > 0.4 * min(_area(a), _area(b))


def same_face(detected: Box, followed: Box) -> bool:
    """Whether a detection is of the face with the box ``followed``: detectors differ in what they call the face."""
    return overlap(detected, followed) >= MIN_OVERLAP or distance(detected, followed) < 0.35


def distance(a: Box, b: Box) -> float:
    """Distance of two boxes' middles in longer sides of the larger; infinite if their sizes differ twofold."""
    sides = longer_side(np.stack([a, b]))
    if sides.max() > 2 * sides.min():
        return 1e6
    return float(np.hypot(*(a[:2] + a[2:4] - b[:2] - b[2:4])) / 2 / sides.max())


def _area(box: Box) -> float:
    width, height = float(box[2] - box[0]), float(box[3] - box[1])
    return width * height if width > 0 and height > 0 else 0.0


def _merged(first: Float[np.ndarray, "n 5"], second: Float[np.ndarray, "m 5"]) -> Float[np.ndarray, "k 5"]:
    """Both, without those of the second that the first has too."""
    new = [box for box in second if not any(covers(box[:4], known[:4]) for known in first)]
    return np.concatenate([first, np.array(new, np.float32).reshape(-1, 5)])


Find = Callable[[UInt8[np.ndarray, "height width 3"], int], Float[np.ndarray, "faces 5"]]
"""From a picture, and the pixels that the smallest face wanted should have in what the network sees."""


def _yunet(path: Path | None, config: config.Faces) -> Find:
    """YuNet (Wu et al. 2023) in OpenCV."""
    network = cv2.FaceDetectorYN.create(str(path), "", (320, 320), config.min_score, 0.3)

    def find(pixels: np.ndarray, smallest: int) -> np.ndarray:
        scale = min(1.0, smallest / config.min_pixels, LONGEST_INPUT / max(pixels.shape[:2]))
        size = tuple(max(32, round(side * scale)) for side in pixels.shape[1::-1])
        network.setInputSize(size)
        small = cv2.cvtColor(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)
        _, rows = network.detect(small)
        if rows is None:
            return np.zeros((0, 5), np.float32)
        boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
        back = np.tile(np.divide(pixels.shape[1::-1], size), 2)
        return np.asarray(np.concatenate([boxes * back, rows[:, -1:]], axis=1), np.float32)

    return find


def _mediapipe(config: config.Faces) -> Find:
    """MediaPipe's full-range model, on the whole picture and on tiles in which the smallest faces wanted are found."""
    import mediapipe as mp  # noqa: PLC0415 (0.8 s that no command should wait for)

    if not hasattr(mp, "solutions"):
        raise WeightsError(
            f"mediapipe {mp.__version__} carries no face detector. "
            "Run `toolkit models pull yunet`, or install mediapipe==0.10.21."
        )
    network = mp.solutions.face_detection.FaceDetection(model_selection=1, min_detection_confidence=config.min_score)

    def find(pixels: np.ndarray, smallest: int) -> np.ndarray:
        if smallest != SMALLEST_PIXELS:  # the tiles see every face
            return np.zeros((0, 5), np.float32)
        kept: list[np.ndarray] = []
        for x, y, width, height in tiles(pixels.shape[1], pixels.shape[0], TILE_FACES * config.min_pixels):
            tile = np.ascontiguousarray(pixels[y : y + height, x : x + width])
            for face in network.process(tile).detections or ():
                box = face.location_data.relative_bounding_box
                corners = [box.xmin, box.ymin, box.xmin + box.width, box.ymin + box.height]
                scaled = np.multiply(corners, [width, height] * 2) + [x, y] * 2
                found = np.array([*scaled, face.score[0]], np.float32)
                if not any(covers(k[:4], found[:4]) for k in kept):
                    kept.append(found)
        return np.array(kept, np.float32).reshape(-1, 5)

    return find


def tiles(width: int, height: int, side: int) -> Iterator[tuple[int, int, int, int]]:
    """The whole picture, then, if it is larger than ``side``, squares of that side a quarter over each other."""
    yield 0, 0, width, height
    if max(width, height) <= side:
        return
    for y in _starts(height, side):
        for x in _starts(width, side):
            yield x, y, min(side, width - x), min(side, height - y)


def _starts(length: int, side: int) -> list[int]:
    count = 1 + max(0, -(-(length - side) * 4 // (3 * side)))
    return [round(i * (length - side) / (count - 1)) if count > 1 else 0 for i in range(count)]
