"""A running average of weights (EMA)."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch


class Average:
    """Exponential moving average of parameters: ``a = d a + (1 - d) p`` after each step.

    The decay ``d`` rises to ``decay`` as ``(1 + n) / (10 + n)`` at step n, so that the first weights are soon
    forgotten. Works on whatever part of the parameters this process holds.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], decay: float) -> None:
        self.decay = decay
        self._parameters = [p for p in parameters if p.requires_grad]
        self._average = [p.detach().clone() for p in self._parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step ``step`` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._average, [p.detach() for p in self._parameters], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The average stands in for the weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, average in zip(self._parameters, self._average, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(kept)
