"""Pictures of a window: the part of the crop that is kept, its size, and points that go along."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import cv2
import numpy as np
from jaxtyping import Float, Int64, UInt8

from talkface.errors import ConfigError

NOSE_TIP: Final = {"lm": 1, "lm68": 30}
"""Number of the nose's tip among the points of a column."""

HEIGHTS: Final = 1.8
"""Side of a square around the nose, in heights of the face's box: all of the head lies in it."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The video's frames: a square part of the crop, resized.

    ``size`` is the side in pixels, ``part`` the middle of the crop that is kept (1.0: all). ``zoom`` is the largest
    share that is cut off at random, from sides drawn at random too; ``light`` the largest change of brightness,
    contrast and colour. One draw a window.

    ``centre="nose"`` puts the nose's tip in the middle, by its median over the window, and cuts `HEIGHTS` times the
    median height of the clip's face around it, as EMOdiffhead aligns: faces then have one size, whatever the crop.
    Black where that goes beyond the crop; where the window shows no face, its clip's median.
    """

    size: int = 256
    part: float = 1.0
    zoom: float = 0.0
    light: float = 0.0
    centre: Literal["crop", "nose"] = "crop"

    def __post_init__(self) -> None:
        if not (self.size > 0 and 0 < self.part <= 1 and 0 <= self.zoom < 1 and 0 <= self.light < 1):
            raise ConfigError(f"{self}: expected size > 0, 0 < part <= 1, 0 <= zoom < 1 and 0 <= light < 1")
        if self.centre not in ("crop", "nose"):
            raise ConfigError(f"Pictures: centre is crop or nose, got {self.centre!r}")

    @property
    def changes(self) -> bool:
        """Whether pictures show something else than the whole crop."""
        return bool(self.zoom or self.light or self.part != 1 or self.centre != "crop")

    def square(self, side: int, rng: np.random.Generator, face: "Face | None" = None) -> tuple[int, int, int]:
        """x, y and side of the part to keep of a crop with ``side`` pixels; around the nose of a ``face``."""
        middle = max(round((side if face is None else HEIGHTS * face.height) * self.part), 1)
        kept = max(round(middle * (1 - self.zoom * rng.random())), 1)
        corner = (side - middle) // 2 if face is None else np.round(face.nose - middle / 2).astype(int)
        x, y = rng.integers(0, middle - kept, 2, endpoint=True) + corner
        return int(x), int(y), kept


@dataclass(frozen=True)
class Face:
    """Tip of the nose and height of the box, in pixels of the crop."""

    nose: Float[np.ndarray, " 2"]
    height: float


def face_of(
    columns: Mapping[str, np.ndarray], frames: Int64[np.ndarray, " some"], crop: Float[np.ndarray, "2 3"]
) -> Face | None:
    """The face in some frames of a clip, of its columns in pixels of the source; None where the clip shows none."""
    name = next(name for name in NOSE_TIP if name in columns)
    tips, boxes = columns[name][:, NOSE_TIP[name], :2], columns["box"]
    heights = boxes[:, 3] - boxes[:, 1]
    known = np.isfinite(tips).all(axis=1)
    if not known.any() or not np.isfinite(heights).any():
        return None
    chosen = tips[frames][known[frames]]
    tip = np.median(chosen if len(chosen) else tips[known], axis=0)
    scale = float(np.sqrt(np.linalg.det(crop[:, :2])))
    return Face(crop[:, :2] @ tip + crop[:, 2], float(np.nanmedian(heights)) * scale)


def cut_out(
    picture: UInt8[np.ndarray, "height width 3"], x: int, y: int, side: int
) -> UInt8[np.ndarray, "side side 3"]:
    """A square of a picture; black where it goes beyond it."""
    height, width = picture.shape[:2]
    if x >= 0 and y >= 0 and x + side <= width and y + side <= height:
        return picture[y : y + side, x : x + side]
    out = np.zeros((side, side, 3), np.uint8)
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + side, width), min(y + side, height)
    if left < right and top < bottom:
        out[top - y : bottom - y, left - x : right - x] = picture[top:bottom, left:right]
    return out


def move_points(values: np.ndarray, matrix: Float[np.ndarray, "2 3"]) -> np.ndarray:
    """Boxes (n, 5) or points (n, points, 2 or 3) through a matrix that scales and shifts; z scales along."""
    out = values.copy()
    if values.ndim == 2:
        corners = values[:, :4].reshape(-1, 2, 2) @ matrix[:, :2].T + matrix[:, 2]
        out[:, :4] = corners.reshape(-1, 4)
        return out
    out[..., :2] = values[..., :2] @ matrix[:, :2].T + matrix[:, 2]
    out[..., 2:] = values[..., 2:] * np.sqrt(np.linalg.det(matrix[:, :2]))
    return out


def nearest(clock_ns: Int64[np.ndarray, " frames"], times_ns: Int64[np.ndarray, " times"]) -> np.ndarray:
    """Index of the frame nearest to each time; the earlier one of two."""
    high = np.clip(np.searchsorted(clock_ns, times_ns), 1, max(len(clock_ns) - 1, 1))
    high = np.minimum(high, len(clock_ns) - 1)
    low = np.maximum(high - 1, 0)
    index: np.ndarray = np.where(times_ns - clock_ns[low] <= clock_ns[high] - times_ns, low, high)
    return index


def resize(picture: UInt8[np.ndarray, "side side 3"], out: UInt8[np.ndarray, "size size 3"]) -> None:
    """Fill ``out`` with the picture."""
    size = len(out)
    if size == len(picture):
        out[:] = picture
        return
    smaller = size < len(picture)
    cv2.resize(picture, (size, size), dst=out, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
