"""The command line as a whole: every command has help with an example, and exit codes mean what they say."""

import inspect
import json
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from talkface.cli import app, command_module, command_names
from talkface.commands._options import INTERRUPTED
from tests.conftest import command


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


@pytest.mark.parametrize("words", leaves(), ids=" ".join)
def test_whoever_takes_models_takes_offline(words: tuple[str, ...]) -> None:
    """So that the same options go to every command."""
    found = typer.main.get_command(app)
    for word in words:
        found = found.commands[word]  # type: ignore[attr-defined]
    options = {name for parameter in found.params for name in parameter.opts}
    assert not {"--models"} <= options or {"--offline"} <= options


def test_importing_the_commands_is_quick() -> None:
    """Nothing heavy at import: what a command needs, it loads itself."""
    for name in command_names():
        source = inspect.getsource(command_module(name))
        heads = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
        assert not [h for h in heads if any(w in h for w in ("torch", "cv2", "mediapipe", "talkface.ingest"))], name


EACH = """
import json, sys
from talkface.cli import _run
for words in json.loads(sys.argv[1]):
    sys.argv[1:] = words
    print("exit", _run(), file=sys.stderr)
"""


def test_exit_codes(tmp_path: Path) -> None:
    """And one line says what is wrong."""
    gone, out = str(tmp_path / "gone.mp4"), ["--out", str(tmp_path / "out")]
    known = {
        ("ingest", str(tmp_path), *out): ("no videos found", 1),
        ("ingest", gone, *out): ("no such file", 1),
        ("ingest", str(tmp_path), *out, "--layout", "xyz"): ("no layout named", 2),
        ("ingest", str(tmp_path), *out, "--with", "xyz"): ("no annotator named", 2),
        ("stats", str(tmp_path)): ("no dataset.json", 1),
    }
    run = [sys.executable, "-c", EACH, json.dumps(list(known))]
    errors = subprocess.run(run, stderr=subprocess.PIPE, text=True, check=True).stderr.splitlines()
    for (words, code), said, ended in zip(known.values(), errors[::2], errors[1::2], strict=True):
        assert words in said
        assert ended == f"exit {code}"
    assert list(tmp_path.iterdir()) == []
    assert "No such command" in subprocess.run(command("ingst"), capture_output=True, text=True, check=False).stderr


def test_ctrl_c_while_sources_are_looked_at(tmp_path: Path) -> None:
    """A server that takes the call and never answers does not keep it from ending."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.mp4"
        run = command("ingest", url, "--out", tmp_path / "out", "--offline")
        process = subprocess.Popen(run, stderr=subprocess.PIPE, text=True)
        with silent.accept()[0]:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert errors == ""
    assert not (tmp_path / "out").exists()
