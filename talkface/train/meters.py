"""Means over many batches that do not all know the same amount."""

import math
from collections import defaultdict

import torch


class Means:
    """Means over everything that was known, by name: a batch counts by how much it knows."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, name: str, mean: torch.Tensor, count: int | torch.Tensor) -> None:
        """A batch's mean over ``count`` known elements; of none, whatever it is counts nothing."""
        known = int(count)
        self._sums[name] += float(mean) * known if known else 0.0
        self._counts[name] += known

    def found(self) -> dict[str, float]:
        """All means; NaN where nothing was known."""
        return {name: total / n if (n := self._counts[name]) else math.nan for name, total in self._sums.items()}
