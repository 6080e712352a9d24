"""The order in which an epoch takes its windows."""

import numpy as np
from jaxtyping import Float, Int64

from talkface.datasets.loading.windows import WindowPlan


def by_weight(weights: Float[np.ndarray, " windows"], draw: np.random.Generator) -> Int64[np.ndarray, " windows"]:
    """As many windows as there are, with these odds; each comes floor or ceil of its share times."""
    share = np.cumsum(weights / weights.sum()) * len(weights)
    share[-1] = len(weights)
    times = np.diff(np.floor(share + draw.random()).astype(np.int64), prepend=0)
    windows: np.ndarray = np.repeat(np.arange(len(weights)), times)
    return windows


def runs_of(shards: Int64[np.ndarray, " clips"], run: int) -> Int64[np.ndarray, " clips"]:
    """A number for each clip, the same for ``run`` clips that lie next to each other in a shard."""
    first = np.flatnonzero(np.diff(shards, prepend=-1))
    length = np.diff(np.append(first, len(shards)))
    within = np.arange(len(shards)) - np.repeat(first, length)
    runs: np.ndarray = np.cumsum(within % run == 0) - 1
    return runs


def mixed(
    windows: Int64[np.ndarray, " windows"],
    run_of: Int64[np.ndarray, " windows"],
    buffer: int,
    draw: np.random.Generator,
) -> Int64[np.ndarray, " windows"]:
    """Shuffles runs of clips, then the windows inside every ``buffer`` of them."""
    place = np.argsort(draw.random(int(run_of.max()) + 1))[run_of]
    windows = windows[np.argsort(place, kind="stable")]
    return windows[np.lexsort((draw.random(len(windows)), _blocks(windows, buffer)))]


def rising(windows: Int64[np.ndarray, " windows"], plan: WindowPlan, buffer: int) -> Int64[np.ndarray, " windows"]:
    """The windows of each clip change places within every ``buffer`` of windows, so that they rise."""
    clip, block = plan.clip[windows], _blocks(windows, buffer)
    places, sorted_windows = np.lexsort((clip, block)), np.lexsort((windows, clip, block))
    out = np.empty_like(windows)
    out[places] = windows[sorted_windows]
    return out


def _blocks(windows: Int64[np.ndarray, " windows"], buffer: int) -> Int64[np.ndarray, " windows"]:
    return np.arange(len(windows)) // buffer
