"""Means over batches: each element that is known counts once."""

import math

import pytest
import torch

from talkface.train.meters import Means


def test_a_batch_counts_by_how_much_it_knows() -> None:
    means = Means()
    for batch in (torch.tensor([1.0, 2.0, 6.0]), torch.tensor([11.0]), torch.tensor([])):
        means.add("loss", batch.mean(), len(batch))
        means.add("null", torch.tensor(0.0), 0)
    found = means.found()
    assert found["loss"] == pytest.approx(20 / 4) and math.isnan(found["null"])
