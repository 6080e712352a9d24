"""Sidecars behind urls: memory, a web server with and without listings, an object store."""

from functools import partial
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from talkface.datasets import Dataset, open_dataset
from talkface.datasets.sidecars.job import annotate_dataset
from talkface.datasets.verify.dataset import verify
from talkface.errors import DatasetError
from talkface.store import Folder
from talkface.weights import Models
from tests.conftest import BUCKET
from tests.datasets.making import make, steady, variable
from tests.datasets.test_reader import Ranges

CLIPS = [steady("a", 30, seed=1, emotion="happy"), variable("b", 20, 2, emotion="sad"), steady("c", 25, seed=3)]
ADDED = ("emotion",)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = make(tmp_path_factory.mktemp("remote") / "dataset", CLIPS)
    annotate_dataset(url, ADDED, None, Models(offline=True), workers=0)
    return url


def upload(url: str, to: str) -> None:
    """The dataset without its sidecars."""
    source, target = Folder(url), Folder(to)
    names = [p.relative_to(source.root).as_posix() for p in Path(source.root).rglob("*") if p.is_file()]
    for name in names:
        if name.startswith(("manifest/", "train/", "dataset.json", "README.md")):
            target.write(name, source.read(name))


def same(url: str, local: str) -> None:
    here, there = open_dataset(local), open_dataset(url)
    assert there.clips.equals(here.clips) and there.members() == here.members()
    for key in here.keys():  # noqa: SIM118
        one, other = (d.arrays(key, ["emo", "arkit", "emo_pts"]) for d in (here, there))
        assert all(one[n].tobytes() == other[n].tobytes() for n in one)
    for name in ("record.json", "shards.parquet", "members.parquet", "clips.parquet"):
        assert Folder(url).read(f"sidecars/emotion/{name}") == Folder(local).read(f"sidecars/emotion/{name}")
    assert verify(url, readers=False) == verify(local, readers=False)


def test_in_memory(local: str) -> None:
    MemoryFileSystem.store.clear()
    upload(local, "memory://sidecars/dataset")
    annotate_dataset("memory://sidecars/dataset", ADDED, None, Models(offline=True), workers=0)
    same("memory://sidecars/dataset", local)


def test_in_an_object_store_by_workers(local: str, s3: str) -> None:
    upload(local, f"{BUCKET}/sidecars")
    annotate_dataset(f"{BUCKET}/sidecars", ADDED, None, Models(offline=True), workers=1)
    same(f"{BUCKET}/sidecars", local)
    assert all(m.kept for m in annotate_dataset(f"{BUCKET}/sidecars", ADDED, None, Models(offline=True), workers=0))


class Unlisted(Ranges):
    """A server that shows files and no folders, as most do."""

    def list_directory(self, path: object) -> None:
        self.send_error(HTTPStatus.NOT_FOUND)


@pytest.mark.parametrize("handler", [Ranges, Unlisted])
def test_from_a_web_server(local: str, handler: type[Ranges]) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=local))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        named = open_dataset(url, sidecars=["emotion"])
        np.testing.assert_array_equal(named.arrays("b", ["emo"])["emo"], Dataset(local).arrays("b", ["emo"])["emo"])
        assert set(open_dataset(url).sidecars) == (set(ADDED) if handler is Ranges else set())
        with pytest.raises(DatasetError, match=r"no sidecar 'mel'. Run: toolkit annotate .* --with mel"):
            len(open_dataset(url, sidecars=["mel"]))
    finally:
        server.shutdown()
        server.server_close()
