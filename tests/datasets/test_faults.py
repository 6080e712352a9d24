"""What breaks on the way from a dataset to a batch: bytes, files, servers, other writers. Nothing wrong is returned."""

import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from talkface.datasets import Dataset, open_dataset
from talkface.datasets.loading.loader import Batch, Loader
from talkface.datasets.loading.windows import Windows
from talkface.datasets.verify.dataset import verify
from talkface.errors import DatasetError
from talkface.store import Folder
from tests.conftest import BUCKET, Toolkit
from tests.datasets.making import make, steady, variable
from tests.datasets.test_reader import Ranges

CLIPS = [*(steady(f"s{i}", 20 + i, seed=i) for i in range(5)), variable("v", 25, seed=9)]
WINDOWS = Windows(length=8, fps=25, columns=("arkit", "head", "mel"), sound=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make(tmp_path / "d", CLIPS)
    return tmp_path / "d"


def same(one: list[Batch], other: list[Batch]) -> bool:
    assert len(one) == len(other) > 0
    return all(
        torch.equal(torch.nan_to_num(a[n]), torch.nan_to_num(b[n])) if isinstance(a[n], torch.Tensor) else a[n] == b[n]
        for a, b in zip(one, other, strict=True)
        for n in a
    )


def members_of(dataset: Dataset) -> dict[tuple[str, str], bytes]:
    return {(key, m): dataset.member(key, m) for key in list(dataset.keys()) for m in dataset.members()}


def test_a_flipped_byte_anywhere_is_an_error_or_nobodys(root: Path) -> None:
    """Every member is what it was, or an error that names it; bytes that no member has may be anything."""
    whole = open_dataset(str(root))
    expected = members_of(whole)
    shard = whole.table("shards").column("shard")[0].as_py()
    path = root / shard
    data = path.read_bytes()
    held = {k: whole.places[k[0]][k[1]] for k in expected if whole.places[k[0]][k[1]][0] == shard}
    whole.reader.close()
    found = 0
    for at in np.random.default_rng(0).integers(0, len(data), 150).tolist():
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        opened = open_dataset(str(root))
        for (key, member), (_, offset, size) in held.items():
            inside = offset <= at < offset + size
            got = opened.try_read([opened.row(key)], [member])[0]
            if isinstance(got, DatasetError):
                assert offset - 512 <= at < offset + size
                assert re.match(rf"{shard}: {key}\.{member} is ", str(got))
                found += inside
            else:
                assert got[member] == expected[key, member] and not inside
        opened.reader.close()
    assert found > 75, "most bytes are some member's"


def test_a_flipped_byte_never_reaches_a_batch(root: Path) -> None:
    dataset = open_dataset(str(root))
    loader = partial(Loader, batch_size=2, shuffle=False)
    shard, offset, size = dataset.places["s1"]["arkit.npy"]
    path = root / shard
    data = bytearray(path.read_bytes())
    data[offset + size // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=rf"{shard}: s1\.arkit\.npy is damaged: its bytes are not those"):
        list(loader(open_dataset(str(root)), WINDOWS))
    left = list(loader(open_dataset(str(root)), WINDOWS, on_error="skip"))
    assert "s1" not in {key for batch in left for key in batch["key"]}
    assert all("s1.arkit.npy" in error for batch in left for error in batch["errors"])


def test_a_dataset_without_checksums_is_read_as_before(root: Path) -> None:
    """Its manifest lacks the column."""
    expected = members_of(open_dataset(str(root)))
    path = root / "manifest" / "members.parquet"
    table = pq.ParquetFile(pa.BufferReader(path.read_bytes())).read()
    assert table.schema.field("crc32").type == pa.uint32()
    path.write_bytes(b"")
    pq.write_table(table.drop_columns("crc32"), path)
    older = open_dataset(str(root))
    assert members_of(older) == expected and older.wanted(0, "json").crc32 is None
    assert verify(str(root), readers=False) == []


def test_a_manifest_with_other_checksums_is_found(root: Path) -> None:
    path = root / "manifest" / "members.parquet"
    table = pq.ParquetFile(pa.BufferReader(path.read_bytes())).read()
    at = table.column_names.index("crc32")
    other = table.column("crc32").to_numpy().copy()
    other[3] ^= 1
    pq.write_table(table.set_column(at, "crc32", pa.array(other, pa.uint32())), path)
    where = table.column("key")[3].as_py(), table.column("member")[3].as_py()
    assert [f"{where[0]}.{where[1]}: its CRC-32" in str(p) for p in verify(str(root), readers=False)] == [True]


class Stalls(Ranges):
    """Answers until ``after`` bytes of a shard were sent, then keeps the connection and says nothing more."""

    after = 0
    over: threading.Event

    def do_GET(self) -> None:
        if self.path.endswith(".tar"):
            path = Path(self.translate_path(self.path))
            low, high = (int(n) for n in self.headers["Range"].removeprefix("bytes=").split("-"))
            self.send_response(206)
            self.send_header("Content-Length", str(high + 1 - low))
            self.end_headers()
            self.wfile.write(path.read_bytes()[low : min(high + 1, self.after)])
            self.wfile.flush()
            if high + 1 > self.after:
                self.over.wait(60)
        else:
            super().do_GET()


@contextmanager
def served(folder: Path, handler: type[Ranges]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_a_server_that_stops_answering_in_the_middle(root: Path) -> None:
    pytest.importorskip("aiohttp")
    local = open_dataset(str(root))
    shard, offset, size = local.places["s1"]["head.npy"]

    class Handler(Stalls):
        after = offset + size // 2
        over = threading.Event()

    with served(root.parent, Handler) as address:
        opened = open_dataset(f"{address}/d", timeout=1.0)
        for key, member in [("s0", "head.npy"), ("s1", "arkit.npy")]:
            if local.places[key][member][0] == shard and local.places[key][member][1] < offset:
                assert opened.member(key, member) == local.member(key, member)
        with pytest.raises(DatasetError, match=rf"{shard}: s1\.head\.npy: the server stopped answering"):
            opened.member("s1", "head.npy")
        with pytest.raises(DatasetError, match=r"\.tar: s\d\.\w+(\.npy)?: the server stopped answering"):
            list(Loader(opened.where(pa.compute.field("key") == "s1"), WINDOWS, batch_size=1))
        Handler.over.set()


def test_a_server_that_breaks_off(root: Path) -> None:
    """The connection ends before all that was promised came."""
    pytest.importorskip("aiohttp")
    local = open_dataset(str(root))
    shard, offset, _ = local.places["s1"]["head.npy"]

    class Handler(Stalls):
        after = offset + 10
        over = threading.Event()

    Handler.over.set()
    with served(root.parent, Handler) as address:
        opened = open_dataset(f"{address}/d", timeout=5.0)
        with pytest.raises(DatasetError, match=rf"{shard}: s1\.head\.npy: cannot be read"):
            opened.member("s1", "head.npy")


def test_windows_from_a_web_server_are_those_of_the_disk(root: Path) -> None:
    pytest.importorskip("aiohttp")
    with served(root.parent, Ranges) as address:
        urls = str(root), f"{address}/d"
        near, far = (Loader(open_dataset(u), WINDOWS, batch_size=2, seed=3, cache=False) for u in urls)
        assert same(list(near), list(far))
        assert same(list(near), list(far.batches(2)))


def test_windows_from_an_object_store_are_those_of_the_disk(root: Path, s3: str) -> None:
    url = f"{BUCKET}/{uuid.uuid4().hex}"
    Folder(url).fs.put(str(root), url, recursive=True)
    near, far = (Loader(open_dataset(u), WINDOWS, batch_size=2, seed=3, cache=False) for u in (str(root), url))
    assert same(list(near), list(far))
    assert same(list(near), list(far.batches(2)))
    column = open_dataset(url).column("v", "head", [0, 100_000_000])
    assert np.array_equal(column, open_dataset(str(root)).column("v", "head", [0, 100_000_000]), equal_nan=True)
    shard, offset, _ = far.dataset.places["s0"]["arkit.npy"]
    folder = Folder(url)
    data = bytearray(folder.read(shard))
    data[offset + 300] ^= 1
    folder.write(shard, bytes(data))
    with pytest.raises(DatasetError, match=rf"{shard}: s0\.arkit\.npy is damaged"):
        open_dataset(url).member("s0", "arkit.npy")
    folder.remove(shard)
    with pytest.raises(DatasetError, match=rf"{shard}: s0\.arkit\.npy: the shard is missing"):
        open_dataset(url).member("s0", "arkit.npy")


class Forwards(BaseHTTPRequestHandler):
    """Stands before an object store; says nothing more after half of the body of a shard's ``at`` bytes and beyond."""

    store = ""
    at = 0
    asked = 0
    over: threading.Event

    def do_GET(self) -> None:
        self._forward()

    def do_HEAD(self) -> None:
        self._forward()

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _forward(self) -> None:
        headers = {k: v for k, v in self.headers.items() if k != "Host"}
        request = Request(self.store + self.path, headers=headers, method=self.command)
        try:
            answer = urlopen(request)
        except HTTPError as error:
            answer = error
        with answer:
            body = answer.read()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                if name not in ("Server", "Date", "Connection", "Transfer-Encoding"):
                    self.send_header(name, value)
            self.end_headers()
            span = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")
            if self.path.endswith(".tar") and int(span[1] or self.at) >= self.at and self.command == "GET":
                type(self).asked += 1
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                self.over.wait(120)
            else:
                self.wfile.write(body)


def test_an_object_store_that_stops_answering_in_the_middle(
    root: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real one, behind a proxy that goes silent in the middle of a shard; what lies before is still read."""
    url = f"{BUCKET}/{uuid.uuid4().hex}"
    Folder(url).fs.put(str(root), url, recursive=True)
    local = open_dataset(str(root))
    shard, offset, _ = local.places["s1"]["head.npy"]

    class Handler(Forwards):
        store = s3
        at = offset
        over = threading.Event()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        opened = open_dataset(url, timeout=0.7)  # another than of the tests before: s3fs keeps its connections
        assert opened.member("s0", "json") == local.member("s0", "json")
        with pytest.raises(DatasetError, match=rf"{shard}: s1\.head\.npy: the server stopped answering"):
            opened.member("s1", "head.npy")
        with pytest.raises(DatasetError, match=r"\.tar: s1\.\w+(\.npy)?: the server stopped answering"):
            list(Loader(opened.where(pa.compute.field("key") == "s1"), WINDOWS, batch_size=1))
        assert Handler.asked >= 2
        Handler.over.set()
        server.shutdown()


WRITER = """
import sys, time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from talkface.store import Folder
with Folder(sys.argv[1]).lock():
    Path(sys.argv[2]).touch()
    time.sleep(600)
"""


def test_a_second_writer_is_sent_away_and_readers_are_not(root: Path, tmp_path: Path, toolkit: Toolkit) -> None:
    path = root / "manifest" / "shards.parquet"
    path.rename(path.with_suffix(".gone"))
    expected = members_of(open_dataset(str(root)))
    with subprocess.Popen([sys.executable, "-c", WRITER, str(root), str(tmp_path / "held")]) as first:
        try:
            while not (tmp_path / "held").exists() and first.poll() is None:
                time.sleep(0.05)
            second = toolkit("verify", "--repair", root, code=None)
            assert second.returncode != 0 and "another toolkit is writing here" in second.stdout + second.stderr
            assert members_of(open_dataset(str(root))) == expected
        finally:
            first.kill()
    path.with_suffix(".gone").unlink()
    toolkit("verify", "--repair", root)
    assert path.exists() and members_of(open_dataset(str(root))) == expected
