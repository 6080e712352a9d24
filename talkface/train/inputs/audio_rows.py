"""Columns on the sound's clock, brought to the picture's frames."""

from collections.abc import Sequence
from typing import Final

import torch
from jaxtyping import Float, Int64

from talkface.clip import NS, ColumnSpec

SILENCE: Final = -11.0
"""No band of log-mel is above this in digital silence, which says nothing about a voice or a microphone."""
SOFTEST: Final = 0.3
"""Added to the deviation of each band at the level of a clip."""
FARTHEST: Final = 5.0
"""In deviations, where values at the level of a clip are cut off."""


def rows_around(
    rows: Float[torch.Tensor, "batch rows *width"],
    rate: float,
    first_seconds: float,
    times_ns: Int64[torch.Tensor, "batch frames"],
    offsets: Sequence[float],
    late_ns: Int64[torch.Tensor, " batch"] | None = None,
    margin: float = 0.0,
) -> Float[torch.Tensor, "batch frames offsets *width"]:
    """The rows of a window (as `Windows` cuts them: row 0 is the one nearest to ``margin`` seconds before its start)
    around each frame.

    ``offsets`` are in rows from the frame's time, or from ``late_ns`` later; between two rows it is a line, beyond the
    window its first or last row. NaN stays NaN.
    """
    start = times_ns[:, :1].double() / NS - margin
    first_row = ((start - first_seconds) * rate).round()
    late = 0 if late_ns is None else late_ns.double()[:, None] / NS
    at = (times_ns.double() / NS - first_seconds + late) * rate - first_row
    at = at[..., None] + torch.tensor(offsets, dtype=torch.float64, device=rows.device)
    at = at.clamp(0, rows.shape[1] - 1)
    low = at.floor().long().clamp(max=max(rows.shape[1] - 2, 0))
    share = (at - low).to(rows.dtype).reshape(*at.shape, *[1] * (rows.ndim - 2))
    batch = torch.arange(len(rows), device=rows.device)[:, None, None]
    one, other = rows[batch, low], rows[batch, (low + 1).clamp(max=rows.shape[1] - 1)]
    mixed = one + (other - one) * share
    return torch.where(share == 0, one, torch.where(share == 1, other, mixed))


def window_rows(
    values: Float[torch.Tensor, "rows ..."],
    spec: ColumnSpec,
    start_ns: int,
    frames: int,
    fps: float,
    margin: float = 0.0,
) -> Float[torch.Tensor, "count ..."]:
    """The rows that `Windows` would cut of a whole sound for a window of ``frames`` that starts at ``start_ns``.

    ``margin`` is its ``sound_margin`` in seconds.
    """
    first = round((start_ns / NS - margin - spec.first_seconds) * spec.rate)
    count = round((frames / fps + 2 * margin) * spec.rate)
    out = values.new_full((count, *values.shape[1:]), torch.nan)
    low, high = max(first, 0), min(first + count, len(values))
    if low < high:
        out[low - first : high - first] = values[low:high]
    return out


def own_level(rows: Float[torch.Tensor, "batch rows *width"]) -> Float[torch.Tensor, "batch rows *width"]:
    """Each band less its mean over the window's own rows, in their deviations: who speaks, and into what, is gone.

    Rows of digital silence and missing ones (which stay NaN) do not count.
    """
    inner = tuple(range(2, rows.ndim))
    there = torch.isfinite(rows).flatten(2).all(-1).reshape(*rows.shape[:2], *[1] * len(inner))
    heard = there & (rows.nan_to_num(SILENCE).amax(inner, keepdim=True) > SILENCE)
    heard = torch.where(heard.any(1, keepdim=True), heard, there)
    count = heard.sum(1, keepdim=True).clamp(min=1)
    mean = torch.where(heard, rows, 0).sum(1, keepdim=True) / count
    std = (torch.where(heard, rows - mean, 0).square().sum(1, keepdim=True) / count).sqrt()
    return ((rows - mean) / (std + SOFTEST)).clamp(-FARTHEST, FARTHEST)
