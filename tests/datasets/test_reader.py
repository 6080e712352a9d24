"""Opening datasets: filters, spans, columns at any times, every kind of filesystem, and damage."""

import pickle
import re
import subprocess
import sys
import uuid
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import numpy as np
import pyarrow.compute as pc
import pytest
from scipy.spatial.transform import Rotation

from talkface.datasets import Dataset, open_dataset
from talkface.datasets.build.job import rebuild
from talkface.datasets.verify.dataset import verify
from talkface.errors import ConfigError, DatasetError
from tests.datasets.making import COLUMNS, columns_of, make, sound_of, steady, variable

CLIPS = [
    steady("a-25", 40, seed=1, speaker="anna", emotion="happy"),
    variable("b-vfr", 50, seed=2, speaker="anna", emotion="sad"),
    steady("c-30", 31, 30000 / 1001, seed=3, speaker="ben", emotion="happy"),
    *(steady(f"d-{i}", 10 + i, seed=4 + i, speaker="cleo", emotion="fear") for i in range(6)),
]
BY_KEY = {c.key: c for c in CLIPS}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make(tmp_path_factory.mktemp("reader") / "dataset", CLIPS)


@pytest.fixture
def opened(url: str) -> Dataset:
    return open_dataset(url)


def equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def test_what_is_made_is_a_dataset_of_several_shards(url: str, opened: Dataset) -> None:
    assert verify(url, readers=False) == []
    assert opened.table("shards").num_rows > 2
    assert len(opened) == len(CLIPS) and set(opened.keys()) == set(BY_KEY)


def test_a_script_that_opens_a_dataset_ends_well(url: str) -> None:
    """Native threads that outlive Python abort the process after its work is done."""
    script = f"from talkface.datasets import open_dataset; print(len(open_dataset({url!r}).clips))"
    for _ in range(3):
        ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("key", BY_KEY)
def test_every_clip_by_its_key(opened: Dataset, key: str) -> None:
    arrays = opened.arrays(key, [c.name for c in COLUMNS])
    for name, expected in columns_of(BY_KEY[key]).items():
        assert equal(arrays[name], expected)
        assert equal(opened.sample(key, [f"{name}.npy"])[f"{name}.npy"], expected)
    assert key in opened and opened.sample(key)["json"]["frames"] == len(BY_KEY[key].pts_ns)


def test_filters(opened: Dataset) -> None:
    happy = opened.where(pc.field("emotion") == "happy")
    assert happy.keys() == ["a-25", "c-30"] and len(happy) == 2 and len(opened) == len(CLIPS)
    ben = happy.where(pc.field("speaker") == "ben")
    assert ben.keys() == ["c-30"]
    assert ben.arrays("c-30", ["shape"])["shape"].tolist() == [3.0] * 3
    assert "a-25" not in ben
    with pytest.raises(DatasetError, match="no clip 'a-25' among 1"):
        ben.sample("a-25")
    assert len(opened.where(pc.field("duration") > 1e9)) == 0
    with pytest.raises(ConfigError, match=r"mood.*Columns: key, split"):
        opened.where(pc.field("mood") == "happy")


def test_splits(url: str) -> None:
    assert len(open_dataset(url, split="train")) == len(CLIPS) and len(open_dataset(url, split="val")) == 0
    with pytest.raises(ConfigError, match="train, val, test"):
        open_dataset(url, split="dev")


@pytest.mark.parametrize("key", ["a-25", "b-vfr", "c-30"])
def test_lines_are_exact_at_any_time_on_any_clock(opened: Dataset, key: str) -> None:
    clip = BY_KEY[key]
    times = np.random.default_rng(0).integers(0, clip.pts_ns[-1], 200)
    found = opened.column(key, "arkit", times, how="linear")
    assert found.shape == (200, 52) and found.dtype == np.float32
    low = np.searchsorted(clip.pts_ns, times, side="right") - 1
    near_gap = (low % 7 == 6) | (low % 7 == 5)
    assert np.isnan(found[:, 51]).all() and (np.isnan(found[:, 0]) == near_gap).all() and near_gap.any()
    expected = clip.number + times[:, None] / 1e9 * np.arange(51) / 52
    assert np.allclose(found[~near_gap, :51], expected[~near_gap], atol=1e-6)
    mel = opened.column(key, "mel", times)
    inside = times <= (len(columns_of(clip)["mel"]) - 1) / 80 * 1e9
    assert np.allclose(mel[inside, 0], times[inside] / 1e9, atol=2e-3)


@pytest.mark.parametrize("key", ["a-25", "b-vfr"])
def test_the_head_turns_steadily_between_frames(opened: Dataset, key: str) -> None:
    times = np.random.default_rng(0).integers(0, BY_KEY[key].pts_ns[-1], 100)
    for how in (None, "slerp"):
        head = opened.column(key, "head", times, how)  # type: ignore[arg-type]
        off = (
            Rotation.from_quat(head[:, [1, 2, 3, 0]])
            * Rotation.from_rotvec(times[:, None] / 1e9 * [0.1, 0.8, 0.2]).inv()
        )
        assert off.magnitude().max() < 1e-6
        assert np.allclose(head[:, 4:], times[:, None] / 1e9 * np.arange(1, 7), atol=1e-5)


def test_the_last_frame_holds_until_it_leaves_the_screen(opened: Dataset) -> None:
    clip = BY_KEY["b-vfr"]
    last = columns_of(clip)["box"][-1]
    found = opened.column(clip.key, "box", [clip.end_ns, clip.end_ns + 1])
    assert (found[0] == last).all() and np.isnan(found[1]).all()
    assert opened.column(clip.key, "valid", [-1, clip.end_ns, clip.end_ns + 1]).tolist() == [0, 15, 0]


def test_columns_that_cannot_be_had_so(opened: Dataset) -> None:
    with pytest.raises(ConfigError, match="one value a clip"):
        opened.column("a-25", "shape", [0])
    with pytest.raises(ConfigError, match="nearest"):
        opened.column("a-25", "valid", [0], how="linear")
    with pytest.raises(ConfigError, match="there are: pts, valid, box"):
        opened.column("a-25", "gaze", [0])


def test_a_span(opened: Dataset) -> None:
    clip = BY_KEY["b-vfr"]
    low, high = int(clip.pts_ns[10]), int(clip.pts_ns[20])
    part = opened.span("b-vfr", low, high, ["arkit", "mel", "shape"], sound=True)
    columns = columns_of(clip)
    assert set(part) == {"__key__", "pts", "arkit", "mel", "shape", "sound"}
    assert (part["pts"] == clip.pts_ns[10:20]).all() and equal(part["arkit"], columns["arkit"][10:20])
    mel_times = np.arange(len(columns["mel"])) / 80 * 1e9
    assert equal(part["mel"], columns["mel"][(mel_times >= low) & (mel_times < high)])
    assert equal(part["sound"], sound_of(clip)[round(low * 16e-6) : round(high * 16e-6)])
    assert equal(part["shape"], columns["shape"])
    assert len(opened.span("b-vfr", clip.end_ns, clip.end_ns + 10**9)["arkit"]) == 0


def test_in_memory_and_through_a_pickle() -> None:
    opened = open_dataset(make(f"memory://{uuid.uuid4().hex}", CLIPS))
    again = pickle.loads(pickle.dumps(opened.where(pc.field("speaker") == "anna")))
    for key in ("a-25", "b-vfr"):
        for dataset in (opened, again):
            assert equal(dataset.arrays(key, ["head"])["head"], columns_of(BY_KEY[key])["head"])
    assert len(again) == 2


class Ranges(SimpleHTTPRequestHandler):
    """Serves byte ranges of the files in ``directory``, and remembers how many bytes it sent of each shard."""

    sent: ClassVar[list[int]] = []

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not asked or not path.is_file():
            super().do_GET()
            return
        low, high = int(asked[1]), int(asked[2]) + 1
        data = path.read_bytes()[low:high]
        self.send_response(206 if data else 416)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Range", f"bytes {low}-{low + len(data) - 1}/{path.stat().st_size}")
        self.end_headers()
        self.wfile.write(data)
        self.sent.append(len(data))

    def log_message(self, *_: object) -> None:
        """Quiet."""


def test_over_http_only_what_is_needed_is_fetched(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    make(tmp_path / "d", CLIPS)
    Ranges.sent.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(tmp_path))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        opened = open_dataset(f"http://127.0.0.1:{server.server_port}/d")
        assert opened.keys() == open_dataset(str(tmp_path / "d")).keys()
        assert equal(opened.arrays("b-vfr", ["head"])["head"], columns_of(BY_KEY["b-vfr"])["head"])
        shard, offset, size = opened.places["b-vfr"]["head.npy"]
        assert Ranges.sent == [512 + size]
        path = tmp_path / "d" / shard
        path.write_bytes(path.read_bytes()[: offset + 100])
        with pytest.raises(DatasetError, match=rf"{shard}: b-vfr\.head\.npy is cut short"):
            opened.arrays("b-vfr", ["head"])
        path.write_bytes(path.read_bytes()[: offset - 600])
        with pytest.raises(DatasetError, match=rf"{shard}: b-vfr\.head\.npy: cannot be read"):
            opened.arrays("b-vfr", ["head"])
        path.unlink()
        with pytest.raises(DatasetError, match=rf"{shard}: b-vfr\.head\.npy: the shard is missing"):
            opened.arrays("b-vfr", ["head"])
        server.shutdown()


def test_a_shard_cut_anywhere_names_shard_and_member(tmp_path: Path) -> None:
    url = make(tmp_path / "d", CLIPS)
    opened = open_dataset(url)
    shard = opened.table("shards").column("shard")[0].as_py()
    path = tmp_path / "d" / shard
    whole = path.read_bytes()
    names = opened.info.members()
    keys = opened.where(pc.field("shard") == shard).keys()
    expected = {(k, m): opened.member(k, m) for k in keys for m in names}
    opened.reader.close()
    for cut in (0, 512, 1024, 5 * 512, 8000, len(whole) // 2, len(whole) - 2048):
        path.write_bytes(whole[:cut])
        fresh = open_dataset(url)
        for key in keys:
            for member in names:
                _, offset, size = opened.places[key][member]
                if offset + size <= cut:
                    assert fresh.member(key, member) == expected[key, member]
                else:
                    with pytest.raises(DatasetError, match=rf"{shard}: {key}\.{member} is cut short"):
                        fresh.member(key, member)
    path.unlink()
    with pytest.raises(DatasetError, match=rf"{shard}: {keys[0]}\.json: the shard is missing"):
        open_dataset(url).sample(keys[0])


def test_shards_of_another_build_are_noticed(tmp_path: Path) -> None:
    """Every member lies elsewhere, or is another clip's."""
    url = make(tmp_path / "d", CLIPS)
    opened = open_dataset(url)
    keys = opened.keys()
    assert opened.member(keys[0], "pts.npy")
    opened.reader.close()
    make(tmp_path / "d", CLIPS[1:])
    with pytest.raises(DatasetError, match="different builds"):
        opened.member(keys[0], "pts.npy")
    (tmp_path / "d" / "manifest" / "members.parquet").write_bytes(
        (Path(make(tmp_path / "other", CLIPS[2:])) / "manifest" / "members.parquet").read_bytes()
    )
    with pytest.raises(DatasetError, match=r"members\.parquet does not belong"):
        open_dataset(url).member(CLIPS[1].key, "pts.npy")
    rebuild(opened.folder)
    assert open_dataset(url).member(CLIPS[1].key, "pts.npy")


def test_another_clips_member_of_the_same_size_is_noticed(tmp_path: Path) -> None:
    alike = [steady(f"e{i}", 10) for i in range(3)]
    opened = open_dataset(make(tmp_path / "d", alike, megabytes=1))
    assert opened.member("e1", "pts.npy")
    opened.reader.close()
    make(tmp_path / "d", alike[1:], megabytes=1)
    with pytest.raises(DatasetError, match=r"train/000000\.tar: e0\.pts\.npy is not where the manifest has it"):
        opened.member("e0", "pts.npy")


def test_damaged_headers_are_noticed(tmp_path: Path) -> None:
    url = make(tmp_path / "d", CLIPS)
    shard, offset, _ = open_dataset(url).places["a-25"]["arkit.npy"]
    path = tmp_path / "d" / shard
    whole = path.read_bytes()
    for at in (*range(offset, offset + 10), *(offset + i for i in (12, 20, 30, 40, 60, 70))):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        with pytest.raises(DatasetError, match=rf"{shard}: a-25\.arkit\.npy is damaged"):
            open_dataset(url).arrays("a-25", ["arkit"])
