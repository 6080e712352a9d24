"""One work unit from file to pack, where things go wrong."""

import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileOpener, LocalFileSystem

from talkface.clip import Source
from talkface.config import Pack, Video
from talkface.errors import ConfigError
from talkface.ingest.pipeline import Settings, Unit, make_annotators, process, settings_fingerprint
from talkface.media import probe
from talkface.store import Folder, read_pack_index
from talkface.weights import Models

WHOLE_READS = 0.6
"""Share of a file after which a failing disk fails."""


class FailingFile(LocalFileOpener):
    """A file whose later part cannot be read."""

    def read(self, length: int = -1) -> bytes:
        if self.tell() > WHOLE_READS * self.size and length < self.size:
            raise OSError(5, "Input/output error")
        return super().read(length)


class FailingFileSystem(LocalFileSystem):
    """A disk that fails in the middle of its files."""

    protocol = "failing"

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        return FailingFile(path, mode, fs=self)


@pytest.fixture(scope="module")
def clip(videos: Path) -> Path:
    return sorted(videos.glob("M003/video/*/*/*/*.mp4"))[0]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    pack = Pack(annotators=("box", "quality"), video=Video(size=64))
    models = Models(offline=True)
    return Settings(
        pack=pack,
        packs_url=str(tmp_path / "packs"),
        models=models,
        fingerprint=settings_fingerprint(pack, models),
    )


def unit_of(clip: Path, name: str, uri: str | None = None) -> Unit:
    source = Source(uri=uri or str(clip), name=name, sha256="0", size=1, layout="plain", probe=probe(str(clip)))
    return Unit(name=name, source=source, start_ns=0, end_ns=None)


def index_of(settings: Settings, name: str) -> dict[str, Any]:
    index = read_pack_index(Folder(settings.packs_url), name)
    assert index is not None
    return index


def contents(settings: Settings, name: str) -> list[bytes]:
    """Bytes of a pack's members, in order."""
    with tarfile.open(f"{settings.packs_url}/{name}.tar") as tar:
        return [file.read() for info in tar if (file := tar.extractfile(info)) is not None]


def test_what_was_seen_before_a_disk_failed_becomes_a_clip(clip: Path, settings: Settings) -> None:
    fsspec.register_implementation("failing", FailingFileSystem, clobber=True)
    process(settings, unit_of(clip, "broken", f"failing://{clip}"))
    index = index_of(settings, "broken")
    assert [r["reason"] for r in index["rejects"]] == ["unreadable"]
    assert len(index["clips"]) == 1


def test_threads_of_one_process_do_not_disturb_each_other(clip: Path, settings: Settings) -> None:
    """Workers of a cluster that exists may have several threads."""
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda name: process(settings, unit_of(clip, name)), ("a", "b", "c")))
    made = [contents(settings, name) for name in ("a", "b", "c")]
    assert made[0] == made[1] == made[2]
    assert len(made[0]) == 5, "one clip: mp4, flac, pts, valid, box"


def test_settings_of_no_annotator_are_refused() -> None:
    with pytest.raises(ConfigError, match="no annotator named 'qualty'"):
        make_annotators(Pack(annotate={"qualty": {}}))
