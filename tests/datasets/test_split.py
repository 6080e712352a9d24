"""Splits keep people together: by label, by face, by source; decided anew without decoding; leaks are found."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from talkface.clip import ColumnSpec
from talkface.config import Build
from talkface.datasets.build import build, rebuild
from talkface.datasets.reader import Dataset
from talkface.datasets.split import Splitting, decide, leaks, read_splitting, same_faces, write_splitting
from talkface.datasets.verify import verify
from talkface.errors import ConfigError
from talkface.store import PACKS, Folder, npy, write_pack
from tests.annotate.stand_ins import random_sface
from tests.datasets.conftest import clip, make_plan

IDENTITY = ColumnSpec(
    name="identity", dtype="float32", shape=(4,), unit="unit vector", clock="clip", description="face"
)
SPEAKERS = (None, None, "anna", "anna", "ben", None, None, None)
FACES = (0, 1, 2, 2, 3, 3, 0, 1)
"""Of eight sources: which speaker a list names, and whose face is in it."""


def face(person: int, seed: int) -> np.ndarray:
    vector = np.eye(4)[person] + np.random.default_rng(seed).normal(0, 0.1, 4)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def make(root: Path, *, faces: bool = True, speakers: tuple[str | None, ...] = SPEAKERS) -> Dataset:
    """Two clips a source; the faces of one person have a cosine above 0.9, of two people below 0.3."""
    folder = Folder(root)
    plan = make_plan(folder, len(speakers), val=0.3, test=0.3)
    for i, used in enumerate(plan.packs):
        about: dict[str, list[object]] = {"clips": [], "rejects": []}
        with write_pack(Folder(f"{folder.url}/{PACKS}"), used.name, about) as pack:
            for j in range(2):
                record, members = clip(f"{j}", 6, {"coverage": 1.0}, 10 * i + j)
                about["clips"].append(record)
                pack.add(record["key"], members | ({"identity.npy": npy(face(FACES[i], 2 * i + j))} if faces else {}))
    sources = [{**s, "speaker": who} for s, who in zip(plan.sources, speakers, strict=True)]
    columns = (*plan.columns, *([IDENTITY] if faces else []))
    build(folder, dataclasses.replace(plan, sources=sources, columns=columns))
    return Dataset(str(root))


def together(splitting: Splitting, dataset: Dataset) -> list[set[int]]:
    """Sources by group, as numbers."""
    rows = {c["source_sha256"]: c for c in dataset.clips.to_pylist()}
    groups: dict[str, set[int]] = {}
    for sha256, row in rows.items():
        groups.setdefault(splitting.group(row["speaker"], sha256), set()).add(int(row["source"][1]))
    return sorted(groups.values(), key=min)


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("source", [{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}]),
        ("speaker", [{0}, {1}, {2, 3}, {4}, {5}, {6}, {7}]),
        ("identity", [{0, 6}, {1, 7}, {2, 3}, {4, 5}]),
        ("auto", [{0, 6}, {1, 7}, {2, 3}, {4, 5}]),
    ],
)
def test_who_stays_together(tmp_path: Path, by: str, expected: list[set[int]]) -> None:
    dataset = make(tmp_path / "d")
    assert together(decide(dataset, by, val=0.2, test=0.2, seed=0), dataset) == expected  # type: ignore[arg-type]


def test_without_faces_labels_and_sources_decide(tmp_path: Path) -> None:
    dataset = make(tmp_path / "d", faces=False)
    found = together(decide(dataset, "auto", val=0.2, test=0.2, seed=0), dataset)
    assert found == [{0}, {1}, {2, 3}, {4}, {5}, {6}, {7}]
    with pytest.raises(ConfigError, match=r"toolkit annotate .* --with identity"):
        decide(dataset, "identity", val=0.2, test=0.2, seed=0)
    with pytest.raises(ConfigError, match="stay below 1"):
        decide(dataset, "auto", val=0.6, test=0.4, seed=0)


def test_groups_of_a_speaker_keep_the_speakers_split(tmp_path: Path) -> None:
    """Labels decide where a group goes, so that going by faces moves nobody who has one."""
    dataset = make(tmp_path / "d")
    splitting = decide(dataset, "auto", val=0.3, test=0.3, seed=0)
    plain = Splitting(val=0.3, test=0.3)
    for row in dataset.clips.to_pylist():
        if row["speaker"] is not None:
            group = splitting.group(row["speaker"], row["source_sha256"])
            assert splitting.split_of(group) == plain.split_of(row["speaker"])


def test_the_command_moves_whole_groups_and_verify_is_content(
    tmp_path: Path, toolkit: Callable[..., CompletedProcess[str]]
) -> None:
    dataset = make(tmp_path / "d")
    seed = next(s for s in range(50) if torn(dataset, Splitting(val=0.3, test=0.3, seed=s)))
    write_splitting(dataset.folder, Splitting(val=0.3, test=0.3, seed=seed))
    rebuild(dataset.folder)
    assert leaks(Dataset(dataset.url))
    said = [str(p) for p in verify(dataset.url, readers=False) if not p.note]
    assert any("show one face" in line and "toolkit split" in line for line in said)

    before = Dataset(dataset.url).clips.num_rows
    dry = toolkit("split", dataset.url, "--dry-run")
    assert "nothing written" in dry.stdout
    assert leaks(Dataset(dataset.url))
    result = toolkit("split", dataset.url)
    assert sum(int(line.split()[1]) for line in result.stdout.splitlines()[:3]) == 4
    again = Dataset(dataset.url)
    assert again.clips.num_rows == before
    assert leaks(again) == []
    assert [p for p in verify(dataset.url, readers=False) if not p.note] == []
    assert read_splitting(again.folder, Build()).seed == seed


def torn(dataset: Dataset, splitting: Splitting) -> bool:
    """Whether a splitting by labels alone would put one face into two splits."""
    splits: dict[int, set[str]] = {}
    for row in dataset.clips.to_pylist():
        group = splitting.group(row["speaker"], row["source_sha256"])
        splits.setdefault(FACES[int(row["source"][1])], set()).add(splitting.split_of(group))
    return any(len(found) > 1 for found in splits.values())


def test_a_decision_outlives_the_next_build(tmp_path: Path) -> None:
    dataset = make(tmp_path / "d")
    write_splitting(dataset.folder, Splitting(val=0, test=0))
    rebuild(dataset.folder)
    rebuild(dataset.folder)
    assert set(Dataset(dataset.url).clips.column("split").to_pylist()) == {"train"}


def test_faces_are_compared_in_blocks(tmp_path: Path) -> None:
    dataset = make(tmp_path / "d")
    pairs = {tuple(sorted((one, other))) for one, other, cosine in same_faces(dataset) if cosine > 0.9}
    shas = {int(c["source"][1]): c["source_sha256"] for c in dataset.clips.to_pylist()}
    expected = {tuple(sorted((shas[i], shas[j]))) for i in range(8) for j in range(i) if FACES[i] == FACES[j]}
    assert pairs == expected


@given(st.text(min_size=1), st.integers(0, 5))
def test_a_seed_draws_other_groups_and_the_same_every_time(group: str, seed: int) -> None:
    one, other = (Splitting(val=0.2, test=0.2, seed=seed) for _ in range(2))
    assert one.split_of(group) == other.split_of(group)
    assert Splitting(val=0, test=0, seed=seed).split_of(group) == "train"


def test_faces_in_a_sidecar(tmp_path: Path, demo: Path, toolkit: Callable[..., CompletedProcess[str]]) -> None:
    """Annotate, split by face, and the faces that now lie beside older shards are not taken for none."""
    dataset, config = tmp_path / "dataset", tmp_path / "settings.toml"
    shutil.copytree(demo, dataset)
    (tmp_path / "model").mkdir()
    random_sface(tmp_path / "model" / "own.onnx", width=16)
    config.write_text(f'[pack.annotate.identity]\nmodel = "{tmp_path / "model"}"\nwidth = 16\nframes = 2\n')
    add = ("annotate", dataset, "--with", "identity", "--config", config, "--workers", "0")
    toolkit(*add)
    found = Dataset(str(dataset))
    (shape,) = (spec.shape for spec in found.specs() if spec.name == "identity")
    assert shape == (16,)
    toolkit("split", dataset, "--val", "0.4", "--test", "0.3")
    assert read_splitting(found.folder, Build()).val == 0.4
    refused = toolkit("split", dataset, code=None)
    assert refused.returncode != 0
    assert "the sidecar identity is stale" in refused.stderr and "--with identity" in refused.stderr
    toolkit(*add)
    again = Dataset(str(dataset))
    assert leaks(again) == []
    kept = {c["key"]: c["split"] for c in again.clips.to_pylist()}
    toolkit("split", dataset)
    assert {c["key"]: c["split"] for c in Dataset(str(dataset)).clips.to_pylist()} == kept
