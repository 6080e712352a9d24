"""Masks of the face, lips and eyes in a picture: from boxes and from landmarks, of a frame or of a whole window.

Points and boxes are in pixels of the picture (as `Windows` gives them with pictures), whose first pixel spans 0..1. A
mask is true at pixels whose middle lies inside; what is missing (NaN) covers nothing.
"""

from typing import Final, Literal, get_args

import cv2
import numpy as np
from jaxtyping import Bool, Float

from talkface.face_mesh import IBUG68

Region = Literal["face", "lips", "eyes"]

PARTS68: Final = {
    "face": (tuple(range(27)),),
    "lips": (tuple(range(48, 60)),),
    "eyes": ((*range(17, 22), *range(36, 42)), (*range(22, 27), *range(42, 48))),
}
"""iBUG's points around each part of a region: eyes with their brows, lips by their outer border."""

OVAL: Final = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150,
    136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
"""The mesh's points around the face, forehead with it."""


def parts(region: Region, points: int) -> tuple[tuple[int, ...], ...]:
    """Numbers of the points around each part of a region, of the 478 of the mesh or of iBUG's 68.

    Raises ValueError for another region or number.
    """
    if region not in get_args(Region) or points not in (68, 478):
        raise ValueError(f"expected one of {', '.join(get_args(Region))} and 68 or 478 points, got {region}, {points}")
    if points == 68:
        return PARTS68[region]
    return (OVAL,) if region == "face" else tuple(tuple(IBUG68[list(p)].tolist()) for p in PARTS68[region])


def box_masks(
    boxes: Float[np.ndarray, "frames box"], size: int, *, grow: float = 0.0
) -> Bool[np.ndarray, "frames size size"]:
    """A mask a box (x0 y0 x1 y1, and maybe a score), each side longer by the share ``grow``, half of it on each end."""
    low, high = boxes[:, None, :2], boxes[:, None, 2:4]
    more = (high - low) * grow / 2
    middle = np.arange(size)[:, None] + 0.5
    inside = (middle >= low - more) & (middle < high + more)
    return np.asarray(inside[:, None, :, 0] & inside[:, :, None, 1])


def landmark_masks(
    points: Float[np.ndarray, "frames points dims"], size: int, region: Region = "face", *, grow: float = 0.0
) -> Bool[np.ndarray, "frames size size"]:
    """A mask a frame: the convex hull of each part of a region, of 478 or 68 points.

    ``grow`` pixels are added all around. iBUG's points give a face up to the brows, the mesh up to the hair.
    """
    around = [list(part) for part in parts(region, points.shape[1])]
    masks = np.zeros((len(points), size, size), np.uint8)
    for mask, frame in zip(masks, points[..., :2], strict=True):
        for part in around:
            _fill(mask, frame[part], grow)
    return masks.astype(bool)


def region_boxes(
    points: Float[np.ndarray, "frames points dims"], region: Region, *, grow: float = 0.0
) -> Float[np.ndarray, "frames 4"]:
    """x0 y0 x1 y1 around a region's points, ``grow`` pixels further on each side; NaN where they are missing."""
    chosen = points[:, [i for part in parts(region, points.shape[1]) for i in part], :2]
    return np.concatenate([chosen.min(axis=1) - grow, chosen.max(axis=1) + grow], axis=1)


def union(masks: Bool[np.ndarray, "frames size size"]) -> Bool[np.ndarray, "size size"]:
    """Where any frame of a window has its mask."""
    return np.asarray(masks.any(axis=0))


def _fill(mask: np.ndarray, points: Float[np.ndarray, "points 2"], grow: float) -> None:
    """Add the hull of points to a mask, at the middles of its pixels."""
    if not np.isfinite(points).all():
        return
    hull = cv2.convexHull(points.astype(np.float32))[:, 0].astype(np.float64)
    y, x = np.mgrid[: len(mask), : len(mask)] + 0.5
    edges = np.roll(hull, -1, axis=0) - hull
    length = np.maximum(np.linalg.norm(edges, axis=1), 1e-9)
    # How far each middle lies outside of each edge, the hull's orientation taken from its area.
    turn = np.sign(cv2.contourArea(hull.astype(np.float32), oriented=True)) or 1.0
    away = [turn * ((y - b) * dx - (x - a) * dy) / n for (a, b), (dx, dy), n in zip(hull, edges, length, strict=True)]
    mask[np.min(away, axis=0) >= -grow] = 1
