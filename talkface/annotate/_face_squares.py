"""The face as SyncNet and Light-ASD were shown it: 25 pictures a second, a square that follows the box."""

from typing import Final

import cv2
import numpy as np
from jaxtyping import Float, Int64, UInt8
from scipy.ndimage import median_filter

from talkface.annotate.base import ClipView
from talkface.clip import NS

FPS: Final = 25
SIDE: Final = 224
SCALE: Final = 1.4
"""Side of the square in longer sides of the box; its centre lies 0.2 of these below the box's."""
SMOOTH: Final = 13
"""Pictures over whose median the square moves."""
GREY: Final = (110, 110, 110)
"""What is seen outside the picture."""


def times_of(view: ClipView) -> Int64[np.ndarray, " pictures"]:
    """The times in ns of the pictures, from the clip's start to before its end."""
    n = -(-(view.clip.end_ns - view.clip.start_ns) * FPS // NS)
    return np.arange(n, dtype=np.int64) * (NS // FPS)


def nearest(pts_ns: Int64[np.ndarray, " frames"], times_ns: Int64[np.ndarray, " times"]) -> Int64[np.ndarray, " times"]:
    """Which frame is nearest to each time, the earlier of two."""
    after = np.searchsorted(pts_ns, times_ns).clip(0, len(pts_ns) - 1)
    before = (after - 1).clip(0)
    return np.where(times_ns - pts_ns[before] <= pts_ns[after] - times_ns, before, after)


def follow(view: ClipView) -> UInt8[np.ndarray, "pictures 224 224 3"] | None:
    """Face squares, RGB, at `times_of`; frames without a box are bridged, and None is a clip without any."""
    boxes, pts_ns = view.table.columns["box"][:, :4], view.table.timeline.pts_ns
    seen = np.isfinite(boxes).all(axis=1)
    if not seen.any():
        return None
    times = times_of(view)
    at = [np.interp(times, pts_ns[seen], column) for column in squares(boxes[seen]).T]
    wanted = _smooth(np.stack(at, axis=1))
    wanted[:, :2] = view.clip.to_crop(wanted[:, :2])
    wanted[:, 2] *= np.sqrt(abs(np.linalg.det(view.clip.crop[:, :2])))
    shown = np.zeros((len(times), SIDE, SIDE, 3), np.uint8)
    uses = nearest(pts_ns, times)
    for frame, picture in enumerate(view.pictures()):
        for i in np.flatnonzero(uses == frame):
            shown[i] = _cut(picture, *wanted[i])
    return shown


def squares(boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 3"]:
    """Centre x, y and side of the square for each box x0 y0 x1 y1."""
    side = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.column_stack([middle[:, 0], middle[:, 1] + (SCALE - 1) / 2 * side, SCALE * side]).astype(np.float64)


def _smooth(rows: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    return np.asarray(median_filter(rows, size=(SMOOTH, 1), mode="nearest"))


def _cut(picture: UInt8[np.ndarray, "height width 3"], x: float, y: float, side: float) -> np.ndarray:
    """The square, bilinear; pixels count from their corners outside and from their centres inside OpenCV."""
    scale = SIDE / side
    matrix = np.array([[scale, 0, SIDE / 2 - scale * x], [0, scale, SIDE / 2 - scale * y]])
    matrix[:, 2] += 0.5 * scale - 0.5
    return np.asarray(
        cv2.warpAffine(
            picture, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=GREY
        )
    )
