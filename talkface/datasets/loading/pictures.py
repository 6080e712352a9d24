"""Pictures of a window: the part of the crop that is kept, its size, and points that go along."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Int64, UInt8

from talkface.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The video's frames: a square part of the crop, resized.

    ``size`` is the side in pixels, ``part`` the middle of the crop that is kept (1.0: all). ``zoom`` is the largest
    share that is cut off at random, from sides drawn at random too; ``light`` the largest change of brightness,
    contrast and colour. One draw a window.
    """

    size: int = 256
    part: float = 1.0
    zoom: float = 0.0
    light: float = 0.0

    def __post_init__(self) -> None:
        if not (self.size > 0 and 0 < self.part <= 1 and 0 <= self.zoom < 1 and 0 <= self.light < 1):
            raise ConfigError(f"{self}: expected size > 0, 0 < part <= 1, 0 <= zoom < 1 and 0 <= light < 1")

    def square(self, side: int, rng: np.random.Generator) -> tuple[int, int, int]:
        """x, y and side of the part to keep of a crop with ``side`` pixels."""
        middle = max(round(side * self.part), 1)
        kept = max(round(middle * (1 - self.zoom * rng.random())), 1)
        x, y = rng.integers(0, middle - kept, 2, endpoint=True) + (side - middle) // 2
        return int(x), int(y), kept


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
