"""Sharpness, brightness and coverage of real frames: in the right order, and unmoved by light and size."""

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from talkface.annotate.base import ClipView, FaceView
from talkface.annotate.quality import NAMES, Annotator, QualityConfig, crop, look
from talkface.clip import Clip, FrameTable, Source, Timeline

FACES = {
    "emotional/spectre__M003_level_1_disgusted_015.mp4": (700, 320, 1220, 920),
    "talking/LivePortrait__d11.mp4": (140, 90, 370, 380),
    "talking/EDTalk__pose_source2.mp4": (50, 40, 206, 230),
    "emotional/dreamtalk__M030_front_happy_level3_001.mp4": (50, 40, 206, 230),
}
"""Clip to a box around its face in frame 20."""


@pytest.fixture(scope="module", params=FACES)
def face(request: pytest.FixtureRequest, media: Path) -> np.ndarray:
    """A face cut from a real clip, RGB."""
    capture = cv2.VideoCapture(str(media / request.param))
    capture.set(cv2.CAP_PROP_POS_FRAMES, 20)
    found, picture = capture.read()
    capture.release()
    assert found
    return crop(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.array(FACES[request.param], np.float32))


def sharpness(face: np.ndarray) -> float:
    return look(face)[0]


def test_more_blur_is_less_sharp(face: np.ndarray) -> None:
    side = min(face.shape[:2])
    blurred = [cv2.GaussianBlur(face, (0, 0), side * share) for share in (0.004, 0.008, 0.016, 0.032, 0.064)]
    values = [sharpness(picture) for picture in (face, *blurred)]
    assert all(a > b for a, b in pairwise(values)), values
    assert values[0] > 0.05
    assert values[-2] < 0.03


def test_smaller_faces_are_less_sharp(face: np.ndarray) -> None:
    start = cv2.resize(face, (160, 160), interpolation=cv2.INTER_AREA)
    smaller = [cv2.resize(start, (side, side), interpolation=cv2.INTER_AREA) for side in (100, 60, 40)]
    values = [sharpness(picture) for picture in (start, *smaller)]
    assert all(a > 1.2 * b for a, b in pairwise(values)), values


@pytest.mark.parametrize("side", [250, 400, 800])
def test_size_alone_does_not_matter(face: np.ndarray, side: int) -> None:
    """A face enlarged beyond 192 pixels has no more detail than before."""
    start = cv2.resize(face, (192, 192), interpolation=cv2.INTER_AREA)
    larger = cv2.resize(start, (side, side), interpolation=cv2.INTER_CUBIC)
    assert sharpness(larger) == pytest.approx(sharpness(start), rel=0.15)


def test_darker_is_as_sharp(face: np.ndarray) -> None:
    dark = (face * 0.5).astype(np.uint8)
    assert sharpness(dark) == pytest.approx(sharpness(face), rel=0.02)
    assert look(dark)[1] == pytest.approx(look(face)[1] / 2, abs=1)


@pytest.mark.parametrize("value", [0, 127, 255])
def test_flat_picture(value: int) -> None:
    assert look(np.full((50, 300, 3), value, np.uint8)) == (0.0, pytest.approx(value))


def test_brightness_is_luma() -> None:
    for colour, luma in (((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29)):
        assert look(np.full((200, 200, 3), colour, np.uint8))[1] == pytest.approx(luma, abs=1)


def face_view(box: tuple[float, ...], mesh: bool = True, n_faces: int = 1) -> FaceView:
    pixels = np.random.default_rng(0).integers(0, 255, (100, 200, 3), dtype=np.uint8)
    points = np.zeros((478, 3), np.float32) if mesh else None
    return FaceView(pixels=pixels, pts_ns=0, box=np.array([*box, 0.9], np.float32), mesh=points, n_faces=n_faces)


@pytest.mark.parametrize("box", [(-30, -30, -10, -5), (220, 10, 260, 40), (10, 10, 10.2, 40)])
def test_box_outside_the_picture(box: tuple[float, ...]) -> None:
    row = dict(zip(NAMES, Annotator(QualityConfig()).frame(face_view(box))["quality"], strict=True))
    assert np.isnan([row["sharpness"], row["brightness"]]).all()
    assert row["n_faces"] == 1


def test_box_over_the_edge_measures_what_is_there() -> None:
    view = face_view((-50, -50, 60, 50))
    row = dict(zip(NAMES, Annotator(QualityConfig()).frame(view)["quality"], strict=True))
    assert row["brightness"] == pytest.approx(look(view.pixels[:50, :60])[1])
    assert row["face_pixels"] == 110


def scores(rows: list[np.ndarray]) -> dict[str, float]:
    """The scores of a clip whose frames gave these rows."""
    source = Source(uri="a.mp4", name="a.mp4", sha256="0", size=1, layout="plain")
    clip = Clip(key="a", source=source, start_ns=0, end_ns=1, track=0, shot=0, crop=np.eye(2, 3), crop_size=512)
    table = np.array(rows, np.float32).reshape(-1, len(NAMES))
    timeline = Timeline(np.arange(len(table), dtype=np.int64))
    view = ClipView(clip, FrameTable(timeline, {"quality": table}), np.zeros(0, np.int16), False)
    return dict(Annotator(QualityConfig()).clip(view).scores)


def test_scores_of_a_clip_with_gaps() -> None:
    annotator, missing = Annotator(QualityConfig()), np.full(len(NAMES), np.nan, np.float32)
    seen = [annotator.frame(face_view((10, 10, 60, 90), n_faces=n))["quality"] for n in (1, 1, 3)]
    meshless = annotator.frame(face_view((10, 10, 50, 80), mesh=False))["quality"]
    found = scores([*seen, missing, meshless])
    assert found["coverage"] == pytest.approx(3 / 5)
    assert found["face_pixels"] == 80
    assert (found["faces_median"], found["faces_max"]) == (1, 3)
    assert found["sharpness"] == pytest.approx(float(seen[0][0]), rel=0.1)


def test_scores_without_one_face() -> None:
    found = scores([np.full(len(NAMES), np.nan, np.float32)] * 3)
    assert found.pop("coverage") == 0
    assert np.isnan(list(found.values())).all()
