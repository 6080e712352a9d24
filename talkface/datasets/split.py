"""Which split a clip goes to: people are kept together, by label, else by face, else by source; never by clip.

``split.json`` beside a dataset holds what was decided for it: fractions, seed, and which sources are one group. Builds
honour it; without it, groups are speakers, else sources.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Literal, get_args

import numpy as np
from pydantic import Field

from talkface.config import Build, Strict, parse
from talkface.datasets.people import Faces, faces_of, has_faces, require_threshold
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError, DatasetError
from talkface.store import Folder

FILE: Final = "split.json"

By = Literal["auto", "speaker", "identity", "source"]


class Splitting(Strict):
    """``groups`` maps a source's SHA-256 to the name of its group; ``threshold`` is what was given for faces."""

    val: float = Field(0.05, ge=0, lt=1)
    test: float = Field(0.05, ge=0, lt=1)
    seed: int = 0
    by: By = "auto"
    threshold: float | None = None
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


def decide(
    dataset: Dataset, by: By, *, val: float, test: float, seed: int, threshold: float | None = None
) -> Splitting:
    """Groups of a dataset's sources. ``auto`` goes by label, else by face where the dataset has the column
    ``identity``, else by source: a face never joins two labels.

    ``threshold`` is the cosine above which two faces are one person; None is what the model's authors give. Raises
    ConfigError for labels, faces or a threshold that are not there, for faces in a stale sidecar, and for fractions
    that leave nothing to train on.
    """
    _check(dataset, by, val, test)
    clips = dataset.clips.select(["key", "source_sha256", "speaker", "track"])
    links: list[tuple[str, str]] = []
    if by == "identity" or (by == "auto" and has_faces(dataset)):
        found = require_threshold(dataset, threshold)
        links = list(_by_face(faces_of(dataset), found, by_label=by == "auto"))
    rows: list[dict[str, Any]] = clips.to_pylist()
    labels = {c["source_sha256"]: c["speaker"] for c in reversed(rows) if by != "source"}
    groups = _components({c["source_sha256"] for c in rows}, links, labels if by == "auto" else {})
    return Splitting(val=val, test=test, seed=seed, by=by, threshold=threshold, groups=_names(groups, labels))


def _check(dataset: Dataset, by: By, val: float, test: float) -> None:
    if by not in get_args(By):
        raise ConfigError(f"--by: expected one of {', '.join(get_args(By))}, got {by!r}")
    if min(val, test) < 0 or val + test >= 1:
        raise ConfigError(f"--val {val:g} and --test {test:g} leave nothing to train on: their sum must stay below 1")
    faces = has_faces(dataset)
    if by in ("auto", "identity") and not faces and "identity" in dataset.sidecars:
        raise ConfigError(f"{dataset.stale('identity')}, or say --by speaker")
    if by == "identity" and not faces:
        raise ConfigError(f"{dataset.url} has no faces to go by. Run: toolkit annotate {dataset.url} --with identity")
    if by == "speaker" and dataset.clips.column("speaker").null_count == len(dataset):
        raise ConfigError(f"{dataset.url} has no speaker labels. Say --by identity or --by source")


def leaks(dataset: Dataset, splitting: Splitting) -> list[tuple[str, str, float]]:
    """Pairs of sources in different splits that show one person, one pair a person, and the cosine of their faces.

    Who is one person is found as ``decide`` finds it. Raises ConfigError where no threshold is known.
    """
    splits = {c["source_sha256"]: c["split"] for c in dataset.clips.select(["source_sha256", "split"]).to_pylist()}
    threshold, faces = require_threshold(dataset, splitting.threshold), faces_of(dataset)
    people = faces.people(threshold, by_label=splitting.by != "identity")
    found = (_nearest_across(faces, tracks, [splits[faces.owners[t]] for t in tracks]) for tracks in people)
    return [pair for pair in found if pair is not None]


def _nearest_across(faces: Faces, tracks: list[int], splits: list[str]) -> tuple[str, str, float] | None:
    """The nearest two of one person's tracks that lie in different splits."""
    if len(set(splits)) == 1:
        return None
    vectors = faces.vectors[tracks]
    cosines = np.where(np.array(splits)[:, None] == np.array(splits), -np.inf, vectors @ vectors.T)
    one, other = np.unravel_index(cosines.argmax(), cosines.shape)
    return faces.owners[tracks[one]], faces.owners[tracks[other]], float(cosines[one, other])


def largest(splitting: Splitting) -> tuple[str, float]:
    """The group with the most sources, and its share of all. Of a dataset without sources: none, 0."""
    ((name, count),) = Counter(splitting.groups.values()).most_common(1) or (("", 0),)
    return name, count / max(1, len(splitting.groups))


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


def _by_face(faces: Faces, threshold: float, *, by_label: bool) -> Iterator[tuple[str, str]]:
    """Sources that show one person, those with a label first."""
    for tracks in faces.people(threshold, by_label=by_label):
        first, *others = sorted(tracks, key=lambda t: faces.labels[t] is None)
        yield from ((faces.owners[first], faces.owners[other]) for other in others)


def _components(
    nodes: Iterable[str], links: Iterable[tuple[str, str]], labels: Mapping[str, str | None]
) -> dict[str, str]:
    """For each node the smallest node of all that are linked to it, directly or over others.

    A link that would bring two labels together is left out.
    """
    parent = {node: node for node in nodes}
    known = {node: label for node, label in labels.items() if label is not None}

    def root(node: str) -> str:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for one, other in links:
        low, high = sorted((root(one), root(other)))
        if len(found := {known[n] for n in (low, high) if n in known}) < 2:
            parent[high] = low
            known |= dict.fromkeys((low,), *found) if found else {}
    return {node: root(node) for node in parent}


def _names(roots: Mapping[str, str], labels: Mapping[str, str | None]) -> dict[str, str]:
    """Groups by source; a group is called by its first label where it has one, so that labels keep their split."""
    called: dict[str, str] = {}
    for node, root in roots.items():
        if (label := labels.get(node)) is not None:
            called[root] = min(called.get(root, label), label)
    return {node: called.get(root, root) for node, root in sorted(roots.items())}
