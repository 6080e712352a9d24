"""Fixtures every test may ask for: where the real clips and the real model files are."""

import hashlib
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


def files_of(root: Path, *, but: tuple[str, ...] = ()) -> dict[str, str]:
    """Relative path to SHA-256 of every file below ``root``, hidden ones and those that start with ``but`` left out."""
    found = (p for p in sorted(root.rglob("*")) if p.is_file() and not p.name.startswith("."))
    names = {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}
    return {name: digest for name, digest in names.items() if not name.startswith(but or ("\0",))}
