"""A real server on a dataset whose pictures tell their own frame, and a real browser."""

import contextlib
import re
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from talkface.datasets.build.job import rebuild
from talkface.datasets.selection import Selection
from talkface.store import Folder
from tests.conftest import command
from tests.datasets.making import Made, make, steady, variable

pytest.importorskip("fastapi", reason="the extra `view` is not installed")

CLIPS = (
    steady("a-25", 70, seed=1, speaker="anna", emotion="happy"),
    variable("b-vfr", 60, seed=2, speaker="ben", emotion="sad"),
    steady("c-30", 80, 30000 / 1001, seed=3, speaker="cleo", emotion="fear"),
    steady("d-left-out", 25, seed=4, speaker="dora", emotion="happy"),
)
BY_KEY: dict[str, Made] = {c.key: c for c in CLIPS}


@dataclass(frozen=True)
class Served:
    """A running `toolkit view`."""

    address: str
    url: str
    process: subprocess.Popen[str]

    @property
    def port(self) -> int:
        return int(self.address.split(":")[2].split("/")[0])

    @property
    def token(self) -> str:
        return self.address.split("token=")[1]

    def get(self, path: str) -> bytes:
        sign = "&" if "?" in path else "?"
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}{sign}token={self.token}") as answer:
            data: bytes = answer.read()
            return data


@contextlib.contextmanager
def serving(url: str) -> Iterator[Served]:
    """`toolkit view` in a process of its own, until the block ends."""
    with subprocess.Popen(
        command("view", url, "--port", "0", "--no-browser"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=\S{32}\n", line), line + process.stdout.read()
        try:
            yield Served(line.strip(), url, process)
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four clips, one of them dropped by hand and so left in the packs."""
    url = make(tmp_path_factory.mktemp("view") / "dataset", CLIPS, video=True)
    rebuild(Folder(url), Selection(marks={"d-left-out": "drop"}))
    return url


@pytest.fixture
def copy(made: str, tmp_path: Path) -> str:
    """One that a test may change."""
    return str(shutil.copytree(made, tmp_path / "dataset"))


@pytest.fixture(scope="session")
def served(made: str) -> Iterator[Served]:
    with serving(made) as server:
        yield server
