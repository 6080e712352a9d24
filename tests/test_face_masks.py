"""Masks cover what they name, wherever the face is, and nothing where it is missing."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkface.annotate.landmarks import FaceMesh
from talkface.datasets import open_dataset
from talkface.datasets.loading.pictures import Pictures
from talkface.datasets.loading.windows import Windows
from talkface.face_masks import Region, box_masks, landmark_masks, parts, region_boxes, union
from talkface.face_mesh import IBUG68


@settings(deadline=None, max_examples=50)
@given(st.floats(-10, 50), st.floats(-10, 50), st.floats(0, 60), st.floats(0, 60), st.sampled_from([0.0, 0.3]))
def test_boxes_pixel_by_pixel(x: float, y: float, width: float, height: float, grow: float) -> None:
    (mask,) = box_masks(np.array([[x, y, x + width, y + height, 1.0]]), 40, grow=grow)
    more = np.array([width, height]) * grow / 2
    for row, column in np.ndindex(40, 40):
        inside = x - more[0] <= column + 0.5 < x + width + more[0] and y - more[1] <= row + 0.5 < y + height + more[1]
        assert mask[row, column] == inside


def test_of_a_window_and_of_nothing() -> None:
    boxes = np.array([[2.0, 2, 6, 6], [np.nan] * 4, [10, 10, 14, 12]])
    masks = box_masks(boxes, 16)
    assert masks.sum(axis=(1, 2)).tolist() == [16, 0, 8] and union(masks).sum() == 24
    points = np.full((2, 68, 2), np.nan)
    assert not landmark_masks(points, 16, "lips").any() and np.isnan(region_boxes(points, "lips")).all()
    with pytest.raises(ValueError, match="68 or 478"):
        parts("eyes", 5)
    with pytest.raises(ValueError, match="face, lips, eyes"):
        parts("nose", 68)  # type: ignore[arg-type]


def test_a_square_of_points_grows_by_pixels() -> None:
    points = np.zeros((1, 68, 2))
    points[0, 48:60] = [[10, 10], [20, 10], [20, 16], [10, 16]] * 3
    (plain,), (grown,) = (landmark_masks(points, 40, "lips", grow=g) for g in (0.0, 2.0))
    assert plain.sum() == 60 and grown.sum() == 14 * 10 and plain[10:16, 10:20].all()
    assert region_boxes(points, "lips", grow=5)[0].tolist() == [5, 5, 25, 21]


@pytest.mark.parametrize("region", ["face", "lips", "eyes"])
def test_regions_of_drawn_faces(filmed: str, region: Region) -> None:
    """Lips and eyes lie in the face and in its box; what moves most while talking is in the lips' mask."""
    dataset = open_dataset(filmed)
    windows = Windows(length=50, fps=25, columns=("lm68", "box"), pictures=Pictures(size=96), pad="short")
    (window,) = windows.of(dataset, dataset.keys()[0])
    seen = window["valid"]
    masks, face = (landmark_masks(window["lm68"], 96, r) for r in (region, "face"))
    assert masks[seen].any(axis=(1, 2)).all() and not masks[~seen].any()
    box = box_masks(window["box"], 96, grow=0.15)
    assert (masks & ~box).sum() <= 0.02 * masks.sum()
    if region == "lips":
        assert (masks & ~face).sum() <= 0.02 * masks.sum()
        assert masks[seen].sum() < 0.15 * box[seen].sum()
        assert union(masks).sum() > masks[seen].sum(axis=(1, 2)).max()


def test_a_real_face(media: Path, models: Path) -> None:
    picture = cv2.imread(str(media / "expected/tfjs-models__portrait.jpg"))[..., ::-1].copy()
    height, width = picture.shape[:2]
    mesh = FaceMesh(models / "face_landmarker.task").detect(picture, np.array([0, 0, width, height], np.float32))
    assert mesh is not None
    size = max(height, width)
    for points in (mesh.points[None], mesh.points[None, IBUG68]):
        masks = {r: landmark_masks(points, size, r)[0] for r in ("face", "lips", "eyes")}
        assert (masks["lips"] & ~masks["face"]).sum() == 0 < masks["lips"].sum() < 0.2 * masks["face"].sum()
        assert masks["eyes"].sum() < 0.35 * masks["face"].sum()
        eyes, lips, face = (np.nonzero(masks[r])[0].mean() for r in ("eyes", "lips", "face"))
        assert eyes < face < lips
