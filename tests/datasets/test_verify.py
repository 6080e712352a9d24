"""Whatever is broken in a dataset is found, named, and made anew."""

import random
from collections.abc import Callable
from pathlib import Path

import datasets as hf
import numpy as np
import pytest
import webdataset as wds

from talkface.datasets.build.job import rebuild
from talkface.datasets.reader import Dataset, hf_features
from talkface.datasets.verify.dataset import check_values, verify
from talkface.datasets.verify.readers import check_readers
from talkface.store import TarWriter
from tests.conftest import files_of


def test_a_whole_dataset_has_no_problems(dataset: Dataset) -> None:
    assert verify(dataset.folder.url) == []


def test_a_shard_cut_at_a_block_is_found_and_repaired(dataset: Dataset) -> None:
    root = Path(dataset.folder.url)
    before = files_of(root)
    shard = sorted(root.glob("train/*.tar"))[0]
    for blocks in (1, 4, shard.stat().st_size // 512 - 2):
        with shard.open("r+b") as file:
            file.truncate(512 * blocks)
        problems = verify(dataset.folder.url)
        assert any(str(shard.relative_to(root)) in str(p) for p in problems), problems
        rebuild(dataset.folder)
        assert files_of(root) == before


def test_a_flipped_byte_anywhere_in_a_shard_is_found(dataset: Dataset) -> None:
    root = Path(dataset.folder.url)
    rng = random.Random(0)
    shard = sorted(root.glob("train/*.tar"))[0]
    data = shard.read_bytes()
    for _ in range(25):
        at = rng.randrange(len(data))
        shard.write_bytes(data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :])
        assert verify(dataset.folder.url, readers=False), f"byte {at}"
    shard.write_bytes(data)
    assert verify(dataset.folder.url) == []


def test_missing_extra_and_stale_files_are_found(dataset: Dataset) -> None:
    root = Path(dataset.folder.url)
    shard = sorted(root.glob("train/*.tar"))[0]
    (root / "train" / "000077.tar").write_bytes(shard.read_bytes())
    assert any("000077.tar: not in the manifest" in str(p) for p in verify(dataset.folder.url))
    (root / "train" / "000077.tar").unlink()
    data = shard.read_bytes()
    shard.unlink()
    assert any(str(p).endswith(f"{shard.name}: missing") for p in verify(dataset.folder.url))
    shard.write_bytes(data)
    (root / "manifest" / "members.parquet").unlink()
    assert any("members.parquet: missing" in str(p) for p in verify(dataset.folder.url))
    rebuild(dataset.folder)
    (root / "manifest" / "rejects.parquet").write_bytes(b"no table")
    assert any("rejects.parquet: damaged" in str(p) for p in verify(dataset.folder.url))


@pytest.mark.parametrize(
    ("member", "change", "message"),
    [
        ("arkit.npy", lambda a: a.astype(np.float64), "arkit: expected float32, got float64"),
        ("arkit.npy", lambda a: a[:, :51], "arkit: expected shape"),
        ("arkit.npy", lambda a: a[1:], "arkit: expected"),
        ("arkit.npy", lambda a: np.where(np.isnan(a), np.float32(0), a), "valid.npy disagrees with the finite rows"),
        (
            "arkit.npy",
            lambda a: np.where(np.isnan(a), np.float32(np.inf), a),
            "arkit: an infinite number; what is miss",
        ),
        ("mel.npy", lambda a: np.where(a > 0.99, np.float16(np.inf), a), "mel: an infinite number"),
        ("pts.npy", lambda a: a + 1, "the first frame is at 1 ns, not 0"),
        ("pts.npy", lambda a: a[::-1].copy(), "pts_ns must rise"),
        ("valid.npy", lambda a: a ^ 2, "valid.npy disagrees"),
    ],
)
def test_values_that_break_a_promise_are_found(
    dataset: Dataset, member: str, change: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    """Dtype, shape, clock, what stands for nothing."""
    sample = dataset.sample(dataset.keys()[0])
    check_values(sample, dataset.info)
    with pytest.raises((AssertionError, ValueError), match=message):
        check_values({**sample, member: change(sample[member])}, dataset.info)


@pytest.mark.parametrize("streaming", [True, False])
def test_three_readers_agree_with_ours_on_decoded_values(dataset: Dataset, tmp_path: Path, streaming: bool) -> None:
    """As users read: webdataset decodes, ``datasets`` (streaming or not) gives the same numbers."""
    ours = {s["__key__"]: s for s in dataset}
    paths = [dataset.folder.path(r["shard"]) for r in dataset.table("shards").to_pylist()]
    web = {s["__key__"]: s for s in wds.WebDataset([f"file:{p}" for p in paths], shardshuffle=False).decode()}
    face = hf.load_dataset(
        "webdataset",
        data_files=paths,
        split="train",
        streaming=streaming,
        features=hf_features(dataset.info),
        cache_dir=str(tmp_path / "cache"),
    )
    hugging = {s["__key__"]: s for s in face}
    assert web.keys() == hugging.keys() == ours.keys()
    for key, sample in ours.items():
        np.testing.assert_array_equal(web[key]["arkit.npy"], sample["arkit.npy"])
        assert web[key]["mel.npy"].dtype == np.float16
        assert web[key]["json"] == hugging[key]["json"] == sample["json"]
        np.testing.assert_array_equal(np.asarray(hugging[key]["arkit.npy"], np.float32), sample["arkit.npy"])
        np.testing.assert_array_equal(np.asarray(hugging[key]["mel.npy"], np.float16), sample["mel.npy"])
        np.testing.assert_array_equal(np.asarray(hugging[key]["pts.npy"]), sample["pts.npy"])
        assert bytes(hugging[key]["flac"]) == sample["flac"] == web[key]["flac"]


def test_a_reader_that_sees_something_else_is_found(dataset: Dataset) -> None:
    """webdataset reads endings in lower case; tarfile does not."""
    with dataset.folder.create("train/odd.tar") as file:
        tar = TarWriter(file)
        tar.add("key.MP4", b"x")
        tar.close()
    assert str(next(check_readers(dataset.folder, ["train/odd.tar"], dataset.info))).startswith(
        "train/odd.tar: webdataset reads other bytes"
    )
