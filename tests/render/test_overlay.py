"""Overlays: marks at the right pixels, axes with the right signs, sheets of the right size."""

import numpy as np
import pytest

from talkface.render.overlay import (
    COLOURS,
    below,
    contact_sheet,
    curves,
    draw_axes,
    draw_box,
    draw_mesh,
    facing,
    write_word,
)
from talkface.render.rig import rotation_matrix


def blank(width: int = 200, height: int = 160) -> np.ndarray:
    return np.full((height, width, 3), 255, np.uint8)


def changed(rgb: np.ndarray) -> np.ndarray:
    """x, y of pixels that are no longer white."""
    y, x = np.nonzero((rgb < 250).any(axis=2))
    return np.stack([x, y], axis=1) + 0.5


def test_box_outline() -> None:
    rgb = blank()
    draw_box(rgb, np.array([40.0, 30, 120, 90]))
    marks = changed(rgb)
    assert np.abs(marks.min(axis=0) - (40, 30)).max() <= 1.5 and np.abs(marks.max(axis=0) - (120, 90)).max() <= 1.5
    assert (rgb[50:70, 60:100] == 255).all()


def test_mesh_points_and_missing_ones() -> None:
    rgb = blank()
    draw_mesh(rgb, np.array([[50.5, 60.5, 3], [np.nan, np.nan, np.nan]]))
    assert np.abs(changed(rgb).mean(axis=0) - (50.5, 60.5)).max() < 0.6


def test_what_faces_the_viewer_runs_counterclockwise() -> None:
    """Of a wedge, the left side is seen and the right one from behind; the lone point belongs to neither."""
    points = np.array([[50.0, 20], [50, 80], [20, 50], [80, 50], [0, 0]])
    found = facing(points, np.array([[0, 2, 1], [0, 1, 3][::-1]]))
    np.testing.assert_array_equal(found, points[[0, 1, 2]])


def test_a_word_is_written_at_the_bottom() -> None:
    rgb = np.zeros((320, 320, 3), np.uint8)
    write_word(rgb, "FLAME")
    y, x = np.nonzero(rgb.any(axis=2))
    assert y.min() > 280 and y.max() == 319 and x.min() == 0 and 40 < x.max() < 120
    assert (rgb[y.min() :, : x.max()] < 100).any(), "dark on light"


def test_nothing_is_drawn_for_nan() -> None:
    rgb = blank()
    draw_box(rgb, np.full(4, np.nan))
    draw_axes(rgb, np.full((3, 3), np.nan), (80, 80), 40)
    assert (rgb == 255).all()


@pytest.mark.parametrize(("channel", "ahead"), [(0, (1, 0)), (1, (0, -1))])
def test_axes_point_to_the_persons_left_and_up(channel: int, ahead: tuple[int, int]) -> None:
    rgb = blank()
    draw_axes(rgb, np.eye(3), (100, 80), 50)
    strong = rgb[..., channel].astype(int) - rgb[..., [c for c in range(3) if c != channel]].max(axis=2) > 60
    y, x = np.nonzero(strong)
    assert np.abs(np.array([x.mean() - 100, y.mean() - 80]) - np.array(ahead) * 25).max() < 6


def test_nose_axis_follows_yaw() -> None:
    rgb = blank()
    draw_axes(rgb, rotation_matrix(40, 0, 0), (100, 80), 50)
    blue = rgb[..., 2].astype(int) - rgb[..., :2].max(axis=2) > 60
    assert np.nonzero(blue)[1].mean() > 108


def test_curves_rise_and_leave_gaps() -> None:
    values = np.linspace(0, 1, 100)
    values[40:60] = np.nan
    strip = curves({"jawOpen": values}, size=(400, 120), now=99)
    assert strip.shape == (120, 400, 3)
    y, x = np.nonzero(np.abs(strip.astype(int) - COLOURS[0]).sum(axis=2) < 40)
    below_text = y > 24
    y, x = y[below_text], x[below_text]
    assert y[x < 60].mean() > y[x > 340].mean() + 40
    assert not ((x > 170) & (x < 230)).any()
    assert (strip[60, 392] < 100).all()


def test_contact_sheet_fits_and_does_not_stretch() -> None:
    wide, tall = np.zeros((50, 100, 3), np.uint8), np.zeros((100, 50, 3), np.uint8)
    sheet = contact_sheet([wide, tall, wide], ["a", "b", "c"], columns=2, tile=(100, 100))
    assert sheet.shape == (2 * 132, 2 * 116, 3)
    black = (sheet[:110, :116] < 5).all(axis=2)
    assert black.any(axis=1).sum() == 50 and black.any(axis=0).sum() == 100


def test_contact_sheet_wants_a_title_a_picture() -> None:
    with pytest.raises(ValueError, match="titles"):
        contact_sheet([blank()], [])


def test_strip_goes_below() -> None:
    assert below(blank(200, 160), curves({}, size=(100, 40))).shape == (200, 200, 3)
