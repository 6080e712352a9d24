"""What the documentation says is so."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from talkface.config import Ingest
from talkface.datasets.build.job import build
from talkface.store import Folder
from tests.conftest import ROOT
from tests.datasets.conftest import make_plan

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_configuration_page_shows_the_defaults() -> None:
    shown = blocks(ROOT / "docs" / "configuration.md", "toml")
    assert Ingest.model_validate(tomllib.loads(shown[0])) == Ingest()
    changed = Ingest.model_validate(tomllib.loads(shown[1]))
    assert changed.build.thresholds["coverage"].min == 0.9


@pytest.mark.parametrize("page", ["README.md", "docs/format.md"])
def test_the_loading_examples_run(page: str, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "dataset")
    build(folder, make_plan(folder, shard_megabytes=10, score="speech_share"))
    for code in blocks(ROOT / page, "python"):
        result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("happy") == 12


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_command_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    listed = subprocess.run(
        [sys.executable, "-m", "talkface.cli", "--help"], capture_output=True, text=True, check=True
    )
    names = re.findall(r"^│ (\w+)", listed.stdout, re.MULTILINE)
    assert "ingest" in names
    for name in names:
        assert f"`toolkit {name}" in text, name


@pytest.mark.parametrize("page", ["motion.md", "rendering.md", "metrics.md"])
def test_examples_without_a_dataset_run(page: str, tmp_path: Path) -> None:
    (code,) = blocks(ROOT / "docs" / page, "python")
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
