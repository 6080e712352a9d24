"""Model files that several test files look through."""

from pathlib import Path

import pytest

from tests.conftest import once


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that `stand_ins.MAKERS` can make."""
    from tests.annotate.stand_ins import MAKERS, stand_in_models  # noqa: PLC0415 (seconds to import)

    def make(folder: Path) -> None:
        folder.mkdir()
        stand_in_models(folder, *MAKERS)

    return once(tmp_path_factory, "stand_ins", make)
