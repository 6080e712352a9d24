"""Networks that start from what closed forms found (`talkface.train.inputs.cca`): small, for minutes of speech."""

from typing import Any, Final

import numpy as np
import scipy.fft
import torch
from jaxtyping import Float
from torch import nn

from talkface.nets.lip import ROWS

CEPSTRA: Final = 24
"""Coefficients kept of a row's cosine transform: its envelope, without the voice's pitch."""
BEFORE, MIDDLE, AFTER = (1, 4), 7, (10, 13)
"""Which rows around a frame are looked at, each averaged with the next: in the middle of all frames of a window, and at
its ends those before the first and after the last."""
MEL_BANDS: Final = 80
"""Rows of this width are log-mel and go through a cosine transform; states of a network are taken as they are."""


def cepstra_of(rows: Float[torch.Tensor, "*batch bands"]) -> Float[torch.Tensor, "*batch kept"]:
    """Cosine transform of the bands of mel, its first `CEPSTRA` coefficients; other rows are themselves."""
    if rows.shape[-1] != MEL_BANDS:
        return rows
    basis = scipy.fft.dct(np.eye(rows.shape[-1]), axis=1, norm="ortho")[:, :CEPSTRA]
    return rows @ torch.from_numpy(basis).to(rows)


def n_cepstra(bands: int) -> int:
    """Numbers that `cepstra_of` leaves of a row."""
    return CEPSTRA if bands == MEL_BANDS else bands


def centre_taps(step: float) -> Float[np.ndarray, "taps 2"]:
    """Rows of a frame in pairs, as `frame_cepstra` looks at them: rows from the frame, and half their distance.
    ``step`` is how many rows of the column lie from one that is looked at to the next."""
    first = np.arange(0, ROWS, 2)
    return np.stack([_place(first, step), np.full(len(first), step / 2)], axis=1)


def window_taps(frames: int, rows_a_frame: float, step: float) -> Float[np.ndarray, "taps 2"]:
    """The same for a window of frames, as `window_cepstra` looks at them: from its first frame."""
    steps = np.arange(frames) * rows_a_frame
    before, middle, after = (_place(np.array(rows), step) for rows in (BEFORE, MIDDLE, AFTER))
    at = np.concatenate([before, steps + middle, steps[-1] + after])
    return np.stack([at, np.full(len(at), step / 2)], axis=1)


def _place(row: Any, step: float) -> Any:
    """Rows from the frame to the middle of a pair that begins with this row of the 16."""
    return (row + 0.5 - (ROWS - 1) / 2) * step


def _rows(sound: Float[torch.Tensor, "*batch flat"]) -> Float[torch.Tensor, "*batch 16 kept"]:
    return cepstra_of(sound[..., :-1].unflatten(-1, (ROWS, -1)))


def frame_cepstra(sound: Float[torch.Tensor, "*batch flat"]) -> Float[torch.Tensor, "*batch taps_kept"]:
    """Cepstra around each frame, at `centre_taps`."""
    return _rows(sound).unflatten(-2, (ROWS // 2, 2)).mean(-2).flatten(-2)


def window_cepstra(sound: Float[torch.Tensor, "batch frames flat"]) -> Float[torch.Tensor, "batch taps kept"]:
    """Cepstra of a window, at `window_taps`."""
    rows = _rows(sound)
    ends = [rows[:, 0, i : i + 2].mean(1) for i in BEFORE], [rows[:, -1, i : i + 2].mean(1) for i in AFTER]
    middle = rows[:, :, MIDDLE : MIDDLE + 2].mean(2)
    return torch.cat([torch.stack(ends[0], 1), middle, torch.stack(ends[1], 1)], dim=1)


class RegressedShapes(nn.Module):
    """Audio2BS that starts from a ridge regression: lively shapes (`mouth.lively`) are linear in the sound around a
    frame, and a small network with much dropout adds what is not.

    ``rest`` and ``scale`` put them back: mean and deviation of the logarithms of the data's shapes, ``smallest`` what
    was added before the logarithm.
    """

    weights: torch.Tensor
    rest: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self, weights: torch.Tensor, rest: torch.Tensor, scale: torch.Tensor, smallest: float, hidden: int,
        dropout: float, noise: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.smallest, self.noise = smallest, noise
        self.register_buffer("weights", weights)
        self.register_buffer("rest", rest)
        self.register_buffer("scale", scale)
        width, shapes = weights.shape
        self.enter = nn.Sequential(nn.Dropout(dropout), nn.Conv1d(width, hidden, 1), nn.GELU())
        self.found = nn.Sequential(
            nn.Dropout(dropout), nn.Conv1d(hidden, hidden, 3, padding=1), nn.GELU(),
            nn.Dropout(dropout), nn.Conv1d(hidden, hidden, 3, padding=2, dilation=2), nn.GELU(), nn.Dropout(dropout),
        )  # fmt: skip
        self.leave = nn.Conv1d(hidden, shapes, 1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(
        self, sound: Float[torch.Tensor, "batch frames flat"]
    ) -> tuple[Float[torch.Tensor, "batch frames shapes"], Float[torch.Tensor, "batch frames hidden"]]:
        """Shapes in 0..1."""
        seen = frame_cepstra(sound)
        if self.training and self.noise:
            seen = seen + self.noise * torch.randn_like(seen)
        found = self.found(self.enter(seen.transpose(1, 2)))
        moved = seen @ self.weights + self.leave(found).transpose(1, 2)
        shapes = (self.rest + self.scale * moved).exp() - self.smallest
        return shapes.clamp(0, 1), found.transpose(1, 2)


class CcaSync(nn.Module):
    """The expert as canonical directions of lively mouths and of cepstra. What each direction is worth is learned on;
    with ``hidden`` also what small networks, which start from nothing, add to them.

    Each side has a number of its own beside its directions, where the other side has 0: a window in which nothing moves
    or sounds is at right angles to all, and says nothing.
    """

    mouth_directions: torch.Tensor
    sound_directions: torch.Tensor

    def __init__(
        self, mouth: torch.Tensor, sound: torch.Tensor, gains: torch.Tensor, hidden: int, dropout: float,
        kept: int = CEPSTRA,
    ) -> None:  # fmt: skip
        """``kept`` is `n_cepstra` of the sound's rows."""
        super().__init__()
        directions, taps = len(gains), len(sound) // kept
        self.register_buffer("mouth_directions", mouth)
        self.register_buffer("sound_directions", sound)
        self.log_worth = nn.Parameter(gains.log())
        self.log_quiet = nn.Parameter(gains.sum().log())
        self.mouth: nn.Module | None = None
        self.sound: nn.Module | None = None
        if hidden:
            self.mouth = nn.Sequential(
                nn.Flatten(), nn.Dropout(dropout), nn.Linear(len(mouth), hidden), nn.GELU(), nn.Dropout(dropout),
                _from_nothing(hidden, directions),
            )  # fmt: skip
            self.sound = nn.Sequential(
                nn.Dropout(dropout), nn.Conv1d(kept, hidden, 3, padding=1), nn.GELU(), nn.Dropout(dropout),
                nn.Flatten(), _from_nothing(taps * hidden, directions),
            )  # fmt: skip

    def embed_mouth(self, mouth: Float[torch.Tensor, "batch frames shapes"]) -> Float[torch.Tensor, "batch width"]:
        """Unit vectors."""
        found = mouth.flatten(1) @ self.mouth_directions
        return self._unit(found if self.mouth is None else found + self.mouth(mouth), 0)

    def embed_sound(self, sound: Float[torch.Tensor, "batch frames flat"]) -> Float[torch.Tensor, "batch width"]:
        """Unit vectors."""
        seen = window_cepstra(sound)
        found = seen.flatten(1) @ self.sound_directions
        return self._unit(found if self.sound is None else found + self.sound(seen.transpose(1, 2)), 1)

    def _unit(self, found: torch.Tensor, side: int) -> torch.Tensor:
        quiet = (self.log_quiet / 2).exp().expand(len(found), 1)
        own = torch.nn.functional.pad(quiet, (side, 1 - side))
        return nn.functional.normalize(torch.cat([found * (self.log_worth / 2).exp(), own], dim=1), dim=-1)

    def forward(
        self, mouth: Float[torch.Tensor, "batch frames shapes"], sound: Float[torch.Tensor, "batch frames flat"]
    ) -> tuple[Float[torch.Tensor, "batch width"], Float[torch.Tensor, "batch width"]]:
        """Both embeddings."""
        return self.embed_mouth(mouth), self.embed_sound(sound)


def _from_nothing(into: int, out: int) -> nn.Linear:
    """A layer that gives 0 until it has learned."""
    layer = nn.Linear(into, out)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
