"""`toolkit ingest` from and to an object store, over a real server on this machine."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import fsspec
import pytest

from talkface.datasets.reader import Dataset
from talkface.datasets.verify.dataset import verify
from talkface.store import PACKS, Folder
from tests.conftest import BUCKET, NOT_DATA, Toolkit, command, files_of

TOML = """
[pack]
unit_seconds = 1.0
annotators = ["box", "mel"]
cut = {min_seconds = 0.5}
video = {size = 64}
"""


@pytest.fixture(scope="module")
def one(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One synthetic clip of several units, and a configuration beside its folder."""
    folder = tmp_path_factory.mktemp("s3") / "in"
    folder.mkdir()
    shutil.copy(sorted(videos.glob("M003/video/*/*/*/*.mp4"))[0], folder / "a clip.mp4")
    (folder.parent / "config.toml").write_text(TOML)
    return folder


def arguments(one: Path, source: object, out: object, workers: int) -> list[str]:
    config = str(one.parent / "config.toml")
    return ["ingest", str(source), "--out", str(out), "--offline", "--workers", str(workers), "--config", config]


def copied(url: str, folder: Path) -> Path:
    """A remote dataset's files on this disk."""
    Folder(url).fs.get(Folder(url).root, str(folder), recursive=True)
    return folder


def test_a_folder_on_s3_holds_whole_files(s3: str) -> None:
    folder = Folder(f"{BUCKET}/whole")
    assert folder.names() == []
    folder.write("a/b.bin", b"12345")
    assert folder.names("a") == ["b.bin"]
    assert folder.read("a/b.bin") == b"12345"
    folder.remove("a/b.bin")
    assert folder.names("a") == []


def test_what_another_writes_is_seen_at_once(s3: str) -> None:
    """A listing that was made before says nothing of what is there now."""
    folder, other = Folder(f"{BUCKET}/seen"), fsspec.filesystem("s3", skip_instance_cache=True)
    folder.write("a.bin", b"1")
    assert folder.names() == ["a.bin"]
    other.pipe(f"{BUCKET}/seen/b.bin", b"22")
    assert folder.exists("b.bin") and folder.size("b.bin") == 2 and folder.read("b.bin") == b"22"


def test_from_and_to_s3_gives_the_bytes_of_a_local_run(s3: str, one: Path, toolkit: Toolkit, tmp_path: Path) -> None:
    """Killed once on the way; what the second run finds there it keeps."""
    toolkit(*arguments(one, one, tmp_path / "local", 0))
    store = fsspec.filesystem("s3")
    store.put(str(one), f"{BUCKET}/in", recursive=True)
    out = f"{BUCKET}/out"
    process = subprocess.Popen(command(*arguments(one, f"{BUCKET}/in", out, 1)), stderr=subprocess.DEVNULL)
    while not Folder(out).names(PACKS, "-0000.json") and process.poll() is None:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not Folder(out).exists("dataset.json"), "the kill came too late"
    again = toolkit(*arguments(one, f"{BUCKET}/in", out, 1))
    assert "kept from an earlier run" in again.stdout
    assert verify(out, readers=False) == []
    assert len(Dataset(out)) == len(Dataset(str(tmp_path / "local")))
    there = files_of(copied(out, tmp_path / "there"), but=(*NOT_DATA, "manifest/sources.parquet"))
    assert there == files_of(tmp_path / "local", but=(*NOT_DATA, "manifest/sources.parquet"))


def test_a_damaged_pack_on_s3_is_named_and_made_again(s3: str, one: Path, toolkit: Toolkit) -> None:
    out = f"{BUCKET}/damaged"
    toolkit(*arguments(one, one, out, 0))
    folder = Folder(out)
    name = folder.names(PACKS, ".tar")[0]
    data = bytearray(folder.read(f"{PACKS}/{name}"))
    data[len(data) // 2] ^= 1
    folder.write(f"{PACKS}/{name}", bytes(data))
    result = toolkit(*arguments(one, one, out, 0))
    assert f"{name}: damaged" in result.stderr
    assert verify(out, readers=False) == []


def test_a_store_that_is_down_is_one_line(s3: str, one: Path, tmp_path: Path) -> None:
    words = command(*arguments(one, f"{BUCKET}/in/", tmp_path / "out", 0))
    nowhere = os.environ | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    result = subprocess.run(words, env=nowhere, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "cannot be read now" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
