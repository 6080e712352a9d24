"""Fixtures every test may ask for: where the real clips and the real model files are."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from urllib.request import Request, urlopen

import pytest
from filelock import FileLock
from jaxtyping import install_import_hook

import tests.shapes

install_import_hook("talkface", f"sys.modules['{tests.shapes.__name__}'].check")

from talkface.render.talkers import make_talkers  # noqa: E402  what is imported from here on is checked
from talkface.store import Folder  # noqa: E402
from tests.train.making import make  # noqa: E402

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
def golden() -> Path:
    """Folder of values that the original networks gave on random weights."""
    return _shared("TALKFACE_TEST_GOLDEN", "golden")


@pytest.fixture(scope="session")
def models() -> Path:
    """Folder of real model files."""
    return _shared("TALKFACE_TEST_MODELS", "models")


def files_of(root: Path, *, but: tuple[str, ...] = ()) -> dict[str, str]:
    """Relative path to SHA-256 of every file below ``root``, hidden ones and those that start with ``but`` left out."""
    found = (p for p in sorted(root.rglob("*")) if p.is_file() and not p.name.startswith("."))
    names = {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}
    return {name: digest for name, digest in names.items() if not name.startswith(but or ("\0",))}


@pytest.fixture(scope="session", autouse=True)
def _caches(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Decoded clips of the tests' datasets do not go into the user's own folder."""
    os.environ["TALKFACE_CACHE"] = str(tmp_path_factory.mktemp("caches"))


S3_SERVER = ROOT / ".venv" / "s3server" / "bin" / "moto_server"
BUCKET = "s3://talkface"
"""Exists where the fixture `s3` does."""


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """Address of a real S3 server on this machine that is empty but for ``BUCKET``.

    Until the session ends, the environment of this process and of those it starts names it to s3fs.
    """
    if not S3_SERVER.exists():
        pytest.skip("no S3 server: `make test` installs one")
    run = [S3_SERVER, "-H", "127.0.0.1", "-p", "0"]
    before = dict(os.environ)
    with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        try:
            said = next(line for line in server.stdout if "Running on" in line)
            address = said.split("Running on ")[1].strip()
            keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
            os.environ.update({"AWS_ENDPOINT_URL": address} | keys)
            Thread(target=server.stdout.read, daemon=True).start()  # its log must not fill the pipe
            urlopen(Request(f"{address}/{BUCKET.removeprefix('s3://')}", method="PUT")).close()
            yield address
        finally:
            os.environ.clear()
            os.environ.update(before)
            server.kill()


NOT_DATA = ("packs/", "run.json")
"""What lies in a dataset's folder and is not part of the dataset."""

Toolkit = Callable[..., subprocess.CompletedProcess[str]]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "talkface.cli", *map(str, arguments)]


@pytest.fixture(scope="session")
def toolkit() -> Toolkit:
    """Run the command to its end; checks the exit code unless ``code`` is None."""

    def run(*arguments: str | Path, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=600, check=False)
        assert code is None or result.returncode == code, f"exit {result.returncode}\n{result.stdout}\n{result.stderr}"
        return result

    return run


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that ``make`` fills: made once, whichever of pytest's processes asks first."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not (done := folder.with_suffix(".done")).exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory, toolkit: Toolkit) -> Path:
    """The demo's synthetic clips."""
    return once(tmp_path_factory, "videos", lambda folder: print(toolkit("synth", folder, "--seconds", "3")))


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, toolkit: Toolkit, videos: Path) -> Path:
    """The demo's dataset, made offline with one worker; the demo holds one file that is no video."""

    def make(out: Path) -> None:
        before = files_of(videos)
        result = toolkit("ingest", videos, "--out", out, "--offline", "--workers", "1", code=3)
        assert files_of(videos) == before, "the input was changed"
        assert "PREVIEW" in result.stdout

    return once(tmp_path_factory, "demo", make)


@pytest.fixture(scope="session")
def talkers(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Six clips of three speakers, neutral and happy; one without sound."""
    return make(tmp_path_factory.mktemp("talkers") / "dataset", silent=(1,))


@pytest.fixture(scope="session")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Seven speakers of six seconds each, neutral and happy; p2 is the one to hold out."""
    talkers = tuple((f"p{i}", emotion) for i in range(7) for emotion in ("neutral", "happy"))
    return make(tmp_path_factory.mktemp("strangers") / "dataset", talkers, frames=160)


@pytest.fixture(scope="session")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two people in three clips of two seconds each with pictures of 64 pixels, all of whose truths are known.

    In every 17th frame no face was found.
    """
    small = {"identities": 2, "clips": 3, "seconds": 2.0, "size": 64, "gaps": 17}
    folder = once(tmp_path_factory, "filmed", lambda folder: print(make_talkers(folder, **small)))  # type: ignore[arg-type]
    return Folder(str(folder)).url
