"""Import contracts hold for a file that nobody has listed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and its contracts."""
    copy = tmp_path_factory.mktemp("tree")
    shutil.copytree(ROOT / "talkface", copy / "talkface", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def check(tree: Path) -> str:
    lint = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", lint, "--no-cache"], cwd=tree, env={"PYTHONPATH": str(tree)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("commands/added.py", "import av", "Only media decodes"),
        ("speech/added.py", "import dask", "Only workers knows Dask"),
        ("nets/added.py", "from talkface.vocab import ARKIT", "Imports point down"),
        ("media/added.py", "from talkface.train import loop", "Imports point down"),
        ("added.py", "", "Imports point down"),
    ],
)
def test_a_new_file_is_held_to_the_contracts(tree: Path, file: str, line: str, contract: str) -> None:
    added = tree / "talkface" / file
    added.write_text(line + "\n")
    try:
        said = check(tree)
    finally:
        added.unlink()
    assert f"{contract} BROKEN" in said or (file == "added.py" and "added" in said)


def test_contracts_hold_as_it_is(tree: Path) -> None:
    assert "BROKEN" not in check(tree) and "kept, 0 broken" in check(tree)
