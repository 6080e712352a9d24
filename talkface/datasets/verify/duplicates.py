"""Clips that are the same take: equal in content, or the same picture in another size, compression or container.

Pictures are compared by perceptual hash (pHash: signs of the low frequencies of a small grey picture) at five moments
of a clip. People who sit still look alike in any two of their clips, so a pair counts only if it also moves alike: head
and jaw, frame by frame. Takes that were cut at different places are not found.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import combinations
from typing import Final, Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from talkface.clip import NS
from talkface.datasets.reader import Dataset
from talkface.media import ClipFrames
from talkface.store import sha256_of
from talkface.vocab import ARKIT

MOMENTS: Final = 5
BANDS: Final = 8
"""A hash of 64 bits is compared byte by byte first: pairs that share no byte at any moment differ in 8 bits or more."""

MOST_BITS: Final = 12
"""Copies at three quarters of the size, with another crop, differed in 8 of 64 bits; other people in 18 or more."""

LEAST_ALIKE: Final = 0.8
"""Correlation of the curves. Copies at three quarters of the size reached 0.92 to 0.99, 60 pairs of other clips that
look alike 0.66 at most."""

GRID_NS: Final = NS // 10
LARGEST_BUCKET: Final = 200
"""Hashes that more clips share say nothing (black pictures)."""

How = Literal["content", "picture"]


@dataclass(frozen=True)
class Twins:
    """Two clips that are the same take, and how that is known."""

    one: str
    other: str
    how: How


def duplicates(dataset: Dataset) -> list[Twins]:
    """All pairs of clips that are the same take. Reads every clip's sound and curves, and decodes five pictures."""
    same = set(_of_equal_content(dataset))
    found = [Twins(*pair, "content") for pair in sorted(same)]
    if dataset.info.has_video and {"head", "arkit"} <= {s.name for s in dataset.info.specs()}:
        keys = dataset.keys()
        hashes = {key: picture_hashes(dataset, key) for key in keys}
        alike = sorted(p for p in _candidates(hashes) if p not in same and moves_alike(dataset, *p))
        found += [Twins(*pair, "picture") for pair in alike]
    return found


def _of_equal_content(dataset: Dataset) -> Iterator[tuple[str, str]]:
    """Pairs whose times and whose columns are equal byte by byte, whatever file they came from."""
    members = [m for m in dataset.info.members() if m not in ("json", "mp4")]
    groups = defaultdict(list)
    for row, key in enumerate(dataset.keys()):
        groups[sha256_of(*map(BytesIO, dataset.read([row], members)[0].values()))].append(key)
    for keys in groups.values():
        yield from combinations(sorted(keys), 2)


def picture_hashes(dataset: Dataset, key: str) -> UInt8[np.ndarray, "moments 8"]:
    """The perceptual hash of a clip's crop at moments spread evenly, its ends left out."""
    row = dataset.row(key)
    frames = dataset.clips.column("frames")[row].as_py()
    at = np.linspace(0, frames - 1, MOMENTS + 2).round().astype(int)[1:-1]
    pictures = ClipFrames(dataset.member(key, "mp4"), backend="av").get(at)
    return np.stack([cv2.img_hash.pHash(p)[0] for p in pictures])


def _candidates(hashes: dict[str, UInt8[np.ndarray, "moments 8"]]) -> set[tuple[str, str]]:
    """Pairs that share a byte of a hash at the same moment, and are close at all moments."""
    buckets = defaultdict(list)
    for key, bits in hashes.items():
        for place in np.ndindex(MOMENTS, BANDS):
            buckets[place, int(bits[place])].append(key)
    shared = {
        pair for keys in buckets.values() if len(keys) <= LARGEST_BUCKET for pair in combinations(sorted(keys), 2)
    }
    return {(a, b) for a, b in shared if distance(hashes[a], hashes[b]) <= MOST_BITS}


def distance(one: UInt8[np.ndarray, "moments 8"], other: UInt8[np.ndarray, "moments 8"]) -> float:
    """Bits of 64 that differ, on average over the moments."""
    return float(np.unpackbits(one ^ other).sum() / len(one))


def moves_alike(dataset: Dataset, one: str, other: str) -> bool:
    """Whether head and jaw of two clips go the same way for as long as both last."""
    end = min(dataset.duration_ns(one), dataset.duration_ns(other))
    times = np.arange(0, end, GRID_NS)
    return correlation(_curves(dataset, one, times), _curves(dataset, other, times)) >= LEAST_ALIKE


def _curves(dataset: Dataset, key: str, times_ns: np.ndarray) -> Float[np.ndarray, "times 4"]:
    """The parts of the head's quaternion that turn, and the jaw."""
    head = dataset.column(key, "head", times_ns)[:, 1:4]
    jaw = dataset.column(key, "arkit", times_ns)[:, [ARKIT.index("jawOpen")]]
    return np.concatenate([head, jaw], axis=1)


def correlation(one: Float[np.ndarray, "times n"], other: Float[np.ndarray, "times n"]) -> float:
    """The median over columns of Pearson's r, where both are known; -1 where nothing can be compared."""
    known: Bool[np.ndarray, " times"] = np.isfinite(one).all(axis=1) & np.isfinite(other).all(axis=1)
    if known.sum() < 10:
        return -1.0
    a, b = one[known] - one[known].mean(axis=0), other[known] - other[known].mean(axis=0)
    scale = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    moved = scale > 1e-9
    return float(np.median((a * b).sum(axis=0)[moved] / scale[moved])) if moved.any() else -1.0


def across_splits(dataset: Dataset, pairs: Sequence[Twins]) -> list[Twins]:
    """Those whose clips are in different splits: what was trained on would be tested on."""
    split = dict(zip(dataset.keys(), dataset.clips.column("split").to_pylist(), strict=True))
    return [t for t in pairs if split[t.one] != split[t.other]]
