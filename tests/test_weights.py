"""Model files: found, fetched from a real server on this machine, checked, added; and never a socket when offline."""

import hashlib
import http.server
import logging
import os
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from talkface.annotate.base import chosen_weights, make_annotator
from talkface.cli import app
from talkface.errors import WeightsError
from talkface.weights import REGISTRY, VARIABLE, Models, Weight
from talkface.weights.entry import PUBLISHED
from tests.annotate.stand_ins import random_deca
from tests.conftest import ROOT, command

CONTENT = bytes(range(256)) * 4096
"""A megabyte, so that a download takes several reads."""


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def weight(name: str = "net", url: str = "http://127.0.0.1:9/net.bin", data: bytes = CONTENT, **changes: str) -> Weight:
    made = Weight(
        name=name,
        file=f"{name}.bin",
        kind="download",
        licence="MIT",
        commercial=True,
        description="a net",
        url=url,
        sha256=sha(data),
        size=len(data),
    )
    return replace(made, **changes)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT: at /cut only half of it, at /cutonce so on the first request, at /wrong something else."""

    protocol_version = "HTTP/1.0"
    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        ranges = self.headers.get("Range")
        self.asked.append((self.path, ranges))
        if self.path == "/missing":
            self.send_error(404)
            return
        data = CONTENT[::-1] if self.path == "/wrong" else CONTENT
        start = int(ranges.removeprefix("bytes=").removesuffix("-")) if ranges and self.path != "/norange" else 0
        cut = self.path == "/cut" or (self.path in ("/cutonce", "/norange") and len(self.asked) == 1)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start : start + (len(data) - start) // 2 if cut else None])

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Address of a running server, and the requests it has had: path and Range."""
    asked: list[tuple[str, str | None]] = []
    handler = type("Here", (Handler,), {"asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()
        thread.join()


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Models]:
    """Models with a registry of their own and an empty cache."""

    def models(*weights: Weight, **options: object) -> Models:
        registry = {w.name: w for w in weights}
        return Models(registry=registry, cache=tmp_path / "cache", **options)  # type: ignore[arg-type]

    return models


def left_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def test_registry_is_complete() -> None:
    for name, entry in REGISTRY.items():
        assert name == entry.name
        assert entry.licence
        assert entry.description
        if entry.kind == "download":
            assert entry.url.startswith("https://")
            files = () if entry.sha256_head else entry.parts or (entry,)
            assert not entry.sha256_head or (f"-{entry.sha256_head}." in entry.file and entry.check)
            assert all(len(file.sha256) == 64 and file.size > 0 for file in files)
        if entry.kind in ("wheel", "package"):
            assert entry.module
            assert entry.install
        if entry.kind in PUBLISHED:
            assert entry.module and entry.version and entry.member
            assert len(entry.sha256) == 64 and entry.size > 0


def test_a_hash_of_which_the_beginning_is_known_is_compared(tmp_path: Path) -> None:
    """torchvision's files name the first eight digits."""
    (tmp_path / "net-0badcafe.pth").write_bytes(b"other")
    digest = hashlib.sha256(b"other").hexdigest()
    known = replace(REGISTRY["alexnet"], file="net-0badcafe.pth", sha256_head="0badcafe")
    with pytest.raises(WeightsError, match="expected sha256 0badcafe"):
        Models(tmp_path, offline=True, registry={"alexnet": known}).get("alexnet")
    right = replace(known, sha256_head=digest[:8], check="")
    assert Models(tmp_path, offline=True, registry={"alexnet": right}).get("alexnet").read_bytes() == b"other"


def test_the_page_lists_every_entry() -> None:
    page = (ROOT / "docs" / "models.md").read_text()
    for name, entry in REGISTRY.items():
        (row,) = (line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[3] == entry.licence, name
        if entry.kind == "download":
            size = entry.size or sum(part.size for part in entry.parts)
            told = f"{size / 1e6:.1f}" if size else r"\d+"
            assert entry.filename in cells[1] and re.fullmatch(f"download, {told} MB", cells[4]), name
        if entry.kind == "registration":
            assert entry.filename in cells[1] and f"]({entry.url})" in cells[4], name
        if entry.kind in PUBLISHED:
            assert entry.filename in cells[1] and f"`{entry.module}` {entry.version}" in cells[4], name
        if entry.kind == "wheel":
            assert f"`{entry.install}`" in cells[4], name


def test_list_says_size_licence_and_the_way_to_get_it(tmp_path: Path) -> None:
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "COLUMNS": "80"}
    environment.pop(VARIABLE, None)
    run = [sys.executable, "-m", "talkface.cli", "models", "list"]
    said = subprocess.run(run, env=environment, capture_output=True, text=True, check=True).stdout
    lines = {line.split()[0]: line for line in said.splitlines()}
    assert lines.keys() == REGISTRY.keys()
    assert "377.6 MB  Apache-2.0  not here. " in lines["wav2vec"] and "models pull wav2vec" in lines["wav2vec"]
    assert "any size  DECA licence" in lines["deca"] and "models add deca PATH" in lines["deca"]
    assert lines["sync"].endswith("sync.npz") and " kB  Apache-2.0" in lines["sync"]


def test_verify_says_of_each_file_that_it_is_right(tmp_path: Path) -> None:
    """On the standard output, and what is wrong beside it; with the options of the other commands."""
    (folder := tmp_path / "models").mkdir()
    asked = ["models", "verify", "--models", str(folder), "--offline"]
    environment = {"XDG_CACHE_HOME": str(tmp_path), VARIABLE: None}
    right = CliRunner().invoke(app, asked, env=environment)
    lines = {line.split()[0]: line.split()[1] for line in right.stdout.splitlines()}
    assert right.exit_code == 0 and {"arkit_head": "ok", "sync": "ok"}.items() <= lines.items()
    (folder / REGISTRY["yunet"].file).write_bytes(b"wrong")
    wrong = CliRunner().invoke(app, asked, env=environment)
    assert wrong.exit_code == 1 and wrong.stdout == right.stdout
    assert "yunet_n_640_640.onnx: not the yunet_n_640_640.onnx of the registry: expected 317466" in wrong.stderr


def test_an_error_goes_by_a_name_that_the_documentation_knows(tmp_path: Path) -> None:
    """A proxy that refuses stands for a machine without a network."""
    environment = os.environ | {"https_proxy": "http://127.0.0.1:9", "no_proxy": "", "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop(VARIABLE, None)
    run = command("models", "pull", "sface")
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("WeightsError: face_recognition_sface_2021dec.onnx (sface, licence")


def test_real_files_are_what_the_registry_says(models: Path) -> None:
    found = Models(models, offline=True)
    rows = {row.weight.name: row for row in found.status()}
    for name in ("face_landmarker", "yunet", "light_asd"):
        assert rows[name].ok, name
        assert found.find(name) == models / REGISTRY[name].file
        assert rows[name].size == REGISTRY[name].size


@pytest.mark.skipif(version("mediapipe") != "0.10.21", reason="only this mediapipe carries the mesh in its wheel")
def test_files_inside_wheels_are_found_without_importing_them() -> None:
    code = (
        "import sys; from talkface.weights import Models; m = Models(offline=True, cache='/nonexistent');"
        "print(m.find('silero_vad'), m.find('mediapipe_facemesh'), sorted({'torch', 'mediapipe'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    voice, mesh, imported = result.stdout.split(maxsplit=2)
    assert voice.endswith("silero_vad/data/silero_vad.jit")
    assert mesh.endswith("face_landmark_with_attention.tflite")
    assert imported.strip() == "[]"


def test_chosen_weight_tells_the_hash_of_what_was_found(make: Callable[..., Models]) -> None:
    entry = replace(REGISTRY["silero_vad"], sha256="", size=0)
    chosen, path = make(entry).choose(["silero_vad"])
    assert chosen.sha256 == sha(path.read_bytes())
    assert chosen.size == path.stat().st_size


def test_download_is_checked_kept_and_not_repeated(make: Callable[..., Models], server: tuple[str, list]) -> None:
    url, asked = server
    models = make(weight(url=f"{url}/net.bin"))
    path = models.get("net")
    assert path.read_bytes() == CONTENT
    assert models.get("net") == path
    assert asked == [("/net.bin", None)]
    assert left_in(path.parent) == ["net.bin"]


@pytest.mark.parametrize("place", ["/cutonce", "/norange"])
def test_download_goes_on_after_a_break(place: str, make: Callable[..., Models], server: tuple[str, list]) -> None:
    """At /norange the server ignores the wish to go on and sends everything again."""
    url, asked = server
    path = make(weight(url=url + place)).get("net")
    assert path.read_bytes() == CONTENT
    assert asked == [(place, None), (place, f"bytes={len(CONTENT) // 2}-")]


def test_a_download_that_always_breaks_leaves_nothing(
    make: Callable[..., Models], server: tuple[str, list], tmp_path: Path
) -> None:
    url, _ = server
    with pytest.raises(WeightsError, match=r"net\.bin.*MIT.*the connection closed after.*toolkit models add net PATH"):
        make(weight(url=f"{url}/cut")).get("net")
    assert left_in(tmp_path / "cache") == []


@pytest.mark.parametrize(("place", "why"), [("/wrong", "sha256"), ("/missing", "404")])
def test_wrong_or_missing_content_is_refused(
    place: str, why: str, make: Callable[..., Models], server: tuple[str, list], tmp_path: Path
) -> None:
    url, asked = server
    with pytest.raises(WeightsError, match=why):
        make(weight(url=url + place)).get("net")
    assert left_in(tmp_path / "cache") == []
    assert len(asked) == 1


def test_server_that_is_not_there(make: Callable[..., Models]) -> None:
    with pytest.raises(WeightsError, match="could not be downloaded"):
        make(weight()).get("net")


def test_order_of_places(
    make: Callable[..., Models], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: tuple[str, list]
) -> None:
    url, asked = server
    entry = weight(url=f"{url}/net.bin")
    for name in ("given", "variable", "cache"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "net.bin").write_bytes(CONTENT)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "variable"))
    assert make(entry, directory=tmp_path / "given").get("net") == tmp_path / "given" / "net.bin"
    (tmp_path / "given" / "net.bin").unlink()
    assert make(entry, directory=tmp_path / "given").get("net") == tmp_path / "variable" / "net.bin"
    monkeypatch.delenv(VARIABLE)
    assert make(entry).get("net") == tmp_path / "cache" / "net.bin"
    assert asked == []


def test_a_wrong_file_is_an_error_and_not_passed_over(make: Callable[..., Models], tmp_path: Path) -> None:
    other = weight("other")
    (tmp_path / "net.bin").write_bytes(CONTENT[::-1])
    (tmp_path / "other.bin").write_bytes(CONTENT)
    models = make(weight(), other, directory=tmp_path)
    with pytest.raises(WeightsError, match=f"expected sha256 {sha(CONTENT)}, got {sha(CONTENT[::-1])}"):
        models.choose(["net", "other"])
    assert [row.ok for row in models.status()] == [False, True]
    (tmp_path / "net.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match=f"expected {len(CONTENT)} bytes, got {len(CONTENT) - 1}"):
        models.find("net")


def test_hash_is_computed_once_for_a_file(make: Callable[..., Models], tmp_path: Path) -> None:
    """Content changed behind an unchanged size and time goes unseen by find and is seen by verify."""
    path = tmp_path / "net.bin"
    path.write_bytes(CONTENT)
    times = path.stat()
    models = make(weight(), directory=tmp_path)
    assert models.find("net") == path
    path.write_bytes(CONTENT[::-1])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    again = pickle.loads(pickle.dumps(models))
    assert again.find("net") == path
    assert [row.ok for row in again.verify()] == [False]


def test_first_that_can_be_had_with_a_loud_word(
    make: Callable[..., Models], server: tuple[str, list], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url, asked = server
    (tmp_path / "spare.bin").write_bytes(CONTENT)
    models = make(weight(url=f"{url}/cut"), weight("spare"), directory=tmp_path)
    with caplog.at_level(logging.WARNING):
        chosen, path = models.choose(["net", "spare"])
    assert (chosen.name, path) == ("spare", tmp_path / "spare.bin")
    assert "USING spare INSTEAD OF net" in caplog.text
    requests = len(asked)
    assert pickle.loads(pickle.dumps(models)).choose(["net", "spare"])[0].name == "spare"
    assert len(asked) == requests, "a download that failed was tried again"
    (tmp_path / "net.bin").write_bytes(CONTENT)
    assert models.choose(["net", "spare"])[0].name == "net"


def test_the_first_is_downloaded_before_the_second_is_used(
    make: Callable[..., Models], server: tuple[str, list], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url, _ = server
    (tmp_path / "spare.bin").write_bytes(CONTENT)
    models = make(weight(url=f"{url}/net.bin"), weight("spare"), directory=tmp_path)
    assert models.choose(["net", "spare"])[0].name == "net"
    assert caplog.text == ""


def test_none_to_be_had(make: Callable[..., Models]) -> None:
    models = make(weight(), weight("spare"), offline=True)
    with pytest.raises(WeightsError, match=r"net\.bin \(net, licence MIT\).*--offline.*toolkit models add net PATH"):
        models.choose(["net", "spare"])


def test_registration(make: Callable[..., Models], tmp_path: Path, server: tuple[str, list]) -> None:
    url, asked = server
    entry = weight("flame", url=f"{url}/register", kind="registration", licence="research only")
    models = make(entry)
    with pytest.raises(WeightsError) as error:
        models.get("flame")
    for part in ("flame.bin", "research only", f"{url}/register", "toolkit models add flame PATH"):
        assert part in str(error.value)
    (tmp_path / "download").write_bytes(CONTENT)
    path = models.add("flame", tmp_path / "download")
    assert models.get("flame") == path == tmp_path / "cache" / "flame.bin"
    assert asked == []


def test_a_wrong_file_whose_hash_is_not_known_is_opened_and_refused(tmp_path: Path) -> None:
    """By name, by `models verify`, and before a run; once opened it is not opened again, in other processes neither."""
    folder = tmp_path / "models"
    folder.mkdir()
    torch.save({"E_flame": {}}, folder / "deca_model.tar")
    models = Models(folder, offline=True)
    difference = r"deca_model\.tar: not the weights of DECA's E_flame: 269 missing \(encoder\.bn1\.bias"
    with pytest.raises(WeightsError, match=difference):
        models.find("deca")
    with pytest.raises(WeightsError, match=rf"flame: .*{difference}.*leave flame out\.$"):
        chosen_weights(make_annotator("flame", {}), models)
    (row,) = [row for row in models.verify() if row.weight.name == "deca"]
    assert row.ok is False and re.search(difference, row.problem)
    run = [sys.executable, "-m", "talkface.cli", "models", "verify", "--models", str(folder)]
    done = subprocess.run(run, env=os.environ | {"HOME": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and re.search(difference, done.stderr) and "Register and accept" in done.stderr
    random_deca(folder / "deca_model.tar")
    assert models.find("deca") == folder / "deca_model.tar"
    code = "import pickle, sys; pickle.load(sys.stdin.buffer).find('deca'); print('torch' in sys.modules)"
    run = [sys.executable, "-c", code]
    assert subprocess.run(run, input=pickle.dumps(models), capture_output=True, check=True).stdout == b"False\n"
    assert [row.ok for row in models.verify() if row.weight.name == "deca"] == [True]


@pytest.mark.parametrize(
    ("name", "difference"),
    [
        ("deca", "not the weights of DECA's E_flame: 269 missing"),
        ("flame", "wrong: not a pickle of arrays, or damaged. Get"),
    ],
)
def test_add_says_where_the_right_file_is(tmp_path: Path, name: str, difference: str) -> None:
    """In one line, as every error, and not in the words of Python's own reader."""
    torch.save({"E_flame": {}}, tmp_path / "wrong")
    with pytest.raises(WeightsError) as error:
        Models(offline=True, cache=tmp_path / "cache").add(name, tmp_path / "wrong")
    said = str(error.value)
    assert difference in said and "\n" not in said and ".. Get" not in said
    assert said.endswith(
        f" Get the original file. Register and accept its licence at {REGISTRY[name].url}, then run: "
        f"toolkit models add {name} PATH"
    )
    assert not (tmp_path / "cache").exists()


def test_add_refuses_a_wrong_file(make: Callable[..., Models], tmp_path: Path) -> None:
    models = make(weight(), REGISTRY["silero_vad"])
    (tmp_path / "wrong").write_bytes(b"wrong")
    with pytest.raises(WeightsError, match=f"expected {len(CONTENT)} bytes, got 5"):
        models.add("net", tmp_path / "wrong")
    with pytest.raises(WeightsError, match="no such file"):
        models.add("net", tmp_path / "nowhere")
    with pytest.raises(WeightsError, match="comes with the package"):
        models.add("silero_vad", tmp_path / "wrong")
    with pytest.raises(WeightsError, match="no model named 'nte'; there are: net"):
        models.add("nte", tmp_path / "wrong")
    assert left_in(tmp_path / "cache") == []


def test_add_the_file_that_is_already_there(make: Callable[..., Models], tmp_path: Path) -> None:
    (tmp_path / "net.bin").write_bytes(CONTENT)
    models = make(weight())
    path = models.add("net", tmp_path / "net.bin")
    assert models.add("net", path).read_bytes() == CONTENT


def test_pull_takes_all_that_can_be_downloaded(make: Callable[..., Models], server: tuple[str, list]) -> None:
    url, _ = server
    models = make(weight(url=f"{url}/a"), weight("b", url=f"{url}/b"), weight("flame", kind="registration"))
    assert [p.name for p in models.pull()] == ["net.bin", "b.bin"]
    assert [(r.weight.name, r.ok) for r in models.verify()] == [("net", True), ("b", True)]


def test_directory_must_exist(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such folder"):
        Models(tmp_path / "nowhere")


WATCH = """
import sys
touched = []
sys.addaudithook(lambda event, _: touched.append(event) if event.startswith("socket.") else None)
from talkface.errors import WeightsError
from talkface.weights import Models, REGISTRY
models = Models(offline=sys.argv[1] == "offline", cache=sys.argv[2])
models.status(), models.verify()
for act in (lambda: models.get("yunet"), lambda: models.choose(["face_landmarker", "light_asd"]), models.pull):
    try:
        act()
    except WeightsError:
        pass
print(len(touched))
"""


def test_offline_never_opens_a_socket(tmp_path: Path) -> None:
    """Python's own audit events count sockets and name look-ups; a proxy that refuses stands for the network."""

    def sockets(mode: str) -> int:
        environment = os.environ | {"https_proxy": "http://127.0.0.1:9", "no_proxy": ""}
        environment.pop(VARIABLE, None)
        run = [sys.executable, "-c", WATCH, mode, str(tmp_path / "cache")]
        return int(subprocess.run(run, env=environment, capture_output=True, text=True, check=True).stdout)

    assert sockets("offline") == 0
    assert sockets("online") > 0
