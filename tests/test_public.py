"""``import talkface``: what it offers, and that it costs nothing; the examples of docs/python.md."""

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import talkface
from talkface.cli import command_module
from tests.conftest import ROOT
from tests.generate.test_motion import write_sound

LAZY = """
import sys, talkface
heavy = {"numpy", "torch", "av", "cv2", "pydantic", "pyarrow", "typer", "scipy"} & set(sys.modules)
assert not heavy, heavy
assert all(name in dir(talkface) for name in talkface.__all__)
assert callable(talkface.ingest) and not {"av", "torch"} & set(sys.modules)
from talkface.ingest.scan import scan
import talkface.train.loop
assert callable(talkface.ingest) and callable(talkface.train) and talkface.ingest.scan.scan is scan
"""


def run(code: str, folder: Path) -> str:
    found = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_nothing_heavy_is_imported_before_it_is_used(tmp_path: Path) -> None:
    """And functions stay functions once the packages of their names are imported."""
    run(LAZY, tmp_path)


@pytest.mark.parametrize("name", talkface.__all__)
def test_functions_are_typed_documented_and_in_the_docs(name: str) -> None:
    found = inspect.unwrap(getattr(talkface, name))
    signature = inspect.signature(found)
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(p.annotation is not inspect.Parameter.empty for p in signature.parameters.values())
    assert found.__doc__ and f"`talkface.{name}(" in (ROOT / "docs" / "python.md").read_text()
    assert f"import {name} as {name}" in (ROOT / "talkface" / "__init__.pyi").read_text()


@pytest.mark.parametrize("name", ["annotate", "evaluate", "export", "ingest", "render", "sample", "train", "transfer"])
def test_defaults_are_the_commands(name: str) -> None:
    """Where function and command have an argument of one name, both do the same without it."""
    ours = inspect.signature(inspect.unwrap(getattr(talkface, name))).parameters
    theirs = inspect.signature(command_module(name).command).parameters
    common = [n for n in ours if n in theirs]
    assert len(common) >= 3
    for argument in common:
        default = ours[argument].default
        # `toolkit train --dry-run` needs no data: the command asks for them later, the function at once.
        needed = default is inspect.Parameter.empty and theirs[argument].default is None
        assert needed or default == theirs[argument].default, argument


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'ingset'"):
        talkface.ingset  # noqa: B018


def test_the_examples_run(talkers: str, media: Path, tmp_path: Path) -> None:
    """On a video of shared media, and the talkers of the tests."""
    shutil.copytree(talkers, tmp_path / "talkers")
    (tmp_path / "videos").mkdir()
    shutil.copy(media / "emotional" / "dreamtalk__M030_front_happy_level3_001.mp4", tmp_path / "videos" / "a.mp4")
    write_sound(tmp_path / "hello.wav", 1.0)
    codes = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    assert len(codes) == 3
    first, second, third = (run(code, tmp_path) for code in codes)
    assert re.search(r"\(\d+, 52\)", first)
    assert "step 2, loss" in second and "25 " in second and (tmp_path / "talk.mp4").stat().st_size > 1000
    assert third.startswith("DatasetError") or third.startswith("ConfigError")
