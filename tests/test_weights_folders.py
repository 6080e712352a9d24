"""Models that are folders: fetched and checked file by file, added, named by path or by commit."""

import hashlib
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from talkface.annotate.base import chosen_weights, make_annotator
from talkface.errors import WeightsError
from talkface.weights import Models, Part, Weight

FILES = {"config.json": b'{"size": 3}', "model.safetensors": bytes(range(256)) * 999}


def entry(url: str = "http://127.0.0.1:9") -> Weight:
    parts = tuple(Part(name=n, sha256=hashlib.sha256(d).hexdigest(), size=len(d)) for n, d in FILES.items())
    about = {"licence": "MIT", "commercial": True, "description": "a net"}
    return Weight(name="net", file="net-base", kind="download", url=url, parts=parts, **about)


def write(folder: Path, **changes: bytes) -> Path:
    folder.mkdir(parents=True)
    for name, data in (FILES | changes).items():
        (folder / name).write_bytes(data)
    return folder


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Address of a running server and the folder that it serves."""
    folder = write(tmp_path / "served")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()
        thread.join()


def models(tmp_path: Path, weight: Weight, *, offline: bool = False) -> Models:
    return Models(registry={"net": weight}, cache=tmp_path / "cache", offline=offline)


def test_every_file_is_fetched_and_checked(tmp_path: Path, server: tuple[str, Path]) -> None:
    url, served = server
    found = models(tmp_path, entry(url)).get("net")
    assert {p.name: p.read_bytes() for p in found.iterdir()} == FILES
    (served / "model.safetensors").unlink()
    assert models(tmp_path, entry(url)).get("net") == found


def test_a_file_of_other_content_leaves_no_model(tmp_path: Path, server: tuple[str, Path]) -> None:
    url, served = server
    (served / "model.safetensors").write_bytes(FILES["model.safetensors"][::-1])
    with pytest.raises(WeightsError, match="expected sha256"):
        models(tmp_path, entry(url)).get("net")
    assert models(tmp_path, entry(url), offline=True).find("net") is None


def test_a_folder_is_added_whole(tmp_path: Path) -> None:
    added = models(tmp_path, entry(), offline=True).add("net", write(tmp_path / "mine", **{"notes.txt": b"mine"}))
    assert {p.name: p.read_bytes() for p in added.iterdir()} == FILES
    assert models(tmp_path, entry(), offline=True).find("net") == added


def test_a_wrong_folder_is_not_added(tmp_path: Path) -> None:
    store = models(tmp_path, entry(), offline=True)
    with pytest.raises(
        WeightsError, match=r"config\.json: not the config\.json of the registry: expected 11 bytes, got 2"
    ):
        store.add("net", write(tmp_path / "mine", **{"config.json": b"{}"}))
    with pytest.raises(WeightsError, match=r"no such folder with config\.json, model\.safetensors"):
        store.add("net", tmp_path)
    assert not (tmp_path / "cache").exists()


def test_the_hash_of_a_folder_is_that_of_its_content(tmp_path: Path) -> None:
    one, same = write(tmp_path / "a" / "net-base"), write(tmp_path / "b" / "net-base")
    other = write(tmp_path / "c" / "other")
    (other / "config.json").rename(other / "settings.json")
    store = models(tmp_path, entry(), offline=True)
    hashes = [store.choose([str(folder)])[0].sha256 for folder in (one, same, other)]
    assert hashes[0] == hashes[1] != hashes[2]
    weight, path = store.choose([str(one)])
    assert (path, weight.size, weight.licence, weight.commercial) == (
        one,
        sum(map(len, FILES.values())),
        "unknown",
        False,
    )
    (one / "README.md").write_text("not a part of the registry's model")
    registered = Models(tmp_path / "a", offline=True, registry={"net": entry()}).choose(["net"])[0]
    assert registered.sha256 == hashes[0]
    known = models(tmp_path, entry(), offline=True).known("net", {})
    assert known is not None and known.row() == registered.row(), "without a file"


def test_a_record_names_a_folder_and_not_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same on every machine; one that is called like an entry of the registry is not taken for it."""
    folder = write(tmp_path / "net")
    store = models(tmp_path, entry(), offline=True)
    rows = [store.choose([name])[0].row() for name in (str(folder), f"{folder}/")]
    monkeypatch.chdir(folder)
    rows.append(store.choose(["."])[0].row())
    assert rows[0]["name"] == "net/" != entry().name and len(rows[0]["sha256"]) == 64
    assert rows == [rows[0]] * 3


def test_a_commit_on_hugging_face_is_looked_for_without_a_socket(tmp_path: Path) -> None:
    name = f"somebody/no-such-model@{'0' * 40}"
    store = models(tmp_path, entry(), offline=True)
    assert store.find(name) is None
    with pytest.raises(WeightsError, match=rf"--offline forbids.*toolkit models pull {name}; .*give its folder"):
        store.get(name)


def test_other_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").touch()
    said = {
        "no-such": "no model named 'no-such'; there are: net, any folder, and owner/name@commit",
        "./no-such": "./no-such: no such folder. Give the folder",
        f"{tmp_path}/no": f"{tmp_path}/no: no such folder. Give the folder",
        "~/": "~/: no such folder. Give the folder",
        f"{tmp_path}/net.onnx": f"{tmp_path}/net.onnx: a file, where a model's folder is expected. Give the folder",
    }
    for name, start in said.items():
        with pytest.raises(WeightsError) as error:
            models(tmp_path, entry()).weight(name)
        assert str(error.value).startswith(start)


@pytest.mark.parametrize("commit", ["", "@main", "@22aad52", "@"])
def test_a_model_on_hugging_face_without_a_commit_is_told_to_be_pinned(tmp_path: Path, commit: str) -> None:
    wav2vec = make_annotator("wav2vec", {"model": f"facebook/wav2vec2-base-960h{commit}"})
    with pytest.raises(WeightsError) as error:
        chosen_weights(wav2vec, models(tmp_path, entry(), offline=True))
    assert str(error.value) == (
        f"wav2vec: facebook/wav2vec2-base-960h{commit}: no such folder, and a model on Hugging Face must be pinned. "
        "Give facebook/wav2vec2-base-960h@COMMIT (40 hexadecimal digits), or a folder. "
        "To go on without w2v, leave wav2vec out."
    )


FETCH = """
import sys
from talkface.errors import WeightsError
from talkface.weights import Models
try:
    Models(cache=sys.argv[1]).get("somebody/no-such-model@" + "0" * 40)
except WeightsError as error:
    print(error)
"""


def test_a_commit_that_cannot_be_fetched_says_so(tmp_path: Path, server: tuple[str, Path]) -> None:
    """A hub that has no such model."""
    environment = os.environ | {"HF_ENDPOINT": server[0], "HF_HOME": str(tmp_path / "hub")}
    run = [sys.executable, "-c", FETCH, str(tmp_path / "cache")]
    said = subprocess.run(run, env=environment, capture_output=True, text=True, check=True).stdout
    assert "no-such-model@0000" in said and "could not be downloaded: " in said and "give its folder" in said
