"""Fixtures every test may ask for: where the real clips and the real model files are."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _shared(variable: str, folder: str) -> Path:
    path = Path(os.environ.get(variable, ROOT.parent / "shared" / folder))
    if not path.is_dir():
        pytest.skip(f"no real {folder}")
    return path


@pytest.fixture(scope="session")
def media() -> Path:
    """Folder of real clips."""
    return _shared("TALKFACE_TEST_MEDIA", "media")


@pytest.fixture(scope="session")
def models() -> Path:
    """Folder of real model files."""
    return _shared("TALKFACE_TEST_MODELS", "models")
