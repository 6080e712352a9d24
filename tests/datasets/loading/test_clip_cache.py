"""Decoded clips on disk: the same windows to the bit, for everyone; nothing stale, nothing damaged, within bounds."""

import os
from pathlib import Path

import numpy as np
import pytest

from talkface.datasets import Dataset, open_dataset
from talkface.datasets.loading.clip_cache import make_room
from talkface.datasets.loading.loader import Loader
from talkface.datasets.loading.windows import Pictures, Windows
from talkface.errors import DatasetError
from tests.datasets.loading.test_loader import all_same
from tests.datasets.making import make, steady, variable

CLIPS = [
    *(steady(f"s{i:02d}", 9 + 3 * i, seed=i, speaker=f"p{i % 5}", emotion=["happy", "sad"][i % 2]) for i in range(9)),
    *(variable(f"v{i:02d}", 20 + i, seed=20 + i, speaker="vera", emotion="fear") for i in range(5)),
]
WINDOWS = Windows(length=8, fps=25, columns=("arkit", "head", "mel", "shape", "lm"), sound=True, fill=0.0)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return open_dataset(make(tmp_path / "dataset", CLIPS, megabytes=0.035))


def loader(dataset: Dataset, cache: Path | bool, windows: Windows = WINDOWS, **more: object) -> Loader:
    return Loader(dataset, windows, **{"batch_size": 4, "seed": 3, "cache": cache} | more)  # type: ignore[arg-type]


def only_file(folder: Path) -> Path:
    (file,) = folder.glob("*.clips")
    return file


@pytest.mark.parametrize(
    "windows",
    [
        WINDOWS,
        Windows(length=7, fps=30000 / 1001, stride=3, columns=("arkit", "mel"), sound=True, pad="tail", fill=0.0),
        Windows(length=8, fps=12.5, columns=("head", "mel", "box"), sound_rows="frames", fill=-1.0),
        Windows(length=8, fps=25, columns=("arkit", "head"), mirror=0.5, sound=True, fill=0.0),
    ],
)
def test_the_same_to_the_bit_with_and_without(dataset: Dataset, tmp_path: Path, windows: Windows) -> None:
    more = {"companion": ("speaker",), "tail": "repeat"}
    plain, kept, later = (loader(dataset, c, windows, **more) for c in (False, tmp_path / "c", tmp_path / "c"))
    for epoch in (0, 1):
        for one in (plain, kept):
            one.set_epoch(epoch)
        expected = list(plain)
        assert len(expected) > 3 and all_same(expected, list(kept))
    assert later.cache and kept.cache
    assert all(later.cache.has(row) for row in range(len(dataset)))
    assert (later.cache.damaged, kept.cache.damaged) == (0, 0)


def test_later_epochs_and_runs_need_no_shards(dataset: Dataset, tmp_path: Path) -> None:
    expected = list(loader(dataset, tmp_path / "c"))
    other = loader(open_dataset(dataset.url), tmp_path / "c")
    for shard in dataset.table("shards").column("shard").to_pylist():
        (tmp_path / "dataset" / shard).unlink()
    assert all_same(list(other), expected)
    with pytest.raises(DatasetError, match="the shard is missing"):
        list(loader(open_dataset(dataset.url), tmp_path / "c"))


def test_what_workers_decode_is_everyones(dataset: Dataset, tmp_path: Path) -> None:
    made = loader(dataset, tmp_path / "c", tail="repeat")
    batches = list(made.batches(2, start="fork"))
    assert all_same(batches, list(loader(dataset, False, tail="repeat")))
    assert made.cache and all(made.cache.has(row) for row in range(len(dataset)))
    part = loader(open_dataset(dataset.url, split="train"), tmp_path / "c")
    assert part.cache and part.cache.path == made.cache.path


def test_other_data_code_or_windows_are_another_file(dataset: Dataset, tmp_path: Path) -> None:
    first = loader(dataset, tmp_path / "c")
    assert first.cache
    assert loader(dataset, tmp_path / "c", seed=9, batch_size=2).cache.path == first.cache.path  # type: ignore[union-attr]
    others = {
        loader(dataset, tmp_path / "c", Windows(length=8, fps=fps, columns=columns, sound=sound)).cache.path  # type: ignore[union-attr]
        for fps, columns, sound in ((25, ("arkit",), True), (25, ("arkit",), False), (24, ("arkit",), True))
    }
    longer = Windows(length=16, fps=25, columns=WINDOWS.columns, sound=True, pad="tail")
    assert len(others | {first.cache.path}) == 4
    assert loader(dataset, tmp_path / "c", longer).cache.path == first.cache.path  # type: ignore[union-attr]


def test_a_dataset_that_was_built_anew_is_read_anew(tmp_path: Path) -> None:
    url = make(tmp_path / "d", CLIPS[:4])
    list(loader(open_dataset(url), tmp_path / "c"))
    changed = [steady(c.key, len(c.pts_ns), seed=50 + i, speaker="q") for i, c in enumerate(CLIPS[:4])]
    for path in sorted((tmp_path / "d").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    opened = open_dataset(make(tmp_path / "d", changed))
    assert all_same(list(loader(opened, tmp_path / "c")), list(loader(opened, False)))
    assert len(list((tmp_path / "c").glob("*.clips"))) == 2


def test_a_damaged_shard_is_not_hidden(dataset: Dataset, tmp_path: Path) -> None:
    list(loader(dataset, tmp_path / "c"))
    shard = dataset.table("shards").column("shard")[0].as_py()
    path = tmp_path / "dataset" / shard
    data = bytearray(path.read_bytes())
    data[dataset.places[dataset.keys()[0]]["flac"][1] + 9] ^= 1
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=rf"{shard}: \w+\.flac is damaged"):
        list(loader(open_dataset(dataset.url), tmp_path / "c"))


def test_damage_in_the_cache_is_found_counted_and_mended(
    dataset: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = list(loader(dataset, tmp_path / "c", tail="repeat"))
    file = only_file(tmp_path / "c")
    data = np.fromfile(file, np.uint8)
    clean = data.copy()
    rng = np.random.default_rng(0)
    hit = 0
    for at in rng.integers(0, len(data), 40):
        data[at] ^= 1 << rng.integers(8)
    data.tofile(file)
    again = loader(dataset, tmp_path / "c", tail="repeat")
    assert all_same(list(again), expected)
    assert again.cache
    hit = again.cache.damaged
    assert hit > len(CLIPS) / 2 and len([r for r in caplog.records if "damaged" in r.message]) == hit
    healed = loader(dataset, tmp_path / "c", tail="repeat")
    assert all_same(list(healed), expected) and healed.cache and healed.cache.damaged == 0
    assert (np.fromfile(file, np.uint8) == clean).all()


def test_a_slot_that_was_begun_and_not_ended_is_none(dataset: Dataset, tmp_path: Path) -> None:
    """What a process leaves that is killed while it writes: bytes without their header, or a header without bytes."""
    expected = list(loader(dataset, tmp_path / "c"))
    file = only_file(tmp_path / "c")
    starts = loader(dataset, tmp_path / "c").cache._starts  # type: ignore[union-attr]
    with file.open("r+b") as opened:
        opened.seek(starts[1])
        opened.write(bytes(16))
        opened.seek(starts[2] + 64)
        opened.write(bytes(int(starts[3] - starts[2]) - 64))
    again = loader(dataset, tmp_path / "c")
    assert all_same(list(again), expected) and again.cache and again.cache.damaged == 1


def test_it_keeps_within_its_bounds(dataset: Dataset, tmp_path: Path) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    expected = list(loader(dataset, whole))
    held = only_file(whole).stat().st_blocks * 512
    limit = held / 3
    made = loader(dataset, part, cache_gigabytes=limit / 1e9)
    assert all_same(list(made), expected)
    kept = [made.cache.has(row) for row in range(len(dataset))]  # type: ignore[union-attr]
    assert any(kept) and not all(kept)
    assert only_file(part).stat().st_blocks * 512 <= limit + 2 * 4096 * sum(kept)
    assert loader(dataset, part, cache_gigabytes=0).cache is None


def test_the_oldest_make_room(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.clips").write_bytes(bytes(8192))
        os.utime(tmp_path / f"{number}.clips", (number, number))
    (tmp_path / "a.txt").write_bytes(bytes(8192))
    make_room(tmp_path, 2 * 8192, keep=tmp_path / "0.clips")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.clips", "2.clips", "3.clips", "a.txt"]


def test_where_nothing_can_be_kept_nothing_changes(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    made = loader(dataset, tmp_path / "file" / "c")
    assert made.cache is None
    assert all_same(list(made), list(loader(dataset, False)))
    filmed = open_dataset(make(tmp_path / "filmed", CLIPS[:2], video=True))
    assert loader(filmed, tmp_path / "c", Windows(length=4, fps=25, pictures=Pictures(size=32))).cache is None


def test_a_file_that_is_removed_meanwhile_harms_nobody(dataset: Dataset, tmp_path: Path) -> None:
    made = loader(dataset, tmp_path / "c")
    expected = list(made)
    only_file(tmp_path / "c").unlink()
    assert all_same(list(made), expected)
    assert all_same(list(loader(dataset, tmp_path / "c")), expected)


def test_the_user_names_the_folder(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALKFACE_CACHE", str(tmp_path / "mine"))
    list(loader(dataset, True))
    assert only_file(tmp_path / "mine").stat().st_mode & 0o777 == 0o600
