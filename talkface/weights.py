"""Model files: where they come from, under which licence, and where they are on this machine.

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
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Final, Literal

import platformdirs

from talkface.download import CHUNK, fetch, whole_file
from talkface.errors import WeightsError

log = logging.getLogger(__name__)

VARIABLE: Final = "TALKFACE_MODELS"
"""Environment variable that names a folder of model files."""

Kind = Literal["download", "wheel", "package", "registration", "folder", "hub"]

HUB_NAME: Final = re.compile(r"([\w.-]+/[\w.-]+)@([0-9a-f]{40})")
"""A model on Hugging Face and the commit that pins its files."""
HUB_FILES: Final = ("*.json", "*.txt", "*.safetensors", "*.bin")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file of a model that is a folder; ``size`` 0 and ``sha256`` "" mean that any content is taken."""

    name: str
    sha256: str = ""
    size: int = 0


@dataclass(frozen=True, kw_only=True)
class Weight:
    """One model file, or a folder of them where ``parts`` names its files.

    ``kind`` says how it is had: ``download`` from ``url``; inside the installed ``wheel`` or ``package`` named
    ``module``, at ``file`` below its folder; or after ``registration`` at ``url``, by hand. Two kinds are never in the
    registry: any ``folder``, and what Hugging Face's ``hub`` keeps under ``owner/name@commit``. ``size`` is in bytes;
    ``size`` 0 and ``sha256`` "" mean that any content is taken, and are filled in for the file that was found; a
    folder's hash is that of its files' names and hashes. ``check`` is ``module:function``, called with the path where
    the hash cannot be known: it raises WeightsError if the content is not that of such a model. ``commercial`` is
    whether the licence allows commercial use. ``install`` is the command that brings a wheel.
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
    parts: tuple[Part, ...] = ()
    check: str = ""

    @property
    def filename(self) -> str:
        """Name of the file without folders."""
        return Path(self.file).name

    def row(self) -> dict[str, Any]:
        """What a dataset records of a file that it was made with."""
        return {"name": self.name, "sha256": self.sha256, "licence": self.licence, "commercial": self.commercial}


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
            name="syncnet",
            file="syncnet_v2.model",
            kind="download",
            licence="none stated with the file, taken as for research (its code: MIT)",
            commercial=False,
            description="SyncNet: agreement of lips and sound, LSE-C and LSE-D",
            url="https://www.robots.ox.ac.uk/~vgg/software/lipsync/data/syncnet_v2.model",
            sha256="961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442",
            size=54_573_114,
            check="talkface.annotate._syncnet:load_syncnet",
        ),
        Weight(
            name="sface",
            file="face_recognition_sface_2021dec.onnx",
            kind="download",
            licence="Apache-2.0",
            commercial=True,
            description="SFace: 128 numbers that tell faces apart, for OpenCV's FaceRecognizerSF",
            url="https://media.githubusercontent.com/media/opencv/opencv_zoo/47534e27c9851bb1128ccc0102f1145e27f23f98/models/face_recognition_sface/face_recognition_sface_2021dec.onnx",
            sha256="0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
            size=38_696_353,
        ),
        Weight(
            name="deca",
            file="deca_model.tar",
            kind="registration",
            licence="DECA licence, non-commercial research",
            commercial=False,
            description="DECA: the encoder of FLAME's parameters, key E_flame (and of details, which is not used)",
            url="https://deca.is.tue.mpg.de",
            check="talkface.annotate._deca:load_encoder",
        ),
        Weight(
            name="flame",
            file="generic_model.pkl",
            kind="registration",
            licence="FLAME licence, non-commercial research",
            commercial=False,
            description="FLAME 2020, the generic head model: vertices of FLAME's parameters",
            url="https://flame.is.tue.mpg.de",
            check="talkface.annotate._flame:load_flame",
        ),
        Weight(
            name="wav2vec",
            file="wav2vec2-base-960h",
            kind="download",
            licence="Apache-2.0",
            commercial=True,
            description="wav2vec 2.0 base, fine-tuned on 960 hours of LibriSpeech, with its CTC head",
            url="https://huggingface.co/facebook/wav2vec2-base-960h/resolve/22aad52d435eb6dbaf354bdad9b0da84ce7d6156",
            parts=(
                Part(
                    name="config.json",
                    sha256="d3ec255c063d9f95057b553b19c20135b259875834a4fe9deb218a6be25b4cf3",
                    size=1_596,
                ),
                Part(
                    name="preprocessor_config.json",
                    sha256="b225d617c025463b9e157e06afea8b90dc7078fc70b013c533328423e0486b4a",
                    size=159,
                ),
                Part(
                    name="vocab.json",
                    sha256="19727f8944fe6459fc3f240ae2c198395b740f6a029bd23e06656266b83bcf64",
                    size=291,
                ),
                Part(
                    name="model.safetensors",
                    sha256="8aa76ab2243c81747a1f832954586bc566090c83a0ac167df6f31f0fa917d74a",
                    size=377_607_901,
                ),
            ),
        ),
        Weight(
            name="fan",
            file="2DFAN4-11f355bf06.pth.tar",
            kind="download",
            licence="BSD-3-Clause; trained on 300-W data, for research",
            commercial=False,
            description="face-alignment's 2D network for 68 points, four stacks",
            url="https://www.adrianbulat.com/downloads/python-fan/2DFAN4-11f355bf06.pth.tar",
            sha256="11f355bf0693120222f5955ce3f9dc8fb5763ebb30a47d7906e509490d32e4aa",
            size=95_641_761,
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
            name="sync",
            file="annotate/data/sync.npz",
            kind="package",
            licence="Apache-2.0",
            commercial=True,
            description="offset of picture and sound from mouth shapes and mel, trained by this project",
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
        """The registry's entry, else that of a folder's path or of ``owner/name@commit``.

        Raises WeightsError for any other name.
        """
        if name in self.registry:
            return self.registry[name]
        if HUB_NAME.fullmatch(name):
            return _unregistered(name, "hub")
        if Path(name).is_dir():
            return _unregistered(name, "folder")
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
        return path

    def get(self, name: str) -> Path:
        """Where the file is; downloads it if that is allowed. Raises WeightsError that says how to get it."""
        path = self.find(name)
        if path is not None:
            return path
        weight = self.weight(name)
        if self.offline or weight.kind not in ("download", "hub"):
            raise _UnobtainableError(self._missing(weight))
        return self._download(weight) if weight.kind == "download" else self._download_from_hub(weight)

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
        if weight.check:
            resolve_name(weight.check)(source)
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
            return _from_hub(weight.name, offline=True)
        if weight.kind in ("wheel", "package"):
            spec = importlib.util.find_spec(weight.module)
            folders = [Path(f) for f in (spec.submodule_search_locations or ())] if spec else []
            places = [folder / weight.file for folder in folders]
        else:
            places = [folder / weight.filename for folder in self._folders()]
        return next((p for p in places if _is_here(weight, p)), None)

    def _hash(self, path: Path) -> str:
        facts = path.stat()
        key = (str(path), facts.st_size, facts.st_mtime_ns)
        if key not in self._hashes:
            with path.open("rb") as file:
                self._hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._hashes[key]

    def _check(self, weight: Weight, path: Path) -> None:
        for part in weight.parts:
            self._check_file(weight, part, path / part.name)
        if not weight.parts:
            self._check_file(weight, weight, path)

    def _check_file(self, weight: Weight, expected: Weight | Part, path: Path) -> None:
        size = _size(path)
        problem = ""
        if expected.size and size != expected.size:
            problem = f"expected {expected.size} bytes, got {size}"
        elif expected.sha256 and self._hash(path) != expected.sha256:
            problem = f"expected sha256 {expected.sha256}, got {self._hash(path)}"
        if problem:
            name = expected.filename if isinstance(expected, Weight) else expected.name
            raise WeightsError(f"{path}: not the {name} of the registry: {problem}. {how_to_get(weight)}")

    def _status(self, weight: Weight) -> Status:
        path = self._locate(weight)
        if path is None:
            return Status(weight=weight, path=None, size=weight.size, ok=None)
        try:
            self._check(weight, path)
        except WeightsError:
            return Status(weight=weight, path=path, size=_size(path), ok=False)
        return Status(weight=self._as_found(weight, path), path=path, size=_size(path), ok=True)

    def _as_found(self, weight: Weight, path: Path) -> Weight:
        if path.is_file():
            return replace(weight, sha256=self._hash(path), size=_size(path))
        files = [path / part.name for part in weight.parts] or _files(path)
        lines = sorted(f"{self._hash(file)}  {file.relative_to(path).as_posix()}\n" for file in files)
        digest = hashlib.sha256("".join(lines).encode()).hexdigest()
        return replace(weight, sha256=digest, size=sum(map(_size, files)))

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
        if self.offline and weight.kind in ("download", "hub"):
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

    def _download_from_hub(self, weight: Weight) -> Path:
        assert not self.offline, f"{weight.name}: download with offline=True"
        try:
            path = _from_hub(weight.name, offline=False)
        except OSError as error:
            why = str(error).splitlines()[0].rstrip(".")
            raise _UnobtainableError(f"{weight.name} could not be downloaded: {why}. {how_to_get(weight)}") from error
        assert path is not None
        return path


class _UnobtainableError(WeightsError):
    """This entry cannot be had here; an alternative may be."""


def how_to_get(weight: Weight) -> str:
    """The sentence that ends every message about a file that is missing or wrong."""
    by_hand = f"toolkit models add {weight.name} PATH"
    if weight.kind in ("wheel", "package"):
        return f"Run: {weight.install}"
    if weight.kind == "registration":
        return f"Register and accept its licence at {weight.url}, then run: {by_hand}"
    if weight.kind == "hub":
        return "With a copy at hand, give its folder in place of its name"
    return f"Where there is a network run: toolkit models pull {weight.name}; with a copy at hand: {by_hand}"


def _unregistered(name: str, kind: Literal["folder", "hub"]) -> Weight:
    what = "folder of the user" if kind == "folder" else "model on Hugging Face"
    return Weight(name=name, file=name, kind=kind, licence="unknown", commercial=False, description=what)


def _from_hub(name: str, *, offline: bool) -> Path | None:
    """Folder of a model in Hugging Face's cache; None if it is not there and ``offline``."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415 (0.15 s that no command should wait for)
    from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: PLC0415

    match = HUB_NAME.fullmatch(name)
    assert match, name
    try:
        folder = snapshot_download(
            match[1], revision=match[2], local_files_only=offline, allow_patterns=list(HUB_FILES)
        )
    except LocalEntryNotFoundError:
        if offline:
            return None
        raise
    return Path(folder)


def _is_here(weight: Weight, path: Path) -> bool:
    if weight.parts:
        return all((path / part.name).is_file() for part in weight.parts)
    return path.is_file()


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
