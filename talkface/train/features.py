"""Sound features as a network sees them: rows around each frame, normalised, with a flag for what is missing."""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64

from talkface.clip import ColumnSpec
from talkface.datasets.reader import Dataset
from talkface.datasets.schema import column_from, spec_dict
from talkface.train.base import Facts
from talkface.train.sound import rows_around

OFFSETS: Final = {"mel": (-3, -2, -1, 0, 1, 2, 3), "w2v": (0,), "ctc": (-1, 0, 1)}
"""Rows around a frame that a network sees: at 80 rows a second a frame of 25 spans 3.2 of them."""


@dataclass(frozen=True)
class SoundFacts:
    """A column on the sound's clock, its normalisation a feature, and the rows around a frame that are used."""

    spec: ColumnSpec
    mean: Float32[np.ndarray, " features"]
    std: Float32[np.ndarray, " features"]
    offsets: tuple[float, ...]

    @property
    def width(self) -> int:
        """Numbers a frame: the rows one after the other, and the flag."""
        return len(self.offsets) * len(self.mean) + 1

    @classmethod
    def learn(cls, dataset: Dataset, column: str, *, clips: int = 1000) -> Self:
        """From all clips of a dataset, or ``clips`` of them, evenly spaced."""
        spec = dataset.spec(column)
        count, total, square = 0, np.zeros(spec.shape), np.zeros(spec.shape)
        for row in np.unique(np.linspace(0, len(dataset) - 1, min(clips, len(dataset))).astype(int)).tolist():
            values = dataset.views([row], [column])[0][column].astype(np.float64)
            values = values[np.isfinite(values).all(axis=1)]
            count, total, square = count + len(values), total + values.sum(0), square + (values**2).sum(0)
        mean = total / max(count, 1)
        std = np.sqrt(np.maximum(square / max(count, 1) - mean**2, 1e-6))
        return cls(spec, mean.astype(np.float32), std.astype(np.float32), OFFSETS[column])

    def facts(self) -> Facts:
        """As plain JSON."""
        numbers = {k: [float(v) for v in getattr(self, k)] for k in ("mean", "std", "offsets")}
        return {"column": spec_dict(self.spec), **numbers}

    @classmethod
    def of(cls, facts: Facts) -> Self:
        """From what `facts` gave."""
        mean, std = (np.array(facts[k], np.float32) for k in ("mean", "std"))
        return cls(column_from(facts["column"]), mean, std, tuple(facts["offsets"]))

    def of_window(
        self, rows: Float[torch.Tensor, "batch rows features"], times_ns: Int64[torch.Tensor, "batch frames"]
    ) -> Float[torch.Tensor, "batch frames width"]:
        """What the network sees of a batch of windows: missing rows are 0, and the flag is 1 where none is missing."""
        mean, std = (torch.as_tensor(v, device=rows.device) for v in (self.mean, self.std))
        around = rows_around((rows - mean) / std, self.spec.rate, self.spec.first_seconds, times_ns, self.offsets)
        flat = around.flatten(2)
        there = torch.isfinite(flat).all(-1, keepdim=True)
        return torch.cat([flat.nan_to_num(0.0), there.to(flat)], dim=-1)
