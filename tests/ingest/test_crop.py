"""The square that holds a face: where it lies, where its pixels come from, and where they wait."""

import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkface.config import Cut, Pack, Video
from talkface.errors import RunError
from talkface.ingest.crop import Crops, Region, Spools, Square

WIDE = np.zeros((240, 320, 3), np.uint8)


def pack(size: int = 64, crop_scale: float = 1.8) -> Pack:
    return Pack(video=Video(size=size), cut=Cut(crop_scale=crop_scale))


def box(x: float, y: float, side: float) -> np.ndarray:
    return np.array([x, y, x + side * 0.8, y + side], np.float32)


def crop_of(region: Region, boxes: Sequence[np.ndarray]) -> tuple[Square, np.ndarray]:
    square = region.crop(region.covered(boxes))
    return square, region.matrix(square)


def in_source(matrix: np.ndarray, size: int) -> np.ndarray:
    """Corners x0 y0 x1 y1 of the crop in source pixels."""
    inverse = cv2.invertAffineTransform(matrix)
    return (np.array([[0, 0], [size, size]]) @ inverse[:, :2].T + inverse[:, 2]).ravel()


sides = st.floats(16, 260)
paths = st.lists(st.tuples(st.floats(-20, 20), st.floats(-20, 20), st.floats(0.8, 1.25)), max_size=30)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from([(240, 320), (320, 240), (200, 200), (90, 500)]), st.floats(-40, 400), st.floats(-40, 400),
       sides, paths, st.sampled_from([64, 128]), st.floats(1.05, 3))  # fmt: skip
def test_any_walk(
    shape: tuple[int, int], x: float, y: float, side: float, path: list, size: int, crop_scale: float
) -> None:
    """As long as the region says that it holds the face, the crop does, inside region and picture."""
    picture = np.array(shape[::-1])
    x, y = min(x, picture[0] - side / 2), min(y, picture[1] - side / 2)
    boxes = [box(x, y, side)]
    region = Region(pack(size, crop_scale), boxes[0], np.zeros((*shape, 3), np.uint8))
    for dx, dy, growth in path:
        x, y, side = x + dx, y + dy, side * growth
        if not region.holds(region.covered([*boxes, box(x, y, side)])):
            break
        boxes.append(box(x, y, side))
    square, matrix = crop_of(region, boxes)
    assert min(square.x, square.y) >= 0 and max(square.x, square.y) + square.side <= region.kept
    x0, y0, x1, y1 = in_source(matrix, size)
    pixel = region.square.side / region.kept
    covered = region.covered(boxes)
    assert (covered.low >= np.array([x0, y0]) - 1.5 * pixel).all()
    assert (covered.high <= np.array([x1, y1]) + 1.5 * pixel).all()
    if covered.extent <= picture.min() - 4 * pixel:
        assert min(x0, y0) > -1e-3 and (np.array([x1, y1]) < picture + 1e-3).all(), "nothing outside the picture"


@pytest.mark.parametrize("crop_scale", [1.3, 1.8, 2.5])
def test_a_face_that_stays_is_in_the_middle_and_as_large_as_configured(crop_scale: float) -> None:
    boxes = [box(120, 80, 80)] * 9
    _, matrix = crop_of(Region(pack(64, crop_scale), boxes[0], WIDE), boxes)
    x0, y0, x1, y1 = in_source(matrix, 64)
    assert x1 - x0 == pytest.approx(y1 - y0) == pytest.approx(crop_scale * 80, rel=0.05)
    np.testing.assert_allclose([(x0 + x1) / 2, (y0 + y1) / 2], [152, 120], atol=3)


def test_a_face_near_the_border_is_not_in_the_middle() -> None:
    boxes = [box(5, 3, 60)] * 3
    _, matrix = crop_of(Region(pack(), boxes[0], WIDE), boxes)
    x0, y0, x1, _ = in_source(matrix, 64)
    assert 0 <= x0 < 1 and 0 <= y0 < 1
    assert x1 - x0 == pytest.approx(108, rel=0.05)


def test_a_picture_that_is_a_crop_already_is_left_alone() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    region = Region(pack(128), box(20, 15, 90), picture)
    square, matrix = crop_of(region, [box(20, 15, 90)])
    np.testing.assert_array_equal(matrix, [[1, 0, 0], [0, 1, 0]])
    spool = Spools().open(region.kept)
    spool.write(region.take(picture))
    np.testing.assert_array_equal(next(iter(Crops(spool, 1, square, 128))), picture)


def test_a_face_that_fills_more_than_the_picture_leaves_black_bars() -> None:
    picture = np.full((90, 500, 3), 200, np.uint8)
    boxes = [box(100 + 8 * i, -10, 110) for i in range(8)]
    region = Region(pack(), boxes[0], picture)
    square, _ = crop_of(region, boxes)
    spool = Spools().open(region.kept)
    spool.write(region.take(picture))
    crop = next(iter(Crops(spool, 1, square, 64)))
    assert (crop[0] == 0).all() and (crop[-1] == 0).all()
    assert (crop[32] > 150).all()


def test_a_face_that_grows_leaves_the_region() -> None:
    region = Region(pack(), box(140, 90, 40), WIDE)
    assert region.holds(region.covered([box(140, 90, 40), box(136, 86, 46)]))
    assert not region.holds(region.covered([box(130, 80, 60)] * 3))


def coordinates(width: int = 250, height: int = 240) -> np.ndarray:
    """A picture in which each pixel's red and green tell where its middle is, less 0.5, with noise."""
    y, x = np.mgrid[:height, :width]
    exact = np.stack([x, y, np.full_like(x, 128)], axis=-1)
    return np.clip(np.round(exact + np.random.default_rng(0).normal(0, 1.5, exact.shape)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("size", "side"), [(64, 60), (64, 36), (64, 20), (64, 100), (256, 60), (64, 120)])
def test_pixels_are_where_the_matrix_says(size: int, side: int) -> None:
    boxes = [box(90 + i * side / 29, 80, side) for i in range(20)]
    region = Region(pack(size), boxes[0], coordinates())
    spool = Spools().open(region.kept)
    for _ in boxes:
        spool.write(region.take(coordinates()))
    square, matrix = crop_of(region, boxes)
    crops = list(Crops(spool, len(boxes), square, size))
    assert len(crops) == 20
    assert all(c.shape == (size, size, 3) and c.dtype == np.uint8 and c.flags.c_contiguous for c in crops)
    inverse = cv2.invertAffineTransform(matrix)
    v, u = np.mgrid[:size, :size] + 0.5
    x, y = np.einsum("ij,jhw->ihw", inverse[:, :2], np.stack([u, v])) + inverse[:, 2, None, None]
    inside = (x > 4) & (x < 246) & (y > 4) & (y < 236)
    assert inside.mean() > 0.5
    for channel, where in enumerate((x, y)):
        off = np.where(inside, crops[0][..., channel] + 0.5 - where, np.nan)
        for part in (off[: size // 2], off[size // 2 :], off[:, : size // 2], off[:, size // 2 :]):
            assert abs(np.nanmean(part)) < 0.2, "nowhere is half a pixel lost"
    for crop in crops[1:]:
        np.testing.assert_array_equal(crop, crops[0], err_msg="the crop does not move")


def test_fine_detail_is_averaged_not_sampled() -> None:
    board = np.where(np.indices((320, 320)).sum(axis=0)[..., None] % 2 == 0, 255, 0).astype(np.uint8)
    board = np.repeat(board, 3, axis=2)
    kept = Region(pack(), box(100, 90, 120), board).take(board)
    assert kept.std() < 12
    assert kept.mean() == pytest.approx(127.5, abs=2)


def test_disk_and_memory_give_the_same_pictures() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (9, 40, 40, 3), np.uint8)
    spools = Spools(memory_bytes=4 * 40 * 40 * 3)
    spool = spools.open(40)
    for picture in pictures:
        spool.write(picture)
    assert spools.free_bytes == 0
    for i in (0, 8, 3, 4, 5, 0):
        np.testing.assert_array_equal(spool.read(i), pictures[i])
    del spool
    assert spools.free_bytes == 4 * 40 * 40 * 3


def test_a_part_of_a_frame_does_not_keep_the_frame() -> None:
    frame = np.zeros((40, 80, 3), np.uint8)
    spool = Spools().open(40)
    spool.write(frame[:, :40].copy())
    spool.write(frame.reshape(2, 40, 40, 3)[0])
    frame[:] = 9
    assert spool.read(0).max() == spool.read(1).max() == 0


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_says_so() -> None:
    spool, picture = Spools(memory_bytes=0).open(40), np.zeros((40, 40, 3), np.uint8)
    with files_up_to(10_000), pytest.raises(RunError, match="TMPDIR"):
        for _ in range(9):
            spool.write(picture)
