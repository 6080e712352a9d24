"""Where model files are on this machine, and how they get there.

A file is looked for in the folder given with ``--models``, in the folder named by ``TALKFACE_MODELS`` and in the user's
cache; only then is it downloaded, and never with ``offline=True``. Every file is checked against its SHA-256 before it
is used. Files inside an installed wheel or inside this package are used where they lie. A model may be a folder of
files; besides the registry's, ``Models`` knows any folder by its path and any Hugging Face model by
``owner/name@commit``.
"""

import hashlib
import importlib.util
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from pkgutil import resolve_name
from typing import Final

import platformdirs

from talkface.download import CHUNK, fetch, whole_file
from talkface.errors import WeightsError
from talkface.weights.entry import PUBLISHED, Part, Weight, how_to_get, unregistered
from talkface.weights.hub import HUB_NAME, UNPINNED, from_hub
from talkface.weights.published import member_of
from talkface.weights.registry import REGISTRY

log = logging.getLogger(__name__)

VARIABLE: Final = "TALKFACE_MODELS"
"""Environment variable that names a folder of model files."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """One row of ``toolkit models list``.

    ``path`` and ``ok`` are None where there is no file; ``ok`` is False where its content is not the expected.
    ``size`` is in bytes, of the file that was found, else of the one that is expected (0 is unknown). ``problem`` is
    the sentence that says what is wrong with it.
    """

    weight: Weight
    path: Path | None
    size: int
    ok: bool | None
    problem: str = ""


class Models:
    """Finds model files and, unless ``offline``, fetches them. Picklable, so that workers see what the caller saw.

    ``directory`` is searched first, then ``TALKFACE_MODELS``, then ``cache`` (the user's own by default), by the file
    name in ``registry``. Hashes are computed once for each file and remembered; so is that a file whose hash cannot be
    known was opened and has the right content.
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
        self._hashes: dict[_Facts, str] = {}
        self._opened: set[_Facts] = set()
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
        """The registry's entry, else that of a folder's path or of ``owner/name@commit``.

        Raises WeightsError for any other name.
        """
        if name in self.registry:
            return self.registry[name]
        if HUB_NAME.fullmatch(name):
            return unregistered(name, "hub")
        if Path(name).is_dir():
            return unregistered(name, "folder")
        if Path(name).is_file():
            raise WeightsError(f"{name}: a file, where a model's folder is expected. Give the folder that it lies in.")
        if match := UNPINNED.fullmatch(name):
            raise WeightsError(
                f"{name}: no such folder, and a model on Hugging Face must be pinned. Give {match[1]}@COMMIT (40 "
                "hexadecimal digits), or a folder."
            )
        if Path(name).name != name:
            raise WeightsError(f"{name}: no such folder. Give the folder of the model's files.")
        raise WeightsError(
            f"no model named {name!r}; there are: {', '.join(self.registry)}, any folder, and owner/name@commit "
            "(40 hexadecimal digits) on Hugging Face"
        )

    def find(self, name: str) -> Path | None:
        """Where the file is on this machine, checked; None if it is not. Never uses the network.

        Raises WeightsError if a file of that name has other content than the registry expects.
        """
        weight = self.weight(name)
        path = self._locate(weight)
        if path is not None:
            self._check(weight, path)
            self._check_content(weight, path)
        return path

    def get(self, name: str) -> Path:
        """Where the file is; downloads it if that is allowed. Raises WeightsError that says how to get it."""
        path = self.find(name)
        if path is not None:
            return path
        weight = self.weight(name)
        if not self._may_fetch(weight):
            raise _UnobtainableError(self._missing(weight))
        how = {"download": self._download, "hub": self._download_from_hub}
        return how.get(weight.kind, self._take_out)(weight)

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

    def known(self, name: str, recorded: Mapping[str, str]) -> Weight | None:
        """The entry with its content's hash: the registry's, else that of the file, else the one ``recorded`` by name.

        None where there is none of them. Never uses the network; raises as `find`.
        """
        weight = self.weight(name)
        if weight.parts and all(part.sha256 for part in weight.parts):
            return replace(weight, sha256=_folder_hash({part.name: part.sha256 for part in weight.parts}))
        if weight.sha256:
            return weight
        if (path := self.find(name)) is not None:
            return self._as_found(weight, path)
        return replace(weight, sha256=recorded[name]) if name in recorded else None

    def require(self, *groups: Sequence[str]) -> None:
        """Raise WeightsError, as `choose` does, where none of a group's entries is here or may be downloaded."""
        for names in groups:
            if not any(self.find(name) or self._may_fetch(self.weight(name)) for name in names):
                raise WeightsError(self._missing(self.weight(names[0])))

    def status(self) -> list[Status]:
        """One row for each entry of the registry; finds and checks files but never uses the network."""
        return [self._status(weight) for weight in self.registry.values()]

    def verify(self) -> list[Status]:
        """Rows of all files that are here, each hashed anew, or opened where the hash cannot be known; ``ok`` is False
        where the content is not the expected."""
        self._hashes.clear()
        self._opened.clear()
        return [self._verified(row) for row in self.status() if row.path is not None]

    def pull(self, names: Sequence[str] = ()) -> list[Path]:
        """Make sure of these files, or of all that can be downloaded, downloading what is missing."""
        wanted = list(names) or [w.name for w in self.registry.values() if w.kind in ("download", *PUBLISHED)]
        return [self.get(name) for name in wanted]

    def add(self, name: str, path: str | Path) -> Path:
        """Copy a file or folder that was had by other means into the cache and return where it went.

        Raises WeightsError if it is not the expected one, or belongs to a wheel.
        """
        weight, source = self.weight(name), Path(path)
        if weight.kind in ("wheel", "package"):
            raise WeightsError(
                f"{name}: comes with the package {weight.module} and cannot be added. Run: {weight.install}"
            )
        if weight.kind in ("folder", "hub"):
            raise WeightsError(f"{name}: is used where it lies and cannot be added")
        if not _is_here(weight, source):
            what = f"folder with {', '.join(p.name for p in weight.parts)}" if weight.parts else "file"
            raise WeightsError(f"{source}: no such {what}. {how_to_get(weight)}")
        self._check(weight, source)
        _open(weight, source)
        final = self.cache / weight.filename
        if source.resolve() != final.resolve():
            for inside in [part.name for part in weight.parts] or [""]:
                _copy(source / inside, final / inside)
        return final

    def _folders(self) -> list[Path]:
        variable = os.environ.get(VARIABLE)
        return [f for f in (self.directory, Path(variable) if variable else None, self.cache) if f is not None]

    def _locate(self, weight: Weight) -> Path | None:
        if weight.kind == "folder":
            return Path(weight.file)
        if weight.kind == "hub":
            return from_hub(weight.name, offline=True)
        if weight.kind in ("wheel", "package"):
            spec = importlib.util.find_spec(weight.module)
            folders = [Path(f) for f in (spec.submodule_search_locations or ())] if spec else []
            places = [folder / weight.file for folder in folders]
        else:
            places = [folder / weight.filename for folder in self._folders()]
        return next((p for p in places if _is_here(weight, p)), None)

    def _hash(self, path: Path) -> str:
        key = _facts(path)
        if key not in self._hashes:
            with path.open("rb") as file:
                self._hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._hashes[key]

    def _check(self, weight: Weight, path: Path) -> None:
        for part in weight.parts:
            self._check_file(weight, part, path / part.name)
        if not weight.parts:
            self._check_file(weight, weight, path)

    def _check_content(self, weight: Weight, path: Path) -> None:
        """Open a file whose hash cannot be known, and compare names and shapes of what is in it."""
        if weight.check and not weight.sha256 and (facts := _facts(path)) not in self._opened:
            _open(weight, path)
            self._opened.add(facts)

    def _verified(self, row: Status) -> Status:
        try:
            if row.ok and row.path is not None:
                self._check_content(self.registry[row.weight.name], row.path)
        except WeightsError as error:
            return replace(row, ok=False, problem=str(error))
        return row

    def _check_file(self, weight: Weight, expected: Weight | Part, path: Path) -> None:
        size = _size(path)
        problem = ""
        if expected.size and size != expected.size:
            problem = f"expected {expected.size} bytes, got {size}"
        elif expected.sha256 and self._hash(path) != expected.sha256:
            problem = f"expected sha256 {expected.sha256}, got {self._hash(path)}"
        elif (head := getattr(expected, "sha256_head", "")) and not self._hash(path).startswith(head):
            problem = f"expected sha256 {head}..., got {self._hash(path)}"
        if problem:
            name = expected.filename if isinstance(expected, Weight) else expected.name
            raise WeightsError(f"{path}: not the {name} of the registry: {problem}. {how_to_get(weight)}")

    def _status(self, weight: Weight) -> Status:
        path = self._locate(weight)
        if path is None:
            size = weight.size or sum(part.size for part in weight.parts)
            return Status(weight=weight, path=None, size=size, ok=None)
        try:
            self._check(weight, path)
        except WeightsError as error:
            return Status(weight=weight, path=path, size=_size(path), ok=False, problem=str(error))
        return Status(weight=self._as_found(weight, path), path=path, size=_size(path), ok=True)

    def _as_found(self, weight: Weight, path: Path) -> Weight:
        if path.is_file():
            return replace(weight, sha256=self._hash(path), size=_size(path))
        files = [path / part.name for part in weight.parts] or _files(path)
        digest = _folder_hash({file.relative_to(path).as_posix(): self._hash(file) for file in files})
        return replace(weight, sha256=digest, size=sum(map(_size, files)))

    def _get_unless_failed(self, name: str) -> Path:
        if name in self._failed and self.find(name) is None:
            raise _UnobtainableError(self._failed[name])
        return self.get(name)

    def _warn_of_substitute(self, names: tuple[str, ...], chosen: str, problems: Sequence[str]) -> None:
        if problems and names not in self._warned:
            self._warned.add(names)
            log.warning("USING %s INSTEAD OF %s: %s", chosen, names[0], problems[0])

    def _may_fetch(self, weight: Weight) -> bool:
        return not self.offline and weight.kind in ("download", "hub", *PUBLISHED)

    def _missing(self, weight: Weight) -> str:
        why = "is not on this machine"
        if self.offline and weight.kind in ("download", "hub", *PUBLISHED):
            why += " and --offline forbids the download"
        return f"{weight.filename} ({weight.name}, licence {weight.licence}) {why}. {how_to_get(weight)}"

    def _download(self, weight: Weight) -> Path:
        assert not self.offline, f"{weight.name}: download with offline=True"
        final = self.cache / weight.filename
        log.info("downloading %s (licence %s) from %s", weight.filename, weight.licence, weight.url)
        try:
            for part in weight.parts:
                self._download_file(weight, part, f"{weight.url}/{part.name}", final / part.name)
            if not weight.parts:
                self._download_file(weight, weight, weight.url, final)
        except WeightsError as error:
            raise _UnobtainableError(f"{weight.url}: not what was expected: {error}") from error
        except (OSError, HTTPException) as error:
            raise _UnobtainableError(
                f"{weight.filename} ({weight.name}, licence {weight.licence}) could not be downloaded from "
                f"{weight.url}: {error}. {how_to_get(weight)}"
            ) from error
        return final

    def _download_file(self, weight: Weight, expected: Weight | Part, url: str, final: Path) -> None:
        with whole_file(final) as file:
            fetch(url, expected.size, file)
            file.flush()
            self._check_file(weight, expected, Path(file.name))

    def _take_out(self, weight: Weight) -> Path:
        """Fetch the package that a file lies in, and keep that file."""
        assert weight.kind in PUBLISHED and not self.offline, f"{weight.name}: download with offline=True"
        final = self.cache / weight.filename
        log.info("taking %s (licence %s) out of %s %s", weight.filename, weight.licence, weight.module, weight.version)
        try:
            with (
                member_of(weight.kind, weight.module, weight.version, weight.member) as member,
                whole_file(final) as file,
            ):
                shutil.copyfileobj(member, file, CHUNK)
                file.flush()
                self._check_file(weight, weight, Path(file.name))
        except WeightsError as error:
            raise _UnobtainableError(f"{weight.filename} ({weight.name}): {error} {how_to_get(weight)}") from error
        return final

    def _download_from_hub(self, weight: Weight) -> Path:
        assert not self.offline, f"{weight.name}: download with offline=True"
        try:
            path = from_hub(weight.name, offline=False)
        except OSError as error:
            why = str(error).splitlines()[0].rstrip(".")
            raise _UnobtainableError(f"{weight.name} could not be downloaded: {why}. {how_to_get(weight)}") from error
        assert path is not None
        return path


_Facts = tuple[str, int, int]
"""Path, size and time of change: equal where a file is the same as before."""


def _facts(path: Path) -> _Facts:
    facts = path.stat()
    return str(path), facts.st_size, facts.st_mtime_ns


class _UnobtainableError(WeightsError):
    """This entry cannot be had here; an alternative may be."""


def _folder_hash(files: Mapping[str, str]) -> str:
    """Of the names and hashes of its files."""
    lines = sorted(f"{digest}  {name}\n" for name, digest in files.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _is_here(weight: Weight, path: Path) -> bool:
    if weight.parts:
        return all((path / part.name).is_file() for part in weight.parts)
    return path.is_file()


def _open(weight: Weight, path: Path) -> None:
    """Raise WeightsError, with the way to the right file, where a model's own reader refuses this one."""
    try:
        if weight.check:
            resolve_name(weight.check)(path)
    except WeightsError as error:
        raise WeightsError(f"{error} {how_to_get(weight)}") from error


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in _files(path)) if path.is_dir() else path.stat().st_size


def _copy(source: Path, final: Path) -> None:
    try:
        with whole_file(final) as file, source.open("rb") as opened:
            shutil.copyfileobj(opened, file, CHUNK)
    except OSError as error:
        raise WeightsError(f"{final}: cannot be written ({error.strerror}). Check space and rights.") from error
