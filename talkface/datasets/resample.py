"""A column at any times: linear, nearest, and along the great arc for rotations. Missing stays missing.

A value between two rows is missing where either of them is; a value at a row's own time is that row, whatever its
neighbours are. Before the clock the first row holds for ``hold_ns[0]``, after it the last for ``hold_ns[1]``; further
out everything is missing.
"""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int64

from talkface.clip import NS, ColumnSpec

How = Literal["linear", "nearest", "slerp"]
WHOLE = ("latent",)
"""Columns whose rows are pictures: between two of them there is none."""
QUATERNION = ("qw", "qx", "qy", "qz")


def resample(
    values: np.ndarray,
    clock_ns: Int64[np.ndarray, " rows"],
    times_ns: Int64[np.ndarray, " times"],
    how: How = "linear",
    *,
    hold_ns: tuple[int, int] | None = None,
) -> np.ndarray:
    """``values`` (rows, ...), whose row i is at ``clock_ns[i]``, at ``times_ns``: (times, ...).

    ``slerp`` takes (rows, 4) as unit quaternions, in whichever order their parts are. Floats come back as float32
    (float64 stays), missing is NaN. Whole numbers and bits can only be had with ``nearest``: they keep their dtype, and
    are 0 outside the clock. ``hold_ns`` is one median step on both sides unless told. Raises ValueError for what
    cannot be.
    """
    if how not in get_args(How):
        raise ValueError(f"how: expected one of {', '.join(get_args(How))}, got {how!r}")
    if len(values) != len(clock_ns):
        raise ValueError(f"values: expected {len(clock_ns)} rows, one a time, got {len(values)}")
    whole = not np.issubdtype(values.dtype, np.floating)
    if whole and how != "nearest":
        raise ValueError(f"{values.dtype} values lie on no line: use how='nearest'")
    if how == "slerp" and values.shape[1:] != (4,):
        raise ValueError(f"slerp: expected quaternions (rows, 4), got {values.shape}")
    dtype = values.dtype if whole else np.promote_types(np.float32, values.dtype)
    missing = 0 if whole else np.nan
    out = np.full((len(times_ns), *values.shape[1:]), missing, dtype)
    if len(clock_ns) == 0 or len(times_ns) == 0:
        return out
    low, share, known = _between(clock_ns, times_ns, hold_ns or (_median_step(clock_ns),) * 2)
    high = np.minimum(low + 1, len(clock_ns) - 1)
    if how == "nearest":
        out[known] = values[np.where(share > 0.5, high, low)[known]]
        return out
    one, other = values[low].astype(np.float64), values[high].astype(np.float64)
    mixed = _slerp(one, other, share) if how == "slerp" else _lerp(one, other, share)
    at = share.reshape(-1, *[1] * (values.ndim - 1))
    out[known] = np.where(at == 0, one, np.where(at == 1, other, mixed))[known]
    return out


def resample_column(
    spec: ColumnSpec,
    values: np.ndarray,
    clock_ns: Int64[np.ndarray, " rows"],
    times_ns: Int64[np.ndarray, " times"],
    how: How | None = None,
    *,
    hold_ns: tuple[int, int] | None = None,
) -> np.ndarray:
    """As `resample`, by what the column is: its quaternion, if it has one, is never mixed part by part.

    ``how`` None takes slerp where there is a quaternion, nearest for whole numbers and latents, linear otherwise. The
    other parts of a column with a quaternion are linear. Raises ValueError for slerp of a column without one.
    """
    at = quaternion_at(spec)
    if how == "slerp" and at is None:
        raise ValueError(f"{spec.name} holds no quaternion: use how='linear' or 'nearest'")
    if how is None and spec.name in WHOLE:
        how = "nearest"
    if how is None:
        how = "linear" if np.issubdtype(values.dtype, np.floating) else "nearest"
    if at is None or how == "nearest":
        return resample(values, clock_ns, times_ns, how, hold_ns=hold_ns)
    out = resample(values, clock_ns, times_ns, "linear", hold_ns=hold_ns)
    out[:, at] = resample(values[:, at], clock_ns, times_ns, "slerp", hold_ns=hold_ns)
    return out


def quaternion_at(spec: ColumnSpec) -> slice | None:
    """Where a column's quaternion (wxyz) stands, by the names of its parts."""
    if len(spec.shape) != 1:
        return None
    found = (i for i in range(len(spec.names) - 3) if spec.names[i : i + 4] == QUATERNION)
    first = next(found, None)
    return None if first is None else slice(first, first + 4)


def sound_clock(spec: ColumnSpec, rows: int) -> Int64[np.ndarray, " rows"]:
    """Times in ns of the rows of a column on the sound's clock."""
    return np.round((spec.first_seconds + np.arange(rows) / spec.rate) * NS).astype(np.int64)


def _median_step(clock_ns: Int64[np.ndarray, " rows"]) -> int:
    return int(np.median(np.diff(clock_ns))) if len(clock_ns) > 1 else 0


def _between(
    clock_ns: Int64[np.ndarray, " rows"], times_ns: Int64[np.ndarray, " times"], hold_ns: tuple[int, int]
) -> tuple[Int64[np.ndarray, " times"], Float[np.ndarray, " times"], Bool[np.ndarray, " times"]]:
    """The row before each time, the share of the way to the next row (0..1), and whether the time is on the clock."""
    low = np.clip(np.searchsorted(clock_ns, times_ns, side="right") - 1, 0, max(len(clock_ns) - 2, 0))
    step = clock_ns[np.minimum(low + 1, len(clock_ns) - 1)] - clock_ns[low]
    share = np.clip((times_ns - clock_ns[low]) / np.maximum(step, 1), 0.0, 1.0)
    known = (times_ns >= clock_ns[0] - hold_ns[0]) & (times_ns <= clock_ns[-1] + hold_ns[1])
    return low, share, known


def _lerp(one: np.ndarray, other: np.ndarray, share: Float[np.ndarray, " times"]) -> np.ndarray:
    at = share.reshape(-1, *[1] * (one.ndim - 1))
    mixed: np.ndarray = one + (other - one) * at
    return mixed


def _slerp(
    one: Float[np.ndarray, "times 4"], other: Float[np.ndarray, "times 4"], share: Float[np.ndarray, " times"]
) -> Float[np.ndarray, "times 4"]:
    """Shoemake's slerp over the shorter arc; four NaN where any part of either end is NaN."""
    with np.errstate(invalid="ignore"):
        one = one / np.linalg.norm(one, axis=1, keepdims=True)
        other = other / np.linalg.norm(other, axis=1, keepdims=True)
        other = np.where((one * other).sum(1, keepdims=True) < 0, -other, other)
        # Between nearby rotations arccos of the dot product loses half of its digits; this form loses none.
        angle = 2 * np.arctan2(np.linalg.norm(one - other, axis=1), np.linalg.norm(one + other, axis=1))
        whole = np.sinc(angle / np.pi)
        first = (1 - share) * np.sinc((1 - share) * angle / np.pi) / whole
        second = share * np.sinc(share * angle / np.pi) / whole
    mixed: np.ndarray = first[:, None] * one + second[:, None] * other
    return mixed
