"""The streaming loader: every window once, equal batches, the same order for any workers, exact resume, damage."""

import json
import multiprocessing
import pickle
import re
import subprocess
import sys
import uuid
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from talkface.datasets import Dataset, open_dataset
from talkface.datasets.loading.loader import Batch, Loader
from talkface.datasets.loading.windows import Pictures, Windows
from talkface.errors import ConfigError, DatasetError
from tests.conftest import ROOT
from tests.datasets.making import make, steady, variable

CLIPS = [
    *(steady(f"s{i:02d}", 9 + 3 * i, seed=i, speaker=f"p{i % 5}", emotion=["happy", "sad"][i % 2]) for i in range(12)),
    *(variable(f"v{i:02d}", 20 + i, seed=20 + i, speaker="vera", emotion="fear") for i in range(6)),
]
WINDOWS = Windows(length=8, fps=25, columns=("arkit", "head", "mel", "shape"), sound=True, fill=0.0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    opened = open_dataset(make(tmp_path_factory.mktemp("loader") / "dataset", CLIPS, megabytes=0.035))
    assert opened.table("shards").num_rows == 7
    return opened


def ids(batches: list[Batch]) -> list[tuple[str, int]]:
    """Key and start of every window in the order of training."""
    return [(k, int(t[0])) for b in batches for k, t in zip(b["key"], b["times_ns"], strict=True)]


def all_windows(dataset: Dataset, windows: Windows = WINDOWS) -> set[tuple[str, int]]:
    keys, plan = dataset.keys(), windows.plan(dataset.clips)
    return {(keys[c], int(windows.times_ns(f)[0])) for c, f in zip(plan.clip, plan.first, strict=True)}


def same(a: Batch, b: Batch) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(
        torch.equal(v, b[k]) if isinstance(v, torch.Tensor) else same(v, b[k]) if isinstance(v, dict) else v == b[k]
        for k, v in a.items()
    )


def all_same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(map(same, a, b))


def as_workers(make_loader: Any, workers: int) -> list[Batch]:
    """What a DataLoader with so many workers gives, in this process: each takes its turn, as long as it has any."""
    made = [made_by(make_loader(), w, workers) for w in range(workers)]
    return [b for turn in range(max(map(len, made))) for m in made for b in m[turn : turn + 1]]


def made_by(loader: Loader, number: int, workers: int) -> list[Batch]:
    first = loader._first_batch(number, workers)
    order = loader.order(loader.epoch)
    return [loader._batch(order, loader.epoch, i) for i in range(first, len(loader), workers)]


@settings(deadline=None, max_examples=25)
@given(
    ranks=st.integers(1, 4), workers=st.integers(1, 3), batch_size=st.integers(1, 6), seed=st.integers(0, 9),
    epoch=st.integers(0, 5), tail=st.sampled_from(["drop", "repeat"]), shuffle=st.booleans(),
    buffer=st.integers(1, 60), run=st.integers(1, 4),
)  # fmt: skip
def test_every_window_once_and_equal_batches(
    dataset: Dataset, ranks: int, workers: int, epoch: int, **more: Any
) -> None:
    light = Windows(length=8, fps=25, columns=("shape",), pad="tail")
    expected = all_windows(dataset, light)

    def loader(rank: int) -> Loader:
        made = Loader(dataset, light, rank=rank, ranks=ranks, **more)
        made.set_epoch(epoch)
        return made

    by_rank = [as_workers(lambda r=rank: loader(r), workers) for rank in range(ranks)]
    assert {len(b) for b in by_rank} == {len(loader(0))}
    batches = [b for of_rank in by_rank for b in of_rank]
    assert {len(b["key"]) for b in batches} == {more["batch_size"]}
    once = [i for b in batches for i, r in zip(ids([b]), b["repeated"], strict=True) if not r]
    assert len(set(once)) == len(once)
    left_out = len(expected) - len(once)
    if more["tail"] == "repeat":
        assert set(once) == expected
    else:
        assert set(once) <= expected and 0 <= left_out < ranks * more["batch_size"]
        assert not any(b["repeated"].any() for b in batches)


def test_seven_shards_on_three_ranks_with_two_workers(dataset: Dataset) -> None:
    counts, seen = set(), []
    for rank in range(3):
        loader = Loader(dataset, WINDOWS, batch_size=4, rank=rank, ranks=3, tail="repeat")
        for start in ("fork", "spawn"):
            batches = list(loader.batches(2, start=start))
            assert all_same(batches, list(loader))
            counts.add(len(batches))
            if rank:  # starting processes takes seconds
                break
        seen += [i for b in batches for i, r in zip(ids([b]), b["repeated"], strict=True) if not r]
    assert len(counts) == 1 and Counter(seen) == Counter(all_windows(dataset))


def test_a_batch_holds_what_the_windows_hold(dataset: Dataset) -> None:
    for batch in Loader(dataset, WINDOWS, batch_size=3):
        assert batch["arkit"].shape == (3, 8, 52) and batch["arkit"].dtype == torch.float32
        assert batch["valid"].shape == (3, 8) and batch["valid"].dtype == torch.bool
        assert batch["sound"].shape == (3, 5120) and batch["mel"].shape == (3, 26, 4)
        for i, key in enumerate(batch["key"]):
            expected = next(w for w in WINDOWS.of(dataset, key) if w["times_ns"][0] == batch["times_ns"][i, 0])
            for name in ("arkit", "head", "mel", "sound", "valid", "shape"):
                assert np.array_equal(batch[name][i].numpy(), expected[name])
            row = dataset.clips.slice(dataset.row(key), 1).to_pylist()[0]
            assert (batch["speaker"][i], batch["emotion"][i], batch["intensity"][i]) == (
                row["speaker"], row["emotion"], row["intensity"])  # fmt: skip


def test_order_is_of_seed_and_epoch(dataset: Dataset) -> None:
    def order(seed: int, epoch: int) -> list[tuple[str, int]]:
        loader = Loader(dataset, WINDOWS, batch_size=4, seed=seed)
        loader.set_epoch(epoch)
        return ids(list(loader))

    assert order(1, 2) == order(1, 2)
    assert len({tuple(order(s, e)) for s in (0, 1) for e in (0, 1, 2)}) == 6
    plain = Loader(dataset, WINDOWS, batch_size=1, shuffle=False)
    keys = dataset.keys()
    assert [k for k, _ in ids(list(plain))] == sorted((k for k, _ in all_windows(dataset)), key=keys.index)


def test_a_small_buffer_mixes_less_than_a_large_one(dataset: Dataset) -> None:
    """Runs of one clip stay together with a buffer of one, and windows only move within the buffer."""
    near = Loader(dataset, WINDOWS, batch_size=1, buffer=1, run=1)
    order = near.order(0)
    clips = near.plan.clip[order]
    assert (np.diff(clips) != 0).sum() == len(set(clips)) - 1
    mixed = Loader(dataset, WINDOWS, batch_size=1, buffer=10, run=1).order(0)
    for low in range(0, len(order), 10):
        assert set(mixed[low : low + 10]) == set(order[low : low + 10])
    assert (mixed != order).any()


def test_windows_of_a_video_rise_within_the_buffer(tmp_path: Path) -> None:
    filmed = open_dataset(make(tmp_path / "d", CLIPS[:6], video=True))
    windows = Windows(length=2, fps=25, columns=(), pictures=Pictures(size=32))
    loader = Loader(filmed, windows, batch_size=1, buffer=15)
    order, clip = loader.order(0), loader.plan.clip
    assert sorted(order) == list(range(len(loader.plan)))
    for low in range(0, len(order), 15):
        part = order[low : low + 15]
        for row in set(clip[part]):
            assert (np.diff(part[clip[part] == row]) > 0).all()
    assert (np.diff(clip[order[:15]]) != 0).sum() > len(set(clip[order[:15]]))
    assert (loader.order(1) != order).any()
    assert (Loader(filmed, windows, batch_size=1).buffer, Loader(filmed, WINDOWS, batch_size=1).buffer) == (256, 4096)


@pytest.mark.parametrize("companion", [(), ("speaker", "emotion")])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_resume_at_every_position_with_any_workers(dataset: Dataset, workers: int, companion: tuple[str, ...]) -> None:
    def loader() -> Loader:
        return Loader(dataset, WINDOWS, batch_size=3, ranks=2, rank=1, seed=5, companion=companion)

    one = loader()
    one.set_epoch(3)
    whole, states = [], [one.state_dict()]
    for batch in one:
        whole.append(batch)
        states.append(one.state_dict())
    assert len(whole) == 8
    for taken, state in enumerate(states):
        kept = json.loads(json.dumps(state))
        assert kept == json.loads(json.dumps(one.state_dict(batches=taken)))

        def resumed(kept: dict[str, Any] = kept) -> Loader:
            again = loader()
            again.load_state_dict(kept)
            assert again.epoch == 3 and again.state_dict()["samples"] == kept["samples"]
            again.set_epoch(3)
            return again

        assert all_same(as_workers(resumed, workers), whole[taken:])
    assert all_same(list(one), whole)


@pytest.mark.parametrize("workers", [(0, 2), (2, 0)])
def test_resume_between_processes(dataset: Dataset, workers: tuple[int, int]) -> None:
    first, second = (Loader(dataset, WINDOWS, batch_size=4, seed=5) for _ in range(2))
    whole = list(Loader(dataset, WINDOWS, batch_size=4, seed=5))
    taken = []
    for batch in first.batches(workers[0], start="fork"):
        taken.append(batch)
        if len(taken) == 3:
            break
    state = first.state_dict()
    second.load_state_dict(state)
    assert state["samples"] == 12
    assert all_same(taken + list(second.batches(workers[1], start="fork")), whole)
    assert all_same(list(second.batches(workers[1], start="fork")), whole), "the next pass is a whole epoch again"


def test_workers_stay_and_start_where_they_are_told(dataset: Dataset) -> None:
    loader, alone = (Loader(dataset, WINDOWS, batch_size=4, seed=5) for _ in range(2))
    whole = {e: (alone.set_epoch(e), list(alone))[1] for e in (0, 1, 2)}
    before = {p.pid for p in multiprocessing.active_children()}

    def ours() -> set[int | None]:
        return {p.pid for p in multiprocessing.active_children()} - before

    assert all_same(list(loader.batches(2, start="fork")), whole[0])
    stayed = ours()
    assert len(stayed) == 2
    loader.set_epoch(1)
    begun = [b for _, b in zip(range(3), loader.batches(2, start="fork"), strict=False)]
    state = loader.state_dict()
    assert all_same(begun, whole[1][:3])
    loader.set_epoch(2)
    assert all_same(list(loader.batches(2, start="fork")), whole[2])
    loader.load_state_dict(state)
    assert all_same(begun + list(loader.batches(2, start="fork")), whole[1])
    assert ours() == stayed
    with pytest.raises(ConfigError, match="of one worker alone"):
        loader.load_state_dict(state | {"worker": [0, 2]})
        next(loader.batches(2, start="fork"))
    loader.load_state_dict(state)
    assert all_same(list(loader.batches(1, start="fork")), whole[1][3:]) and len(ours() - stayed) == 1
    loader.close()
    assert not ours()


def test_workers_that_fail_make_place_for_others(tmp_path: Path) -> None:
    dataset, shard, _ = broken(tmp_path, "gone")
    loader = Loader(dataset, WINDOWS, batch_size=2)
    whole = (tmp_path / "d" / shard).with_suffix(".kept")
    for _ in range(2):
        with pytest.raises(DatasetError, match="the shard is missing"):
            list(loader.batches(2, start="fork"))
    make(tmp_path / "other", CLIPS, megabytes=0.035)
    whole.write_bytes((tmp_path / "other" / shard).read_bytes())
    whole.rename(tmp_path / "d" / shard)
    assert all_same(list(loader.batches(2, start="fork")), list(loader))


def test_resume_with_other_ranks(dataset: Dataset) -> None:
    """What two ranks left over, four finish."""

    def loader(rank: int, ranks: int) -> Loader:
        return Loader(dataset, WINDOWS, batch_size=2, rank=rank, ranks=ranks)

    two = [loader(r, 2) for r in range(2)]
    begun = [next(b) for b in map(iter, two) for _ in range(2)]
    four = [loader(r, 4) for r in range(4)]
    for one in four:
        one.load_state_dict(two[0].state_dict(batches=2))
    ended = [b for one in four for b in one]
    order = ids(list(loader(0, 1)))
    assert set(ids(begun)) == set(order[:8])
    assert set(ids(ended)) == set(order[8 : 8 * len(four[0])])
    with pytest.raises(ConfigError, match="between two steps"):
        loader(0, 4).load_state_dict(two[0].state_dict(batches=1))


def test_states_of_other_data_or_settings_are_refused(dataset: Dataset) -> None:
    state = Loader(dataset, WINDOWS, batch_size=4).state_dict()
    part = dataset.where(pc.field("emotion") != "sad")
    for other, name in (
        (Loader(dataset, WINDOWS, batch_size=4, seed=1), "seed"),
        (Loader(part, WINDOWS, batch_size=4), "data"),
        (Loader(dataset, Windows(length=4, fps=25), batch_size=4), "windows"),
        (Loader(dataset, WINDOWS, batch_size=4, buffer=9), "buffer"),
    ):
        with pytest.raises(ConfigError, match=f"made with another {name}"):
            other.load_state_dict(state)


class Recorder(torch.utils.data.IterableDataset):
    """Keeps, beside each batch, the state that its worker has then: what a StatefulDataLoader does."""

    def __init__(self, loader: Loader, states: list[Any] | None = None) -> None:
        self.loader, self.states = loader, states

    def __iter__(self) -> Any:
        worker = torch.utils.data.get_worker_info()
        if self.states:
            self.loader.load_state_dict(self.states[worker.id])
        yield "start", worker.id, self.loader.state_dict()
        for batch in self.loader:
            yield batch, worker.id, self.loader.state_dict()


def test_states_of_workers_resume_those_workers(dataset: Dataset) -> None:
    loader = Loader(dataset, WINDOWS, batch_size=4)
    whole = list(loader)

    def run(states: list[Any] | None, stop: int) -> tuple[list[Batch], list[Any]]:
        batches, found = [], {}
        for batch, worker, state in DataLoader(
            Recorder(Loader(dataset, WINDOWS, batch_size=4), states), batch_size=None, num_workers=2,
            multiprocessing_context="fork",
        ):  # fmt: skip
            found[worker] = state
            if batch != "start":
                batches.append(batch)
            if len(found) == 2 and len(batches) == stop:
                break
        return batches, [found[0], found[1]]

    for stop in (0, 3):
        begun, states = run(None, stop)
        ended, _ = run(states, -1)
        in_turn = sorted(ended, key=lambda b: b["index"])  # a StatefulDataLoader knows whose turn it is
        assert all_same(begun + in_turn, whole)
    with pytest.raises(ConfigError, match="Keep 2 workers"):
        loader.load_state_dict(states[1])
        list(loader)


def test_a_stateful_dataloader_resumes(dataset: Dataset) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader")

    def loader() -> Any:
        made = Loader(dataset, WINDOWS, batch_size=4)
        return stateful.StatefulDataLoader(made, batch_size=None, num_workers=2, multiprocessing_context="fork")

    whole = list(Loader(dataset, WINDOWS, batch_size=4))
    for stop in (1, 4, 7):
        first, second = loader(), loader()
        begun = [b for _, b in zip(range(stop), first, strict=False)]  # takes no batch too many
        second.load_state_dict(first.state_dict())
        assert len(begun) == stop and all_same(begun + list(second), whole)


def test_epochs_reach_workers_that_stay(dataset: Dataset) -> None:
    loader = Loader(dataset, WINDOWS, batch_size=4)
    stay = DataLoader(loader, batch_size=None, num_workers=2, persistent_workers=True, multiprocessing_context="fork")
    for epoch in (0, 1, 4):
        loader.set_epoch(epoch)
        expected = Loader(dataset, WINDOWS, batch_size=4)
        expected.set_epoch(epoch)
        batches = list(stay)
        assert all_same(batches, list(expected)) and {b["epoch"] for b in batches} == {epoch}


def broken(tmp_path: Path, how: str) -> tuple[Dataset, str, set[str]]:
    """A dataset with one shard cut, gone or of another content; the shard, and the keys that are lost."""
    url = make(tmp_path / "d", CLIPS, megabytes=0.035)
    opened = open_dataset(url)
    shard = opened.table("shards").column("shard")[2].as_py()
    keys = opened.where(pc.field("shard") == shard).keys()
    path = tmp_path / "d" / shard
    whole = path.read_bytes()
    if how == "gone":
        path.unlink()
        return open_dataset(url), shard, set(keys)
    if how == "cut":
        path.write_bytes(whole[: opened.places[keys[1]]["head.npy"][1] + 5])
        return open_dataset(url), shard, set(keys[1:])
    at = opened.places[keys[0]]["flac"][1]
    path.write_bytes(whole[:at] + bytes(40) + whole[at + 40 :])
    return open_dataset(url), shard, {keys[0]}


@pytest.mark.parametrize(("how", "member"), [("cut", "head.npy"), ("gone", "flac"), ("damaged", "flac")])
def test_a_broken_shard_raises_or_is_skipped_and_counted(
    tmp_path: Path, how: str, member: str, caplog: pytest.LogCaptureFixture
) -> None:
    dataset, shard, lost = broken(tmp_path, how)
    with pytest.raises(DatasetError, match=rf"{shard}: \w+\.{member}"):
        list(Loader(dataset, WINDOWS, batch_size=2))
    expected = {w for w in all_windows(dataset) if w[0] not in lost}
    n_lost = len(all_windows(dataset)) - len(expected)
    for batch_size in (1, 4):
        loader = Loader(dataset, WINDOWS, batch_size=batch_size, on_error="skip", tail="repeat", run=2)
        batches = list(loader)
        assert len(batches) == len(loader) and {len(b["key"]) for b in batches} == {batch_size}
        once = [i for b in batches for i, r in zip(ids([b]), b["repeated"], strict=True) if not r]
        assert Counter(once) == Counter(expected)
        errors = [e for b in batches for e in b["errors"]]
        assert len(errors) >= n_lost and all(e.startswith(f"{shard}: ") for e in errors)
        assert loader.skipped == len(errors) and len(caplog.records) >= len(errors)
        if batch_size == 1:
            assert len(errors) == n_lost
    again = Loader(dataset, WINDOWS, batch_size=4, on_error="skip", tail="repeat", run=2)
    assert all_same(list(again.batches(2, start="fork")), batches) and again.skipped == loader.skipped


def test_a_dataset_with_nothing_left_to_read_says_so(tmp_path: Path) -> None:
    dataset = open_dataset(make(tmp_path / "d", CLIPS[:3]))
    for path in (tmp_path / "d" / "train").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DatasetError, match="none of its 3 windows can be read"):
        list(Loader(dataset, WINDOWS, batch_size=2, on_error="skip"))


def test_weights_draw_groups_alike(dataset: Dataset) -> None:
    weights = WINDOWS.weights(dataset.clips, by=("emotion",))
    loader = Loader(dataset, WINDOWS, batch_size=1, weights=weights)
    counts = Counter(b["emotion"][0] for b in loader)
    assert sum(counts.values()) == len(all_windows(dataset)) and max(counts.values()) - min(counts.values()) <= 2
    drawn = np.bincount(loader.order(0), minlength=len(weights))
    assert (np.abs(drawn - weights * len(weights)) < 1).all()
    assert set(loader.order(0)) != set(loader.order(1))
    zero = np.zeros(len(weights))
    zero[3] = 1
    assert set(Loader(dataset, WINDOWS, batch_size=1, weights=zero).order(0)) == {3}


def test_companions(dataset: Dataset) -> None:
    loader = Loader(dataset, WINDOWS, batch_size=2, companion=("speaker", "emotion"))
    alone = 0
    for batch in loader:
        other = batch["companion"]
        assert other["arkit"].shape == batch["arkit"].shape
        for i, key in enumerate(batch["key"]):
            mine, its = (dataset.clips.slice(dataset.row(k), 1).to_pylist()[0] for k in (key, other["key"][i]))
            assert (mine["speaker"], mine["emotion"]) == (its["speaker"], its["emotion"])
            assert bool(batch["has_companion"][i]) == (key != other["key"][i])
            assert other["shape"][i, 0] == next(c for c in CLIPS if c.key == other["key"][i]).number
            alone += not batch["has_companion"][i]
    assert 0 < alone < len(all_windows(dataset))


def test_of_companions_only_what_is_asked_for(dataset: Dataset) -> None:
    every, some = (
        list(Loader(dataset, WINDOWS, batch_size=2, companion=("speaker",), companion_columns=columns))
        for columns in (None, ("arkit",))
    )
    for one, two in zip(every, some, strict=True):
        assert set(two["companion"]) == {"key", "times_ns", "valid", "arkit"} < set(one["companion"])
        assert one["companion"]["key"] == two["companion"]["key"]
        assert torch.equal(one["companion"]["times_ns"], two["companion"]["times_ns"])
        torch.testing.assert_close(one["companion"]["arkit"], two["companion"]["arkit"], rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(one["arkit"], two["arkit"], rtol=0, atol=0, equal_nan=True)
    with pytest.raises(ConfigError, match="lm are no columns"):
        Loader(dataset, WINDOWS, batch_size=2, companion=("speaker",), companion_columns=("lm",))


def test_pictures_come_too_and_draws_are_of_the_position(tmp_path: Path) -> None:
    filmed = open_dataset(make(tmp_path / "d", CLIPS[:4], video=True))
    windows = Windows(length=4, fps=25, columns=("lm",), pictures=Pictures(size=32, zoom=0.3))
    one, two = (list(Loader(filmed, windows, batch_size=2, cache_megabytes=c)) for c in (0, 256))
    assert one[0]["frames"].shape == (2, 4, 32, 32, 3) and one[0]["frames"].dtype == torch.uint8
    assert str(one) == str(two)
    other = Loader(filmed, windows, batch_size=2)
    other.set_epoch(1)
    squares = {float(b["lm"][i, 0, 1, 0]) for b in [*one, *other] for i in range(2)}
    assert len(squares) > len(all_windows(filmed, windows))


def test_the_cache_is_bounded_and_nothing_is_open_in_a_new_loader(dataset: Dataset) -> None:
    fresh = Loader(open_dataset(dataset.url), WINDOWS, batch_size=2, cache_megabytes=0.05)
    assert not fresh.dataset.reader._files and not fresh._clips
    for _ in fresh:
        assert sum(c.bytes for c in fresh._clips.values()) <= 50_000  # type: ignore[union-attr]
    copy = pickle.loads(pickle.dumps(fresh))
    assert not copy._clips and not copy.dataset.reader._files
    assert all_same(list(copy), list(fresh))


def test_a_memory_filesystem_and_a_view(dataset: Dataset) -> None:
    remote = open_dataset(make(f"memory://{uuid.uuid4().hex}", CLIPS))
    happy = pc.field("emotion") == "happy"
    here, there = (list(Loader(d.where(happy), WINDOWS, batch_size=3, run=99)) for d in (dataset, remote))
    assert {e for b in there for e in b["emotion"]} == {"happy"}
    assert len(here) == len(there) and set(ids(there)) <= all_windows(dataset.where(happy))


def test_what_cannot_be_is_said(dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match="do not fill one batch of 64 on each of 3 ranks"):
        Loader(dataset, WINDOWS, batch_size=64, rank=0, ranks=3)
    for wrong, text in (
        ({"rank": 3, "ranks": 3}, "0 to 2"), ({"rank": 0}, "both"), ({"tail": "keep"}, "drop or repeat"),
        ({"labels": ("mood",)}, "no label 'mood'"), ({"weights": np.ones(3)}, "one a window"), ({"run": 0}, "least 1"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=text):
            Loader(dataset, WINDOWS, **{"batch_size": 2} | wrong)  # type: ignore[arg-type]


def test_the_pages_example_runs(tmp_path: Path) -> None:
    make(tmp_path / "dataset", CLIPS)
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "loading.md").read_text(), re.DOTALL)[0]
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("torch.Size([2, 8, 52]) torch.Size([2, 26, 4])") == result.stdout.count("\n") > 9
    assert "happy" in result.stdout and "sad" not in result.stdout


def test_plain_webdataset_gives_the_same_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's second example, and what it reads, against ours."""
    make(tmp_path / "dataset", CLIPS)
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "loading.md").read_text(), re.DOTALL)[1]
    ran: dict[str, Any] = {}
    exec(code, ran)
    dataset, windows, plain = ran["dataset"], ran["windows"], ran["plain"]
    decoded = list(plain.decode())
    assert [sample["__key__"] for sample in decoded] == dataset.keys()
    for sample in decoded:
        for member, value in dataset.sample(sample["__key__"]).items():
            assert identical(sample[member], value), member
    theirs = list(plain.compose(partial(windows.of_samples, dataset)))
    ours = [window for key in dataset.keys() for window in windows.of(dataset, key)]  # noqa: SIM118
    assert len(theirs) == len(ours) == len(ran["seen"]) > 9
    for one, other in zip(theirs, ours, strict=True):
        assert set(one) == set(other) and all(identical(one[name], other[name]) for name in one)
    first = dataset.where(pc.field("key") == dataset.keys()[0])
    assert {w["key"] for w in plain.compose(partial(windows.of_samples, first))} == set(first.keys())


def identical(one: Any, other: Any) -> bool:
    if not isinstance(one, np.ndarray):
        return bool(one == other)
    return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


def test_ranks_are_those_of_torch(dataset: Dataset, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_as_rank, args=(r, dataset, f"file://{tmp_path}/meet", queue)) for r in range(2)]
    for worker in workers:
        worker.start()
    found = dict(queue.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join(60)
    for rank in range(2):
        assert found[rank] == ids(list(Loader(dataset, WINDOWS, batch_size=3, rank=rank, ranks=2)))


def _as_rank(rank: int, dataset: Dataset, meet: str, queue: Any) -> None:
    torch.distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=2)
    queue.put((rank, ids(list(Loader(dataset, WINDOWS, batch_size=3)))))
