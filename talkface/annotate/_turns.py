"""Who speaks when several faces are in the picture."""

from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int, Int64


def owners(talk: Float[np.ndarray, "tracks times"]) -> Int[np.ndarray, " times"]:
    """Which track speaks at each time: the one with the highest log-odds, -1 where all are below 0. NaN is silent."""
    odds = np.nan_to_num(talk, nan=-np.inf)
    return np.where(odds.max(axis=0) > 0, odds.argmax(axis=0), -1)


def runs(values: Int[np.ndarray, " times"]) -> list[tuple[int, int, int]]:
    """Start, end and value of each stretch of one value."""
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return [(start, end, int(values[start])) for start, end in pairwise(edges) if start < end]


def without_flicker(
    owner: Int[np.ndarray, " times"], times_ns: Int64[np.ndarray, " edges"], shortest_ns: float
) -> Int[np.ndarray, " times"]:
    """Owners with every run of a speaker shorter than ``shortest_ns`` given to the one who speaks on both its sides.

    ``times_ns`` holds the time of each moment, and the end of the last.
    """
    steady, found = owner.copy(), runs(owner)
    for (_, _, before), (start, end, who), (_, _, after) in zip(found, found[1:], found[2:], strict=False):
        if who >= 0 and before == after >= 0 and times_ns[end] - times_ns[start] < shortest_ns:
            steady[start:end] = before
    return steady
