"""Model files: where they come from, under which licence, and where they are on this machine.

A file is looked for in the folder given with ``--models``, in the folder named by ``TALKFACE_MODELS`` and in the user's
cache; only then is it downloaded, and never with ``offline=True``. Every file is checked against its SHA-256 before it
is used. Files inside an installed wheel or inside this package are used where they lie.
"""

import hashlib
import importlib.util
import logging
import os
import shutil
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO, Final, Literal
from urllib.error import HTTPError

import platformdirs
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from talkface.errors import WeightsError

log = logging.getLogger(__name__)

VARIABLE: Final = "TALKFACE_MODELS"
"""Environment variable that names a folder of model files."""

CHUNK: Final = 1 << 18
TIMEOUT_SECONDS: Final = 20
TRIES: Final = 3

Kind = Literal["download", "wheel", "package", "registration"]


@dataclass(frozen=True, kw_only=True)
class Weight:
    """One model file.

    ``kind`` says how it is had: ``download`` from ``url``; inside the installed ``wheel`` or ``package`` named
    ``module``, at ``file`` below its folder; or after ``registration`` at ``url``, by hand. ``size`` is in bytes;
    ``size`` 0 and ``sha256`` "" mean that any content is taken, and are filled in for the file that was found.
    ``commercial`` is whether the licence allows commercial use. ``install`` is the command that brings a wheel.
    """

    name: str
    file: str
    kind: Kind
    licence: str
    commercial: bool
    description: str
    url: str = ""
    sha256: str = ""
    size: int = 0
    module: str = ""
    install: str = ""

    @property
    def filename(self) -> str:
        """Name of the file without folders."""
        return Path(self.file).name


REGISTRY: Final[Mapping[str, Weight]] = {
    w.name: w
    for w in (
        Weight(
            name="face_landmarker",
            file="face_landmarker.task",
            kind="download",
            licence="Apache-2.0",
            commercial=True,
            description="MediaPipe FaceLandmarker: 478-point mesh and 52 blendshapes (float16, version 1)",
            url="https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
            sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
            size=3_758_596,
        ),
        Weight(
            name="yunet",
            file="yunet_n_640_640.onnx",
            kind="download",
            licence="Apache-2.0",
            commercial=True,
            description="YuNet face detector for OpenCV's FaceDetectorYN",
            url="https://raw.githubusercontent.com/ShiqiYu/libfacedetection.train/master/onnx/yunet_n_640_640.onnx",
            sha256="25a606a145a5b6d7271ae138fbd00eba91dad8b83222ae3f2c7ecd0f4a7b0e31",
            size=317_466,
        ),
        Weight(
            name="light_asd",
            file="light_asd_talkset.model",
            kind="download",
            licence="MIT",
            commercial=True,
            description="Light-ASD active speaker detection, fine-tuned on TalkSet",
            url="https://raw.githubusercontent.com/Junhua-Liao/Light-ASD/main/weight/finetuning_TalkSet.model",
            sha256="efc375833887eefa9d209dc92810e18519b04c3c73ea35a549f2a7f40b7d94d5",
            size=4_175_289,
        ),
        Weight(
            name="mediapipe_facemesh",
            file="modules/face_landmark/face_landmark_with_attention.tflite",
            kind="wheel",
            licence="Apache-2.0",
            commercial=True,
            description="478-point face mesh inside mediapipe 0.10.21; no blendshapes",
            module="mediapipe",
            install="pip install mediapipe==0.10.21",
        ),
        Weight(
            name="mediapipe_face_detection",
            file="modules/face_detection/face_detection_full_range_sparse.tflite",
            kind="wheel",
            licence="Apache-2.0",
            commercial=True,
            description="face detector inside mediapipe 0.10.21",
            module="mediapipe",
            install="pip install mediapipe==0.10.21",
        ),
        Weight(
            name="arkit_head",
            file="annotate/data/arkit_head.npz",
            kind="package",
            licence="Apache-2.0",
            commercial=True,
            description="preview-quality blendshapes from the 478-point mesh, trained by this project",
            module="talkface",
            install="pip install --force-reinstall talkface",
        ),
        Weight(
            name="silero_vad",
            file="data/silero_vad.jit",
            kind="wheel",
            licence="MIT",
            commercial=True,
            description="Silero voice activity detection",
            module="silero_vad",
            install='pip install "silero-vad>=6.2"',
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class Status:
    """One row of ``toolkit models list``.

    ``path`` and ``ok`` are None where there is no file; ``ok`` is False where its content is not the expected.
    ``size`` is in bytes, of the file that was found, else of the one that is expected (0 is unknown).
    """

    weight: Weight
    path: Path | None
    size: int
    ok: bool | None


class Models:
    """Finds model files and, unless ``offline``, fetches them. Picklable, so that workers see what the caller saw.

    ``directory`` is searched first, then ``TALKFACE_MODELS``, then ``cache`` (the user's own by default), by the file
    name in ``registry``. Hashes are computed once for each file and remembered.
    """

    def __init__(
        self,
        directory: str | Path | None = None,
        offline: bool = False,
        *,
        registry: Mapping[str, Weight] = REGISTRY,
        cache: str | Path | None = None,
    ) -> None:
        self.directory = None if directory is None else Path(directory)
        self.offline = offline
        self.registry = registry
        self.cache = Path(cache) if cache is not None else platformdirs.user_cache_path("talkface") / "models"
        self._hashes: dict[tuple[str, int, int], str] = {}
        self._failed: dict[str, str] = {}
        self._warned: set[tuple[str, ...]] = set()
        if self.directory is not None and not self.directory.is_dir():
            raise WeightsError(f"{directory}: no such folder. Check --models.")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Models) and self._place == other._place

    def __hash__(self) -> int:
        return hash(self._place)

    @property
    def _place(self) -> tuple[Path | None, bool, Path]:
        """What decides where files are found: a copy in another process is equal to its original."""
        return self.directory, self.offline, self.cache

    def weight(self, name: str) -> Weight:
        """The registry's entry. Raises WeightsError for a name it does not have."""
        if name not in self.registry:
            raise WeightsError(f"no model named {name!r}; there are: {', '.join(self.registry)}")
        return self.registry[name]

    def find(self, name: str) -> Path | None:
        """Where the file is on this machine, checked; None if it is not. Never uses the network.

        Raises WeightsError if a file of that name has other content than the registry expects.
        """
        weight = self.weight(name)
        path = self._locate(weight)
        if path is not None:
            self._check(weight, path)
        return path

    def get(self, name: str) -> Path:
        """Where the file is; downloads it if that is allowed. Raises WeightsError that says how to get it."""
        path = self.find(name)
        if path is not None:
            return path
        weight = self.weight(name)
        if self.offline or weight.kind != "download":
            raise _UnobtainableError(self._missing(weight))
        return self._download(weight)

    def choose(self, names: Sequence[str]) -> tuple[Weight, Path]:
        """The first of these alternatives that can be had, with its file's real hash and size.

        A log message at level WARNING says so when it is not the first. A download that failed is not tried again by
        this object. Raises WeightsError if there is none.
        """
        problems: list[str] = []
        for name in names:
            try:
                path = self._get_unless_failed(name)
            except _UnobtainableError as error:
                self._failed[name] = str(error)
                problems.append(str(error))
                continue
            self._warn_of_substitute(tuple(names), name, problems)
            return self._as_found(self.weight(name), path), path
        raise WeightsError(problems[0] if problems else "choose() needs at least one name")

    def status(self) -> list[Status]:
        """One row for each entry of the registry; finds and checks files but never uses the network."""
        return [self._status(weight) for weight in self.registry.values()]

    def verify(self) -> list[Status]:
        """Rows of all files that are here, each hashed anew; ``ok`` is False where the content is not the expected."""
        self._hashes.clear()
        return [row for row in self.status() if row.path is not None]

    def pull(self, names: Sequence[str] = ()) -> list[Path]:
        """Make sure of these files, or of all that can be downloaded, downloading what is missing."""
        wanted = list(names) or [w.name for w in self.registry.values() if w.kind == "download"]
        return [self.get(name) for name in wanted]

    def add(self, name: str, path: str | Path) -> Path:
        """Copy a file that was had by other means into the cache and return where it went.

        Raises WeightsError if it is not the expected file, or belongs to a wheel.
        """
        weight, source = self.weight(name), Path(path)
        if weight.kind in ("wheel", "package"):
            raise WeightsError(
                f"{name}: comes with the package {weight.module} and cannot be added. Run: {weight.install}"
            )
        if not source.is_file():
            raise WeightsError(f"{source}: no such file. Give the path of {weight.filename}.")
        self._check(weight, source)
        final = self.cache / weight.filename
        if source.resolve() != final.resolve():
            try:
                with _whole_file(final) as file, source.open("rb") as opened:
                    shutil.copyfileobj(opened, file, CHUNK)
            except OSError as error:
                raise WeightsError(f"{final}: cannot be written ({error.strerror}). Check space and rights.") from error
        return final

    def _folders(self) -> list[Path]:
        variable = os.environ.get(VARIABLE)
        return [f for f in (self.directory, Path(variable) if variable else None, self.cache) if f is not None]

    def _locate(self, weight: Weight) -> Path | None:
        if weight.kind in ("wheel", "package"):
            spec = importlib.util.find_spec(weight.module)
            folders = [Path(f) for f in (spec.submodule_search_locations or ())] if spec else []
            places = [folder / weight.file for folder in folders]
        else:
            places = [folder / weight.filename for folder in self._folders()]
        return next((p for p in places if p.is_file()), None)

    def _hash(self, path: Path) -> str:
        facts = path.stat()
        key = (str(path), facts.st_size, facts.st_mtime_ns)
        if key not in self._hashes:
            with path.open("rb") as file:
                self._hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._hashes[key]

    def _check(self, weight: Weight, path: Path) -> None:
        size = path.stat().st_size
        problem = ""
        if weight.size and size != weight.size:
            problem = f"expected {weight.size} bytes, got {size}"
        elif weight.sha256 and self._hash(path) != weight.sha256:
            problem = f"expected sha256 {weight.sha256}, got {self._hash(path)}"
        if problem:
            raise WeightsError(f"{path}: not the {weight.filename} of the registry: {problem}. {how_to_get(weight)}")

    def _status(self, weight: Weight) -> Status:
        path = self._locate(weight)
        if path is None:
            return Status(weight=weight, path=None, size=weight.size, ok=None)
        try:
            self._check(weight, path)
        except WeightsError:
            return Status(weight=weight, path=path, size=path.stat().st_size, ok=False)
        return Status(weight=self._as_found(weight, path), path=path, size=path.stat().st_size, ok=True)

    def _as_found(self, weight: Weight, path: Path) -> Weight:
        return replace(weight, sha256=self._hash(path), size=path.stat().st_size)

    def _get_unless_failed(self, name: str) -> Path:
        if name in self._failed and self.find(name) is None:
            raise _UnobtainableError(self._failed[name])
        return self.get(name)

    def _warn_of_substitute(self, names: tuple[str, ...], chosen: str, problems: Sequence[str]) -> None:
        if problems and names not in self._warned:
            self._warned.add(names)
            log.warning("USING %s INSTEAD OF %s: %s", chosen, names[0], problems[0])

    def _missing(self, weight: Weight) -> str:
        why = "is not on this machine"
        if self.offline and weight.kind == "download":
            why += " and --offline forbids the download"
        return f"{weight.filename} ({weight.name}, licence {weight.licence}) {why}. {how_to_get(weight)}"

    def _download(self, weight: Weight) -> Path:
        assert not self.offline, f"{weight.name}: download with offline=True"
        final = self.cache / weight.filename
        log.info("downloading %s (licence %s) from %s", weight.filename, weight.licence, weight.url)
        try:
            with _whole_file(final) as file:
                _fetch(weight, file)
                file.flush()
                self._check(weight, Path(file.name))
        except WeightsError as error:
            raise _UnobtainableError(f"{weight.url}: not what was expected: {error}") from error
        except (OSError, HTTPException) as error:
            raise _UnobtainableError(
                f"{weight.filename} ({weight.name}, licence {weight.licence}) could not be downloaded from "
                f"{weight.url}: {error}. {how_to_get(weight)}"
            ) from error
        return final


class _UnobtainableError(WeightsError):
    """This entry cannot be had here; an alternative may be."""


def how_to_get(weight: Weight) -> str:
    """The sentence that ends every message about a file that is missing or wrong."""
    by_hand = f"toolkit models add {weight.name} PATH"
    if weight.kind in ("wheel", "package"):
        return f"Run: {weight.install}"
    if weight.kind == "registration":
        return f"Register and accept its licence at {weight.url}, then run: {by_hand}"
    return f"Where there is a network run: toolkit models pull {weight.name}; with a copy at hand: {by_hand}"


@contextmanager
def _whole_file(final: Path) -> Iterator[BinaryIO]:
    """A new file that takes its name when the block ends without an error; otherwise nothing is left of it."""
    final.parent.mkdir(parents=True, exist_ok=True)
    part = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with part.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(final)
    finally:
        part.unlink(missing_ok=True)


def _fetch(weight: Weight, file: BinaryIO) -> None:
    """Download into ``file``, going on where a connection broke off, ``TRIES`` times in all."""
    with _bar() as bar:
        task = bar.add_task(weight.filename, total=weight.size or None)
        for left in reversed(range(TRIES)):
            try:
                for _ in _chunks(weight.url, file):
                    bar.update(task, completed=file.tell())
            except HTTPError:
                raise
            except (OSError, HTTPException):
                if not left:
                    raise
            else:
                return


def _chunks(url: str, file: BinaryIO) -> Iterator[int]:
    """Write what follows the bytes already in ``file``, yielding after each chunk. Raises OSError if it breaks off."""
    start = file.tell()
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        if start and response.status != HTTPStatus.PARTIAL_CONTENT:
            file.seek(0)
            file.truncate()
            start = 0
        while chunk := response.read(CHUNK):
            file.write(chunk)
            yield len(chunk)
        expected = response.headers.get("Content-Length")
    if expected is not None and file.tell() != start + int(expected):
        raise OSError(f"the connection closed after {file.tell()} of {start + int(expected)} bytes")


def _bar() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
