"""Splits keep people together: by label, by face, by source; decided anew without decoding; leaks are found."""

import dataclasses
import shutil
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage

from talkface.clip import ColumnSpec
from talkface.config import Build
from talkface.datasets.build.job import build, rebuild
from talkface.datasets.identities import SAME_FACE, cluster, faces_of
from talkface.datasets.reader import Dataset
from talkface.datasets.split import Splitting, decide, doubt, leaks, read_splitting, write_splitting
from talkface.datasets.verify.dataset import verify
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


def made_by(model: str) -> dict[str, object]:
    """What dataset.json says of the annotator behind `identity`."""
    weight = {"name": model, "sha256": "0", "licence": "MIT", "commercial": True}
    columns = {"config": {}, "columns": ("identity",), "scores": ()}
    return {"identity": {"version": 1, "licence": "MIT", "weights": (weight,), **columns}}


def make(
    root: Path,
    *,
    faces: bool = True,
    speakers: tuple[str | None, ...] = SPEAKERS,
    shown: tuple[int | tuple[int, int], ...] = FACES,
    model: str = "sface",
) -> Dataset:
    """Two clips a source; the faces of one person have a cosine above 0.9, of two people below 0.3.

    A pair in ``shown`` is a source with two people, one in either clip.
    """
    folder = Folder(root)
    plan = make_plan(folder, len(speakers), val=0.3, test=0.3)
    for i, used in enumerate(plan.packs):
        about: dict[str, list[object]] = {"clips": [], "rejects": []}
        with write_pack(Folder(f"{folder.url}/{PACKS}"), used.name, about) as pack:
            for j in range(2):
                record, members = clip(f"{j}", 6, {"coverage": 1.0}, 10 * i + j)
                people = shown[i]
                track, person = (j, people[j]) if isinstance(people, tuple) else (0, people)
                about["clips"].append(record | {"track": track})
                pack.add(record["key"], members | ({"identity.npy": npy(face(person, 2 * i + j))} if faces else {}))
    sources = [{**s, "speaker": who} for s, who in zip(plan.sources, speakers, strict=True)]
    columns = (*plan.columns, *([IDENTITY] if faces else []))
    info = {**plan.info, "annotators": made_by(model)}
    build(folder, dataclasses.replace(plan, sources=sources, columns=columns, info=info))
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
    with pytest.raises(ConfigError, match=r"toolkit ingest \.\.\. --with \.\.\.,identity"):
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
    assert leaks(Dataset(dataset.url), Splitting())
    said = [str(p) for p in verify(dataset.url, readers=False) if not p.note]
    assert any("show one face" in line and "toolkit split" in line for line in said)

    before = Dataset(dataset.url).clips.num_rows
    dry = toolkit("split", dataset.url, "--dry-run")
    assert "nothing written" in dry.stdout
    assert leaks(Dataset(dataset.url), Splitting())
    result = toolkit("split", dataset.url)
    assert sum(int(line.split()[1]) for line in result.stdout.splitlines()[:3]) == 4
    again = Dataset(dataset.url)
    assert again.clips.num_rows == before
    assert leaks(again, Splitting()) == []
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


def test_a_face_never_joins_two_labels(tmp_path: Path) -> None:
    """Two people that look alike to the model, and somebody without a label who looks like both."""
    dataset = make(tmp_path / "d", speakers=("anna", "ben", None, None), shown=(0, 0, 0, 1))
    found = {by: together(decide(dataset, by, val=0.2, test=0.2, seed=0), dataset) for by in ("auto", "identity")}  # type: ignore[arg-type]
    assert found["auto"] in ([{0, 2}, {1}, {3}], [{0}, {1, 2}, {3}])
    assert found["identity"] == [{0, 1, 2}, {3}]


def test_a_source_with_two_people_never_joins_two_labels(tmp_path: Path) -> None:
    dataset = make(tmp_path / "d", speakers=("anna", "ben", None, None), shown=(0, 1, (0, 2), (2, 1)))
    found = together(decide(dataset, "auto", val=0.2, test=0.2, seed=0), dataset)
    assert {0} in [group & {0, 1} for group in found] and {1} in [group & {0, 1} for group in found]
    assert together(decide(dataset, "identity", val=0.2, test=0.2, seed=0), dataset) == [{0, 1, 2, 3}]


def test_two_labels_in_two_splits_are_no_leak_unless_faces_decide(tmp_path: Path) -> None:
    dataset = make(tmp_path / "d", speakers=("anna", "ben", None), shown=(0, 0, 1))
    write_splitting(dataset.folder, Splitting(val=0.5, test=0, seed=apart("anna", "ben")))
    rebuild(dataset.folder)
    dataset = Dataset(dataset.url)
    assert leaks(dataset, Splitting()) == []
    ((one, other, cosine),) = leaks(dataset, Splitting(by="identity"))
    assert {one, other} == {c["source_sha256"] for c in dataset.clips.to_pylist() if c["speaker"] is not None}
    assert cosine > 0.9


def test_a_leak_is_told_by_the_nearest_two_faces_across_splits(tmp_path: Path) -> None:
    dataset = make(tmp_path / "d", speakers=(None,) * 6, shown=(0,) * 6)
    names = [c["source_sha256"] for c in dataset.clips.to_pylist()[::2]]
    groups = dict(zip(names, "aabbbb", strict=True))
    write_splitting(dataset.folder, Splitting(val=0.5, test=0, seed=apart("a", "b"), groups=groups))
    rebuild(dataset.folder)
    dataset = Dataset(dataset.url)
    splits = {c["source_sha256"]: c["split"] for c in dataset.clips.to_pylist()}
    seen = faces_of(dataset)
    across = [
        (float(seen.vectors[i] @ seen.vectors[j]), {seen.owners[i], seen.owners[j]})
        for i, j in combinations(range(6), 2)
        if splits[seen.owners[i]] != splits[seen.owners[j]]
    ]
    ((one, other, cosine),) = leaks(dataset, Splitting())
    assert len(across) == 8
    assert (pytest.approx(cosine), {one, other}) == max(across, key=lambda pair: pair[0])


@pytest.mark.parametrize(
    ("by", "held", "expected"),
    [("identity", 1, "identity"), ("auto", 2, "identity"), ("auto", 1, "auto"), ("source", 2, "auto")],
)
def test_a_leak_is_mended_in_the_way_of_the_splitting(tmp_path: Path, by: str, held: int, expected: str) -> None:
    """Labels that left two sources apart would do so again; faces that came later have not been asked."""
    said = advice(tmp_path, by, held)
    assert said.endswith(f"--by {expected}"), said


def advice(root: Path, by: str, held: int) -> str:
    """What verify says of one face in two splits, where ``held`` of its two sources are in split.json."""
    dataset = make(root / "d", speakers=(None, None), shown=(0, 0))
    names = [c["source_sha256"] for c in dataset.clips.to_pylist()[::2]]
    groups = {name: name for name in names[:held]}
    write_splitting(dataset.folder, Splitting(val=0.5, test=0, seed=apart(*names), by=by, groups=groups))  # type: ignore[arg-type]
    rebuild(dataset.folder)
    (said,) = [str(p) for p in verify(dataset.url, readers=False) if "show one face" in str(p)]
    return said


def test_only_what_faces_brought_together_is_in_doubt(tmp_path: Path) -> None:
    def told(name: str, by: str, **made: Any) -> str | None:
        dataset = make(tmp_path / name, **made)
        return doubt(dataset, decide(dataset, by, val=0.2, test=0.2, seed=0))  # type: ignore[arg-type]

    four = ("a speaker with a long name", "ben", "carl", "dora")
    assert told("labels", "auto", speakers=four, shown=(0, 0, 0, 0), faces=False) is None
    assert told("labelled", "auto", speakers=four[:1] * 3, shown=(0, 0, 0)) is None
    assert told("strangers", "auto", speakers=(None,) * 4, shown=(0, 1, 2, 3)) is None
    brought = told("brought", "auto", speakers=(four[0], None, None, "ben"), shown=(0, 0, 0, 1))
    assert brought is not None and brought.startswith(
        "faces brought 50% of the sources into the group a speaker with a long name. If these"
    )
    faces_alone = told("faces", "identity", speakers=(None,) * 4, shown=(0, 0, 0, 1))
    assert faces_alone is not None and "brought 75% of the sources into the group 73302e6d7034. If" in faces_alone


def apart(one: str, other: str) -> int:
    """A seed that draws two groups into different splits."""
    halves = (Splitting(val=0.5, test=0, seed=seed) for seed in range(100))
    return next(h.seed for h in halves if h.split_of(one) != h.split_of(other))


def test_a_model_without_a_known_threshold_asks_for_one(
    tmp_path: Path, toolkit: Callable[..., CompletedProcess[str]]
) -> None:
    dataset = make(tmp_path / "d", model="own")
    with pytest.raises(ConfigError, match=r"not known for the model that made identity.* give it as --threshold"):
        decide(dataset, "auto", val=0.2, test=0.2, seed=0)
    with pytest.raises(ConfigError, match="between -1 and 1, got 36"):
        decide(dataset, "identity", val=0.2, test=0.2, seed=0, threshold=36)
    assert len(together(decide(dataset, "speaker", val=0.2, test=0.2, seed=0), dataset)) == 7
    (note,) = [p for p in verify(dataset.url, readers=False) if "faces were not compared" in str(p)]
    assert note.note and f"toolkit split {dataset.url} --threshold COSINE" in str(note)
    told = toolkit("split", dataset.url, "--threshold", "0.6")
    assert "faces brought 25% of the sources into the group " in told.stderr
    assert verify(dataset.url, readers=False) == []
    toolkit("split", dataset.url, "--seed", "3")
    assert read_splitting(dataset.folder, Build()).threshold == 0.6
    dataset.folder.write("split.json", b'{"threshold": 36}')
    said = toolkit("verify", dataset.url, code=2).stderr.replace("\n", " ")
    assert "split.json: threshold: Input should be less than 1 (got 36)" in said


def strangers(people: int, clips: int, width: int = 68) -> np.ndarray:
    """Clips of people whose faces have nothing in common: of 10 000 pairs of them 14 are above SFace's threshold."""
    rng = np.random.default_rng(0)
    faces = rng.normal(size=(people, 1, width))
    faces = faces / np.linalg.norm(faces, axis=2, keepdims=True)
    seen = (faces + rng.normal(0, 0.6 / width**0.5, (people, clips, width))).reshape(-1, width)
    return seen / np.linalg.norm(seen, axis=1, keepdims=True)


def test_thousands_of_strangers_are_no_single_group() -> None:
    """Chance brings every person near to three others; nobody is torn, and no group grows over them."""
    faces = strangers(2000, 3)
    chance = (faces[::3] @ faces[::3].T > SAME_FACE["sface"]).sum() / 2000 - 1
    assert 2 < chance < 4
    found = cluster(faces, SAME_FACE["sface"], np.full(len(faces), -1))
    assert (found.reshape(2000, 3) == found[::3, None]).all()
    sizes = np.bincount(found)
    assert sizes.max() <= 9 and (sizes > 0).sum() > 1700


def test_groups_are_those_of_average_linkage() -> None:
    """Held to SciPy's, on ties too."""
    for faces in (strangers(300, 3), unlike_pictures(600)):
        faces[5:9] = faces[4]
        ours = cluster(faces, 0.3, np.full(len(faces), -1))
        theirs = fcluster(linkage(faces, "average", metric="cosine"), 0.7, "distance")
        np.testing.assert_array_equal(ours[:, None] == ours, theirs[:, None] == theirs)


def unlike_pictures(tracks: int, width: int = 32) -> np.ndarray:
    """One person in good and in bad pictures: most tracks are nearest to the few good ones."""
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(1, width)) + rng.uniform(0.2, 3, (tracks, 1)) * rng.normal(size=(tracks, width))
    return np.asarray(seen / np.linalg.norm(seen, axis=1, keepdims=True))


@pytest.mark.parametrize("threshold", [0.1, 0.3])
def test_groups_with_labels_are_those_of_joining_the_nearest_two_first(threshold: float) -> None:
    faces, labels = unlike_pictures(50), np.random.default_rng(1).integers(-1, 3, 50)
    found = cluster(faces, threshold, labels)
    assert all(len({*labels[found == person].tolist()} - {-1}) < 2 for person in found)
    assert sorted(np.flatnonzero(found == person).tolist() for person in set(found)) == joined(faces, threshold, labels)


def joined(faces: np.ndarray, threshold: float, labels: np.ndarray) -> list[list[int]]:
    """Average linkage as it is defined, over all pairs of tracks."""
    groups = [[track] for track in range(len(faces))]
    while True:
        one, other = max(combinations(groups, 2), key=lambda pair: likeness(faces, labels, *pair))
        if likeness(faces, labels, one, other) <= threshold:
            return sorted(groups)
        groups = [g for g in groups if g not in (one, other)] + [sorted(one + other)]


def likeness(faces: np.ndarray, labels: np.ndarray, one: list[int], other: list[int]) -> float:
    apart = len({*labels[one + other].tolist()} - {-1}) > 1
    return -np.inf if apart else float((faces[one] @ faces[other].T).mean())


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
    toolkit("split", dataset, "--val", "0.4", "--test", "0.3", "--threshold", "0.9")
    assert read_splitting(found.folder, Build()).val == 0.4
    refused = toolkit("split", dataset, code=None)
    assert refused.returncode != 0
    assert "the sidecar identity is stale" in refused.stderr and "--with identity" in refused.stderr
    toolkit(*add)
    again = Dataset(str(dataset))
    assert leaks(again, read_splitting(again.folder, Build())) == []
    kept = {c["key"]: c["split"] for c in again.clips.to_pylist()}
    toolkit("split", dataset)
    assert {c["key"]: c["split"] for c in Dataset(str(dataset)).clips.to_pylist()} == kept
