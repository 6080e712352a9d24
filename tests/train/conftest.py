"""A dataset of talkers, made once."""

import pytest
import torch

from tests.train.making import make


@pytest.fixture(scope="session")
def talkers(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Six clips of three speakers, neutral and happy; one without sound."""
    return make(tmp_path_factory.mktemp("talkers") / "dataset", silent=(1,))


@pytest.fixture(scope="session")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Seven speakers of six seconds each, neutral and happy; p2 is the one to hold out."""
    talkers = tuple((f"p{i}", emotion) for i in range(7) for emotion in ("neutral", "happy"))
    return make(tmp_path_factory.mktemp("strangers") / "dataset", talkers, frames=160)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Sums are added up in one order."""
    torch.set_num_threads(1)
