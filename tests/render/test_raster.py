"""The rasteriser: pixels where the projection says, near before far, texture the right way up."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from talkface.render.raster import Camera, fill_indices, front_order, light, shade


def square(x: float, y: float, side: float) -> np.ndarray:
    """Corners in pixels in the order of a mesh's quads: top left, bottom left, bottom right, top right."""
    return np.array([[x, y], [x, y + side], [x + side, y + side], [x + side, y]], float)


def test_projection() -> None:
    camera = Camera(width=400, height=200, fov_degrees=90)
    pixels = camera.project(np.array([[0, 0, -10.0], [1, 0, -10], [0, 1, -10], [0, 10, -10]]))
    assert np.allclose(pixels, [[200, 100], [210, 100], [200, 90], [200, 0]])


def test_near_covers_far() -> None:
    points = np.array([[-1, 1], [-1, -1], [1, -1], [1, 1.0]])
    both = np.concatenate([np.c_[points, [-10] * 4], np.c_[points, [-20] * 4]])
    quads = np.array([[0, 1, 2, 3], [4, 5, 6, 7]], np.int32)
    pixels = Camera().project(both)
    order = front_order(pixels, both[:, 2], quads, np.zeros(2), np.zeros(2, bool))
    assert order.tolist() == [1, 0]
    biased = front_order(pixels, both[:, 2], quads, np.array([0, 15.0]), np.zeros(2, bool))
    assert biased.tolist() == [0, 1]


def test_faces_away_are_left_out() -> None:
    pixels = square(10, 10, 5)
    away = np.array([[3, 2, 1, 0]], np.int32)
    assert len(front_order(pixels, np.zeros(4), away, np.zeros(1), np.zeros(1, bool))) == 0
    assert len(front_order(pixels, np.zeros(4), away, np.zeros(1), np.ones(1, bool))) == 1


def test_texture_is_neither_flipped_nor_shifted() -> None:
    texture = np.zeros((64, 64, 3), np.uint8)
    texture[..., 0], texture[..., 1] = np.arange(64)[None, :] * 4, np.arange(64)[:, None] * 4
    corners = square(20, 30, 63)[None]
    values = np.array([[[0, 0, 0.9], [0, 63, 0.9], [63, 63, 0.9], [63, 0, 0.9]]])
    buffer = np.zeros((128, 128), np.int32)
    fill_indices(buffer, corners)
    picture = np.full((128, 128, 3), 7, np.uint8)
    shade(picture, buffer, corners, values, texture)
    inside = picture[32:90, 22:80].astype(float)
    assert np.all(np.diff(inside[..., 0], axis=1).mean(axis=1) > 3)
    assert np.all(np.diff(inside[..., 1], axis=0).mean(axis=0) > 3)
    assert np.abs(np.diff(inside[..., 0], axis=0)).max() <= 1
    assert (picture[:28] == 7).all() and (picture[:, 100:] == 7).all()


@settings(deadline=None, max_examples=20)
@given(st.floats(5, 60), st.floats(5, 60), st.floats(3, 40))
def test_filled_area_is_the_quads(x: float, y: float, side: float) -> None:
    buffer = np.zeros((128, 128), np.int32)
    fill_indices(buffer, square(x, y, side)[None])
    assert side**2 <= np.count_nonzero(buffer) + 2 * side + 1
    assert np.count_nonzero(buffer) <= (side + 2) ** 2


def test_light_comes_from_above_and_image_left() -> None:
    up, down, left, right, front = light(np.array([[0, 1.0, 0], [0, -1, 0], [-1, 0, 0], [1, 0, 0], [0, 0, 1]]))
    assert front > up > down and left > right
    assert min(down, right) > 0 and front <= 1.05
