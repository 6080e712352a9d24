"""Expression vectors: FLAME's 50 numbers, or the ARKit shapes that are not the mouth; and how they are dialled."""

from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32

from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError
from talkface.train.base import Facts
from talkface.vocab import ARKIT, MOUTH

Kind = Literal["flame", "arkit"]
Sign = Literal["towards", "printed"]

UPPER: Final = tuple(name for name in ARKIT if name not in MOUTH and name != "tongueOut")
"""Eyes, brows, cheeks and nose: without the mouth's shapes, sound alone can drive the lips."""
PSI: Final = 50
SMALLEST: Final = {"flame": 1e-3, "arkit": 0.01}
"""Standard deviation that a number is at least taken to have."""
CHUNK: Final = 64


@dataclass(frozen=True)
class Expression:
    """Which numbers of a column make an expression, and their normalisation; what the data never knows is 0."""

    kind: Kind
    names: tuple[str, ...]
    mean: Float32[np.ndarray, " numbers"]
    std: Float32[np.ndarray, " numbers"]
    valid: Bool[np.ndarray, " numbers"]

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def learn(cls, dataset: Dataset, kind: Kind, *, clips: int = 4000) -> Self:
        """From the frames of a dataset: all of its clips, or ``clips`` of them, evenly spaced."""
        names = UPPER if kind == "arkit" else dataset.spec("flame").names[:PSI]
        count, total, square = (np.zeros(len(names)) for _ in range(3))
        rows = np.unique(np.linspace(0, len(dataset) - 1, min(clips, len(dataset))).astype(int))
        for chunk in np.array_split(rows, -(-len(rows) // CHUNK)):
            for columns in dataset.views(chunk.tolist(), [kind]):
                values = numbers_of(columns[kind], kind).astype(np.float64)
                seen = np.isfinite(values)
                count += seen.sum(0)
                total += np.where(seen, values, 0).sum(0)
                square += (np.where(seen, values, 0) ** 2).sum(0)
        if not count.any():
            raise ConfigError(f"{dataset.url}: no clip has an expression in {kind}. See: toolkit stats {dataset.url}")
        mean = total / np.maximum(count, 1)
        std = np.sqrt(np.maximum(square / np.maximum(count, 1) - mean**2, 0))
        least = SMALLEST[kind]
        return cls(kind, names, mean.astype(np.float32), np.maximum(std, least).astype(np.float32), count > 0)

    def facts(self) -> Facts:
        """As plain JSON."""
        numbers = {k: [float(v) for v in getattr(self, k)] for k in ("mean", "std")}
        return {"kind": self.kind, "names": list(self.names), **numbers, "valid": [bool(v) for v in self.valid]}

    @classmethod
    def of(cls, facts: Facts) -> Self:
        """From what `facts` gave."""
        mean, std = (np.array(facts[k], np.float32) for k in ("mean", "std"))
        return cls(facts["kind"], tuple(facts["names"]), mean, std, np.array(facts["valid"], bool))

    def of_column(self, rows: Float[torch.Tensor, "*batch columns"]) -> Float[torch.Tensor, "*batch numbers"]:
        """Normalised numbers of a whole column; NaN where a row is missing, 0 for what the data never knows."""
        mean, std, valid = (torch.as_tensor(v, device=rows.device) for v in (self.mean, self.std, self.valid))
        return torch.where(valid, (numbers_of(rows, self.kind) - mean) / std, 0)

    def in_units(self, numbers: Float[torch.Tensor, "*batch numbers"]) -> Float32[np.ndarray, "*batch numbers"]:
        """Back to the column's units; NaN for what the data never knows."""
        values: np.ndarray = numbers.detach().cpu().numpy().astype(np.float32) * self.std + self.mean
        values[..., ~self.valid] = np.nan
        return values.clip(0, 1) if self.kind == "arkit" else values

    def require(self, other: "Expression") -> None:
        """Raise ConfigError if two runs do not mean the same numbers by an expression."""
        if (self.kind, self.names) != (other.kind, other.names):
            raise ConfigError(
                f"the expressions of these runs are {self.kind} ({len(self)}) and {other.kind} ({len(other)}). Train "
                f"both with the same: toolkit train expression_gan --set expression={self.kind}"
            )


def numbers_of(rows: Any, kind: Kind) -> Any:
    """The numbers that make an expression, of rows of the column ``kind``."""
    return rows[..., :PSI] if kind == "flame" else rows[..., [ARKIT.index(name) for name in UPPER]]


def filled(sequence: Float[torch.Tensor, "batch frames numbers"]) -> Float[torch.Tensor, "batch frames numbers"]:
    """Missing frames as the last known one before them, else the first one after; what has none known stays NaN."""
    known = torch.isfinite(sequence).all(-1)
    place = torch.arange(sequence.shape[1], device=sequence.device)
    last = torch.where(known, place, -1).cummax(1).values
    first = known.float().argmax(1, keepdim=True)
    index = torch.where(last < 0, first, last)
    return sequence.gather(1, index[..., None].expand_as(sequence))


def dialled(
    neutral: Float[torch.Tensor, "*batch frames numbers"],
    emotion: Float[torch.Tensor, "*batch frames numbers"],
    k: Float[torch.Tensor, " frames"],
    sign: Sign = "towards",
) -> Float[torch.Tensor, "*batch frames numbers"]:
    """Eq. 14, 15: ``e_n + k (e_y - e_n)``, an intensity a frame.

    ``printed`` is the paper's ``d_y = e_n - e_y``, which leads away from the emotion.
    """
    direction = emotion - neutral if sign == "towards" else neutral - emotion
    return neutral + k[:, None] * direction


def intensities(curve: str, frames: int, fps: float) -> Float32[np.ndarray, " frames"]:
    """An intensity a frame from ``0.7``, or from ``0:0,2:1,4:0.3`` (seconds:value), straight lines between the points.

    Before the first point and after the last it is theirs. Raises ConfigError.
    """
    pairs = [part.split(":") for part in curve.split(",")]
    try:
        points = [(0.0, float(pairs[0][0]))] if pairs == [[curve]] else [(float(s), float(v)) for s, v in pairs]
    except ValueError as error:
        raise ConfigError(f"--intensity {curve}: expected a number, or seconds:value,seconds:value,...") from error
    seconds, values = zip(*points, strict=True)
    if list(seconds) != sorted(set(seconds)) or not np.isfinite(points).all():
        raise ConfigError(f"--intensity {curve}: seconds must rise from point to point.")
    return np.interp(np.arange(frames) / fps, seconds, values).astype(np.float32)
