"""Who speaks when several faces are in the picture."""

from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int


def owners(talk: Float[np.ndarray, "tracks times"]) -> Int[np.ndarray, " times"]:
    """Which track speaks at each time: the one with the highest log-odds, -1 where all are below 0. NaN is silent."""
    odds = np.nan_to_num(talk, nan=-np.inf)
    return np.where(odds.max(axis=0) > 0, odds.argmax(axis=0), -1)


def runs(values: Int[np.ndarray, " times"]) -> list[tuple[int, int, int]]:
    """Start, end and value of each stretch of one value."""
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return [(start, end, int(values[start])) for start, end in pairwise(edges) if start < end]
