"""The command line as a whole: every command has help with an example, and exit codes mean what they say."""

import inspect
from pathlib import Path

import pytest
from typer.testing import CliRunner

from talkface.cli import app, command_module, command_names
from tests.conftest import Toolkit


def leaves() -> list[tuple[str, ...]]:
    """The words of every command, those of groups included."""
    found: list[tuple[str, ...]] = []
    for name in command_names():
        group = getattr(command_module(name), "app", None)
        inner = [c.name or c.callback.__name__ for c in group.registered_commands if c.callback] if group else []
        found += [(name, i.removesuffix("_").replace("_", "-")) for i in inner] if group else [(name,)]
    return found


@pytest.mark.parametrize("words", leaves(), ids=" ".join)
def test_help_has_an_example_that_calls_it(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*words, "--help"])
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    assert f"Example: toolkit {' '.join(words)}" in text.replace("`", "")


def test_importing_the_commands_is_quick() -> None:
    """Nothing heavy at import: what a command needs, it loads itself."""
    for name in command_names():
        source = inspect.getsource(command_module(name))
        heads = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
        assert not [h for h in heads if any(w in h for w in ("torch", "cv2", "mediapipe", "talkface.ingest"))], name


def test_exit_codes(toolkit: Toolkit, tmp_path: Path) -> None:
    assert "No such command" in toolkit("ingst", code=2).stderr
    assert "no videos found" in toolkit("ingest", tmp_path, "--out", tmp_path / "out", code=1).stderr
    assert "no such file" in toolkit("ingest", tmp_path / "gone.mp4", "--out", tmp_path / "out", code=1).stderr
    assert "no layout named" in toolkit("ingest", tmp_path, "--out", tmp_path / "out", "--layout", "xyz", code=2).stderr
    assert (
        "no annotator named" in toolkit("ingest", tmp_path, "--out", tmp_path / "out", "--with", "xyz", code=2).stderr
    )
