"""Which split a clip goes to: people are kept together, by label, else by face, else by source; never by clip.

``split.json`` beside a dataset holds what was decided for it: fractions, seed, and which sources are one group. Builds
honour it; without it, groups are speakers, else sources.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, get_args

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from pydantic import Field

from talkface.config import Build, Strict, parse
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError, DatasetError
from talkface.store import Folder

FILE: Final = "split.json"
SAME_FACE: Final = 0.363
"""Cosine above which SFace's authors take two faces for one person (OpenCV's tutorial on face recognition)."""
BLOCK: Final = 1024

By = Literal["auto", "speaker", "identity", "source"]


class Splitting(Strict):
    """``groups`` maps a source's SHA-256 to the name of its group."""

    val: float = Field(0.05, ge=0, lt=1)
    test: float = Field(0.05, ge=0, lt=1)
    seed: int = 0
    by: By = "auto"
    groups: dict[str, str] = Field(default_factory=dict)

    def group(self, speaker: str | None, sha256: str) -> str:
        """What must not be cut through: as decided, else the speaker, else the source."""
        return self.groups.get(sha256) or speaker or sha256

    def split_of(self, group: str) -> str:
        """Split of a group: a hash decides, so that adding data never moves anybody."""
        word = f"split{self.seed}" if self.seed else "split"
        place = int(hashlib.sha256(f"{word}:{group}".encode()).hexdigest()[:12], 16) / 16**12
        if place < self.test:
            return "test"
        return "val" if place < self.test + self.val else "train"


def read_splitting(folder: Folder, build: Build) -> Splitting:
    """What ``split.json`` says; without it the build's own fractions. Raises DatasetError for a damaged one."""
    where = folder.path(FILE)
    try:
        data = json.loads(folder.read(FILE))
    except FileNotFoundError:
        return Splitting(val=build.val, test=build.test)
    except ValueError as error:
        raise DatasetError(f"{where}: not JSON ({error}). Correct it, or remove it.") from error
    return parse(Splitting, data, where=where)


def write_splitting(folder: Folder, splitting: Splitting) -> None:
    """Write ``split.json``."""
    folder.write(FILE, json.dumps(splitting.model_dump(), indent=1, sort_keys=True).encode() + b"\n")


def decide(dataset: Dataset, by: By, *, val: float, test: float, seed: int) -> Splitting:
    """Groups of a dataset's sources. ``auto`` takes labels, and faces where the dataset has the column ``identity``.

    Raises ConfigError for labels or faces that it does not have, for faces in a stale sidecar, and for fractions that
    leave nothing to train on.
    """
    if by not in get_args(By):
        raise ConfigError(f"--by: expected one of {', '.join(get_args(By))}, got {by!r}")
    if min(val, test) < 0 or val + test >= 1:
        raise ConfigError(f"--val {val:g} and --test {test:g} leave nothing to train on: their sum must stay below 1")
    clips = dataset.clips.select(["key", "source_sha256", "speaker", "track"])
    has_faces = any(spec.name == "identity" for spec in dataset.specs())
    if by in ("auto", "identity") and not has_faces and "identity" in dataset.sidecars:
        raise ConfigError(f"{dataset.stale('identity')}, or say --by speaker")
    if by == "identity" and not has_faces:
        raise ConfigError(f"{dataset.url} has no faces to go by. Run: toolkit annotate {dataset.url} --with identity")
    if by == "speaker" and clips.column("speaker").null_count == clips.num_rows:
        raise ConfigError(f"{dataset.url} has no speaker labels. Say --by identity or --by source")
    links: list[tuple[str, str]] = []
    if by in ("auto", "speaker"):
        links += _by_speaker(clips)
    if by == "identity" or (by == "auto" and has_faces):
        links += [(one, other) for one, other, _ in same_faces(dataset)]
    names = _names(clips, _components(set(clips.column("source_sha256").to_pylist()), links), named=by != "source")
    return Splitting(val=val, test=test, seed=seed, by=by, groups=names)


def same_faces(dataset: Dataset, threshold: float = SAME_FACE) -> list[tuple[str, str, float]]:
    """Pairs of sources with a face whose cosine is above the threshold, and that cosine. Reads ``identity`` alone."""
    clips = dataset.clips.select(["source_sha256", "track"]).to_pylist()
    vectors = dataset.views(range(len(clips)), ["identity"])
    tracks: dict[tuple[str, int], list[np.ndarray]] = {}
    for clip, view in zip(clips, vectors, strict=True):
        if np.isfinite(view["identity"]).all():
            tracks.setdefault((clip["source_sha256"], clip["track"]), []).append(view["identity"].astype(np.float64))
    if not tracks:
        return []
    owners = [sha256 for sha256, _ in tracks]
    faces = np.stack([_unit(np.mean(found, axis=0)) for found in tracks.values()])
    return list(_near(owners, faces, threshold))


def leaks(dataset: Dataset) -> list[tuple[str, str, float]]:
    """Pairs of sources in different splits that show one face, by ``identity``."""
    splits = {c["source_sha256"]: c["split"] for c in dataset.clips.select(["source_sha256", "split"]).to_pylist()}
    return [(one, other, cosine) for one, other, cosine in same_faces(dataset) if splits[one] != splits[other]]


def summary(dataset: Dataset, splitting: Splitting) -> dict[str, tuple[int, int, float]]:
    """Groups, clips and hours of each split that a build would make."""
    groups: dict[str, set[str]] = {name: set() for name in ("train", "val", "test")}
    clips, hours = dict.fromkeys(groups, 0), dict.fromkeys(groups, 0.0)
    for clip in dataset.clips.select(["speaker", "source_sha256", "duration"]).to_pylist():
        group = splitting.group(clip["speaker"], clip["source_sha256"])
        split = splitting.split_of(group)
        groups[split].add(group)
        clips[split] += 1
        hours[split] += clip["duration"] / 3600
    return {name: (len(groups[name]), clips[name], hours[name]) for name in groups}


def _by_speaker(clips: pa.Table) -> list[tuple[str, str]]:
    first: dict[str, str] = {}
    named = [(c["speaker"], c["source_sha256"]) for c in clips.to_pylist() if c["speaker"] is not None]
    return [(first.setdefault(speaker, sha256), sha256) for speaker, sha256 in named]


def _near(
    owners: Sequence[str], faces: Float[np.ndarray, "tracks k"], threshold: float
) -> Iterable[tuple[str, str, float]]:
    for start in range(0, len(faces), BLOCK):
        cosines = faces[start : start + BLOCK] @ faces.T
        for one, other in zip(*np.nonzero(cosines > threshold), strict=True):
            if start + one < other and owners[start + one] != owners[other]:
                yield owners[start + one], owners[other], float(cosines[one, other])


def _components(nodes: Iterable[str], links: Iterable[tuple[str, str]]) -> dict[str, str]:
    """For each node the smallest node of all that are linked to it, directly or over others."""
    parent = {node: node for node in nodes}

    def root(node: str) -> str:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for one, other in links:
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    return {node: root(node) for node in parent}


def _names(clips: pa.Table, roots: Mapping[str, str], *, named: bool) -> dict[str, str]:
    """Groups by source; a group is called by its first speaker where it has one, so that labels keep their split."""
    speakers: dict[str, str] = {}
    rows: list[dict[str, Any]] = clips.to_pylist()
    for clip in rows:
        if named and clip["speaker"] is not None:
            root = roots[clip["source_sha256"]]
            speakers[root] = min(speakers.get(root, clip["speaker"]), clip["speaker"])
    return {node: speakers.get(root, root) for node, root in sorted(roots.items())}


def _unit(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12))
