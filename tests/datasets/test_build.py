"""Packs to shards: bytes, splits, thresholds, repair."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talkface.config import Threshold
from talkface.datasets.build.job import build, rebuild, refuse_foreign, refuse_to_lose
from talkface.datasets.build.packs import DamagedPack
from talkface.datasets.reader import Dataset
from talkface.datasets.split import Splitting
from talkface.datasets.verify.dataset import verify
from talkface.errors import ConfigError, DatasetError
from talkface.store import Folder
from tests.conftest import files_of
from tests.datasets.conftest import make_plan


def test_equal_packs_give_equal_bytes_wherever_they_lie(tmp_path: Path) -> None:
    for name in ("a", "b"):
        folder = Folder(tmp_path / name)
        build(folder, make_plan(folder))
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_a_threshold_rejects_with_value_and_can_be_changed_without_the_inputs(dataset: Dataset) -> None:
    assert len(dataset) == 11
    (row,) = dataset.table("rejects").to_pylist()
    assert (row["stage"], row["reason"], row["key"]) == ("filter", "coverage_low", "s0-1")
    assert (row["value"], row["threshold"]) == (0.2, 0.5)
    build(dataset.folder, make_plan(dataset.folder, thresholds={"coverage": Threshold(min=0.1)}))
    assert len(Dataset(dataset.folder.url)) == 12


def test_speakers_are_never_split(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    build(folder, make_plan(folder, n_sources=40, val=0.3, test=0.3))
    rows = Dataset(str(tmp_path)).clips.to_pylist()
    splits = {r["speaker"]: {o["split"] for o in rows if o["speaker"] == r["speaker"]} for r in rows}
    assert all(len(s) == 1 for s in splits.values())
    assert {r["split"] for r in rows} == {"train", "val", "test"}


@given(st.text(min_size=1), st.floats(0, 0.4), st.floats(0, 0.4))
def test_a_split_only_grows_with_its_share(identity: str, val: float, test: float) -> None:
    smaller = Splitting(val=val, test=test).split_of(identity)
    if smaller == "test":
        assert Splitting(val=val, test=min(test + 0.1, 0.9)).split_of(identity) == "test"
    assert Splitting(val=0, test=0).split_of(identity) == "train"


def test_a_build_stopped_in_the_middle_is_no_dataset_and_is_finished_by_the_next(dataset: Dataset) -> None:
    before = files_of(Path(dataset.folder.url))
    dataset.folder.remove("dataset.json")
    with pytest.raises(DatasetError, match="ingest"):
        Dataset(dataset.folder.url)
    rebuild(dataset.folder)
    assert files_of(Path(dataset.folder.url)) == before


def test_rebuild_refuses_when_packs_are_gone_or_damaged(dataset: Dataset) -> None:
    pack = Path(dataset.folder.url) / "packs" / "u3.tar"
    data = pack.read_bytes()
    pack.write_bytes(data[:700] + b"?" + data[701:])
    with pytest.raises(DatasetError, match=r"u3\.tar: damaged"):
        rebuild(dataset.folder)
    pack.unlink()
    with pytest.raises(DatasetError, match="ingest"):
        rebuild(dataset.folder)
    assert verify(dataset.folder.url) == []


def test_sources_are_not_lost_by_accident(dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match="6 sources"):
        refuse_to_lose(dataset.folder, {"other.mp4"}, "0", replace=False)
    refuse_to_lose(dataset.folder, {"other.mp4"}, "0", replace=True)
    refuse_to_lose(dataset.folder, {f"s{i}.mp4" for i in range(9)}, "0", replace=False)
    with pytest.raises(ConfigError, match="other settings or models"):
        refuse_to_lose(dataset.folder, {f"s{i}.mp4" for i in range(9)}, "1", replace=False)


def test_packs_that_no_longer_belong_go_after_a_build(dataset: Dataset) -> None:
    packs = Path(dataset.folder.url) / "packs"
    (packs / "old.tar").write_bytes(b"old")
    (packs / "old.json").write_bytes(b"{}")
    rebuild(dataset.folder)
    assert {p.name for p in packs.iterdir()} == {"plan.json", *(f"u{i}.{e}" for i in range(6) for e in ("tar", "json"))}


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: [],
        lambda plan: plan | {"packs": ["u0"]},
        lambda plan: {k: v for k, v in plan.items() if k != "scores"},
        lambda plan: plan | {"info": {}},
        lambda plan: plan | {"marks": None},
        lambda plan: plan | {"sources": [{k: v for k, v in s.items() if k != "camera"} for s in plan["sources"]]},
        lambda plan: plan | {"build": plan["build"] | {"minutes": 1}},
    ],
)
def test_a_plan_of_another_version_is_told_in_one_line(dataset: Dataset, change: Callable[[Any], Any]) -> None:
    path = Path(dataset.folder.url) / "packs" / "plan.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(DatasetError, match=r"another version of talkface\. Run the ingest again"):
        rebuild(dataset.folder)
    assert len(Dataset(dataset.folder.url)) == 11, "nothing has been changed"


def test_a_pack_of_another_version_is_told_in_one_line(dataset: Dataset) -> None:
    path = Path(dataset.folder.url) / "packs" / "u3.json"
    index = json.loads(path.read_text())
    del index["clips"][0]["share"]
    path.write_text(json.dumps(index))
    with pytest.raises(DamagedPack, match=r"u3\.json: of another version"):
        rebuild(dataset.folder)


def test_a_folder_of_something_else_is_left_alone(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    folder = Folder(tmp_path / "project")
    refuse_foreign(folder)
    (tmp_path / "project" / "README.md").write_text("mine")
    with pytest.raises(ConfigError, match=r"README\.md"):
        refuse_foreign(folder)
    refuse_foreign(dataset.folder)
    dataset.folder.remove("dataset.json")
    refuse_foreign(dataset.folder)


def test_a_damaged_dataset_json_is_a_dataset_error(dataset: Dataset) -> None:
    dataset.folder.write("dataset.json", b'{"schema_version": 1}')
    with pytest.raises(DatasetError, match="damaged"):
        Dataset(dataset.folder.url)


def test_a_pack_that_is_not_what_it_was_is_named(tmp_path: Path) -> None:
    """One bit in the middle of a member: its size is right, and nothing else would tell."""
    folder = Folder(tmp_path)
    plan = make_plan(folder)
    path = tmp_path / "packs" / "u3.tar"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedPack, match=r"u3\.tar: damaged") as caught:
        build(folder, plan)
    assert caught.value.pack == "u3"
    assert not folder.exists("dataset.json")


def test_tracks_and_shots_count_through_a_source(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    plan = make_plan(folder)
    one = [dataclasses.replace(use, source="s0.mp4") for use in plan.packs[:3]]
    build(folder, dataclasses.replace(plan, packs=one, build=plan.build.model_copy(update={"thresholds": {}})))
    clips = sorted(Dataset(str(tmp_path)).clips.to_pylist(), key=lambda c: str(c["key"]))
    assert [c["shot"] for c in clips] == [0, 0, 1, 1, 2, 2]
