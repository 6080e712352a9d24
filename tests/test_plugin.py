"""The package in examples/plugin, installed into a folder of its own: found by name, in worker processes too."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from talkface.datasets.open import open_dataset
from talkface.motion import Motion, head_rows, steady_pts
from talkface.render.synthetic import two_people
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the plug-in is installed beside what is there."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    copied = tmp_path_factory.mktemp("source") / "plugin"
    subprocess.run(["cp", "-r", str(ROOT / "examples" / "plugin"), str(copied)], check=True)
    subprocess.run([*pip, "--target", str(folder), str(copied)], check=True)
    paths = [str(folder), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def run(installed: dict[str, str], *arguments: object, code: int = 0) -> str:
    found = subprocess.run(
        [sys.executable, *map(str, arguments)], env=installed, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == code, found.stdout + found.stderr
    return found.stdout


TOOLKIT = ("-m", "talkface.cli")


def test_it_keeps_what_tasks_and_metrics_promise(installed: dict[str, str]) -> None:
    """The contract tests of this package, on the plug-in's own names; our pages need not name what is not ours."""
    tests = [f"tests/{kind}/test_contract.py" for kind in ("train", "metrics", "annotate")]
    chosen = "(rest or steadiness or warmth) and not docs and not documented"
    said = run(installed, "-m", "pytest", *tests, "-k", chosen, "-vv", "-p", "no:cacheprovider")
    for name in ("rest", "steadiness", "warmth"):
        assert re.search(rf"\[(\w+-)?{name}\] PASSED", said), f"no contract test of {name} ran"


def test_it_trains_and_measures(installed: dict[str, str], talkers: str, tmp_path: Path) -> None:
    run(installed, *TOOLKIT, "train", "rest", "--data", talkers, "--out", tmp_path / "run", "--preset", "tiny",
        "--workers", "0", "--cpu")  # fmt: skip
    arkit = np.zeros((10, 52), np.float32)
    arkit[1::2] = 0.5
    head = head_rows(np.zeros((10, 3)))
    Motion(pts_ns=steady_pts(10, 25), arkit=arkit, head=head, fps=25.0).save(tmp_path / "m.npz")
    said = run(installed, *TOOLKIT, "evaluate", tmp_path / "m.npz", "--metrics", "steadiness", "--json")
    assert json.loads(said)["values"]["frame_change"]["value"] == pytest.approx(0.5)


def test_workers_find_it(installed: dict[str, str], tmp_path: Path, models: Path) -> None:
    """By its name on two worker processes, and by its place where nobody offers the name."""
    two_people(tmp_path / "two.mp4", seconds=1.2)
    given = ("--models", models, "--offline")
    out = tmp_path / "dataset"
    run(installed, *TOOLKIT, "ingest", tmp_path / "two.mp4", "--out", out, "--workers", "0", *given)
    run(installed, *TOOLKIT, "annotate", out, "--with", "warmth", "--workers", "2", *given)
    made = open_dataset(str(out))
    shares = made.arrays(made.keys()[0], ["warmth"])["warmth"]
    assert ((shares > 0.3) & (shares < 0.8)).all()
