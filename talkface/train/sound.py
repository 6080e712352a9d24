"""Columns on the sound's clock, brought to the picture's frames."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64

from talkface.clip import NS, ColumnSpec


def rows_around(
    rows: Float[torch.Tensor, "batch rows width"],
    rate: float,
    first_seconds: float,
    times_ns: Int64[torch.Tensor, "batch frames"],
    offsets: Sequence[float],
) -> Float[torch.Tensor, "batch frames offsets width"]:
    """The rows of a window (as `Windows` cuts them: row 0 is the one nearest to its start) around each frame.

    ``offsets`` are in rows from the frame's time; between two rows it is a line, beyond the window its first or last
    row. NaN stays NaN.
    """
    start = times_ns[:, :1].double() / NS
    first_row = ((start - first_seconds) * rate).round()
    at = (times_ns.double() / NS - first_seconds) * rate - first_row
    at = at[..., None] + torch.tensor(offsets, dtype=torch.float64, device=rows.device)
    at = at.clamp(0, rows.shape[1] - 1)
    low = at.floor().long().clamp(max=max(rows.shape[1] - 2, 0))
    share = (at - low).to(rows.dtype)[..., None]
    batch = torch.arange(len(rows), device=rows.device)[:, None, None]
    one, other = rows[batch, low], rows[batch, (low + 1).clamp(max=rows.shape[1] - 1)]
    mixed = one + (other - one) * share
    return torch.where(share == 0, one, torch.where(share == 1, other, mixed))


def window_rows(
    values: Float[torch.Tensor, "rows width"], spec: ColumnSpec, start_ns: int, frames: int, fps: float
) -> Float[torch.Tensor, "count width"]:
    """The rows that `Windows` would cut of a whole sound for a window of ``frames`` that starts at ``start_ns``."""
    first = round((start_ns / NS - spec.first_seconds) * spec.rate)
    count = round(frames / fps * spec.rate)
    out = values.new_full((count, values.shape[1]), torch.nan)
    low, high = max(first, 0), min(first + count, len(values))
    if low < high:
        out[low - first : high - first] = values[low:high]
    return out
