"""Two videos on one clock: which frame of the reference belongs to each generated one, and what was done for it."""

from collections.abc import Iterator, Sequence
from typing import Final

import cv2
import numpy as np
from jaxtyping import Int64, UInt8

from talkface.clip import NS
from talkface.metrics.base import Face

Picture = UInt8[np.ndarray, "_ _ 3"]

SHAPE: Final = 0.02
"""Aspect ratios may differ by this share; beyond, scaling would distort the face."""
SAME_RATE: Final = 0.01
"""Rates may differ by this share before it is said."""
_FEW_FRAMES: Final = 1.5
"""Ends may lie apart by this many frames before it is said."""


def both(generated: Face, reference: Face) -> Iterator[tuple[Picture, Picture]]:
    """Every generated frame with the reference's nearest in time, scaled to its size, as long as both last.

    Nothing where the two have other shapes.
    """
    assert generated.pictures is not None and reference.pictures is not None
    mine, theirs = generated.times_of_pictures(), reference.times_of_pictures()
    at = nearest(theirs, mine)
    shown = enumerate(reference.pictures())
    index, other = next(shown, (0, None))
    for one, wanted in zip(generated.pictures(), at, strict=False):
        if wanted < 0 or other is None:
            continue
        while index < wanted:
            index, other = next(shown)
        if not _same_shape(one.shape, other.shape):
            return
        yield one, _scaled(other, one.shape)


def nearest(clock_ns: Int64[np.ndarray, " m"], at_ns: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Index of the frame nearest to each time; -1 more than half a frame before the clock's start or after its end."""
    if len(clock_ns) == 0:
        return np.full(len(at_ns), -1, np.int64)
    after = np.searchsorted(clock_ns, at_ns).clip(1, max(len(clock_ns) - 1, 1))
    before = after - 1
    after = after.clip(max=len(clock_ns) - 1)
    index = np.where(at_ns - clock_ns[before] <= clock_ns[after] - at_ns, before, after)
    half = max(_step(clock_ns), _step(at_ns)) / 2
    outside = (at_ns < clock_ns[0] - half) | (at_ns > clock_ns[-1] + half)
    return np.where(outside, -1, index).astype(np.int64)


def _step(clock_ns: Int64[np.ndarray, " m"]) -> float:
    return float(np.median(np.diff(clock_ns))) if len(clock_ns) > 1 else NS / 25


def _same_shape(one: Sequence[int], other: Sequence[int]) -> bool:
    return abs(one[1] * other[0] / (one[0] * other[1]) - 1) <= SHAPE


def _scaled(picture: Picture, shape: Sequence[int]) -> Picture:
    if picture.shape == tuple(shape):
        return picture
    smaller = shape[0] < picture.shape[0]
    size = (shape[1], shape[0])
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC).astype(np.uint8)


def notes(pairs: Sequence[tuple[Face, Face]]) -> list[str]:
    """A sentence for whatever was done to bring the pictures of a pair together."""
    return [note for pair in pairs if all(f.pictures is not None for f in pair) for note in _notes(*pair)]


def _notes(generated: Face, reference: Face) -> Iterator[str]:
    mine, theirs = generated.times_of_pictures(), reference.times_of_pictures()
    name = generated.key
    if len(mine) == 0 or len(theirs) == 0:
        yield f"{name}: no frame in {'it' if len(mine) == 0 else 'its reference'}: its pictures are not compared."
        return
    rates = [NS / _step(clock) for clock in (mine, theirs)]
    if abs(rates[0] / rates[1] - 1) > SAME_RATE:
        yield f"{name}: {rates[0]:.4g} fps, its reference {rates[1]:.4g}: each frame meets the nearest in time."
    lasts = [(clock[-1] - clock[0] + _step(clock)) / NS for clock in (mine, theirs)]
    if abs(lasts[0] - lasts[1]) > _FEW_FRAMES / min(rates):
        common = int((nearest(theirs, mine) >= 0).sum())
        yield (
            f"{name}: {lasts[0]:.2f} s, its reference {lasts[1]:.2f} s: pictures are compared in the "
            f"{common} of {len(mine)} frames that both have."
        )
    yield from _sizes(name, *(next(iter(face.pictures()), None) for face in (generated, reference) if face.pictures))


def _sizes(name: str, one: Picture | None, other: Picture | None) -> Iterator[str]:
    if one is None or other is None or one.shape == other.shape:
        return
    sizes = f"{name}: {one.shape[1]} x {one.shape[0]} px, its reference {other.shape[1]} x {other.shape[0]}"
    if _same_shape(one.shape, other.shape):
        yield f"{sizes}: the reference is scaled to the generated size."
    else:
        yield f"{sizes}, of another shape: their pictures are not compared. Crop both alike first."
