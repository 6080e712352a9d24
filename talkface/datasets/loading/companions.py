"""Clips with the same labels: numbers for their combinations, and others of a clip's kind."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from talkface.errors import ConfigError


class Companions:
    """Other clips with the same labels: the same speaker with the same emotion, unless told otherwise."""

    def __init__(self, clips: pa.Table, by: Sequence[str] = ("speaker", "emotion")) -> None:
        self._group = label_groups(clips, by)
        self._order = np.argsort(self._group, kind="stable")
        self._place = np.empty_like(self._order)
        self._place[self._order] = np.arange(len(self._order))
        sorted_groups = self._group[self._order]
        self._low = np.searchsorted(sorted_groups, self._group, side="left")
        self._high = np.searchsorted(sorted_groups, self._group, side="right")

    def rows(self, row: int) -> Int64[np.ndarray, " others"]:
        """Rows of all other clips with the labels of ``row``; none where one of its labels is not known."""
        if self._group[row] < 0:
            return self._order[:0]
        same = self._order[self._low[row] : self._high[row]]
        return same[same != row]

    def draw(self, row: int, rng: np.random.Generator) -> int | None:
        """One of `rows` at random, or None if there is none."""
        others = self._high[row] - self._low[row] - 1
        if self._group[row] < 0 or others < 1:
            return None
        place = self._low[row] + int(rng.integers(others))
        return int(self._order[place + (place >= self._place[row])])


def label_groups(clips: pa.Table, by: Sequence[str]) -> Int64[np.ndarray, " clips"]:
    """A number a combination of labels, from 0; -1 where one of them is not known. Raises ConfigError for no label."""
    groups = np.zeros(clips.num_rows, np.int64)
    known = np.ones(clips.num_rows, bool)
    for name in by:
        if name not in clips.column_names:
            raise ConfigError(f"no label {name!r}; there are: {', '.join(clips.column_names)}")
        codes = clips.column(name).combine_chunks().dictionary_encode().indices
        known &= codes.is_valid().to_numpy(zero_copy_only=False)
        code = codes.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        groups = np.unique(groups * (code.max(initial=0) + 1) + code, return_inverse=True)[1].astype(np.int64)
    found: np.ndarray = np.where(known, groups, -1)
    return found
