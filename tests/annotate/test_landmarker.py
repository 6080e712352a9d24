"""The networks run by LiteRT give what MediaPipe's own Tasks API gives."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from talkface.annotate._landmarker import Landmarker, best_face, region_of
from talkface.annotate.landmarks import tasks_api
from talkface.media import VideoReader


@pytest.mark.parametrize("clip", ["Moore-AnimateAnyone__1", "LivePortrait__d11", "video-retalking__face1"])
def test_points_and_blendshapes_equal_the_tasks_api(media: Path, models: Path, clip: str) -> None:
    task = models / "face_landmarker.task"
    ours, theirs = Landmarker(task), tasks_api(task)
    found = 0
    for i, frame in enumerate(VideoReader(str(media / "talking" / f"{clip}.mp4"))):
        if i % 10 or i > 120:
            continue
        side = min(frame.rgb.shape[:2])
        for turn in (None, cv2.ROTATE_90_CLOCKWISE):
            region = cv2.resize(frame.rgb[:side, :side], (384, 384), interpolation=cv2.INTER_AREA)
            region = region if turn is None else cv2.rotate(region, turn)
            a, b = ours(region), theirs(region)
            assert (a is None) == (b is None)
            if a is None or b is None:
                continue
            found += 1
            np.testing.assert_allclose(a[0] * 384, b[0] * 384, atol=0.5)
            np.testing.assert_allclose(a[1], b[1], atol=0.02)
    assert found >= 12


def test_nothing_is_found_in_noise(models: Path) -> None:
    rng = np.random.default_rng(0)
    landmarker = Landmarker(models / "face_landmarker.task")
    assert landmarker(rng.integers(0, 255, (200, 200, 3), np.uint8)) is None
    assert landmarker(np.zeros((300, 300, 3), np.uint8)) is None


def test_the_region_levels_the_eyes_and_holds_the_box() -> None:
    face = np.zeros(16)
    face[:4] = 0.4, 0.4, 0.6, 0.6
    face[4:8] = 0.45, 0.45, 0.55, 0.55  # the eyes lie on a slope of 45 degrees
    to_picture = region_of(face, 100)
    right, left = (np.linalg.solve(to_picture[:, :2], eye * 100 - to_picture[:, 2]) for eye in (face[4:6], face[6:8]))
    assert left[1] == pytest.approx(right[1])
    assert left[0] > right[0]
    np.testing.assert_allclose(to_picture @ [128, 128, 1], [50, 50])
    assert np.hypot(*to_picture[:, 0]) * 256 == pytest.approx(30)


def test_overlapping_detections_are_blended_and_others_left_out() -> None:
    faces = np.zeros((3, 16))
    faces[:, :4] = [[0, 0, 1, 1], [0, 0, 1, 0.8], [2, 2, 3, 3]]
    np.testing.assert_allclose(best_face(faces, np.array([0.9, 0.6, 0.8]))[:4], [0, 0, 1, 0.92])
