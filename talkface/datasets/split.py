"""Which split a clip goes to: people are kept together, by label, else by face, else by source; never by clip.

``split.json`` beside a dataset holds what was decided for it: fractions, seed, and which sources are one group. Builds
honour it; without it, groups are speakers, else sources.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Final, Literal, get_args

import numpy as np
from pydantic import Field

from talkface.config import Build, Strict, parse
from talkface.datasets.identities import Faces, faces_of, has_faces, require_threshold
from talkface.datasets.missing_columns import how_to_add
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError, DatasetError
from talkface.store import Folder

FILE: Final = "split.json"
MANY: Final = 0.1
"""Share of the sources above which those that faces brought into one group may be of strangers."""

By = Literal["auto", "speaker", "identity", "source"]


class Splitting(Strict):
    """``groups`` maps a source's SHA-256 to the name of its group; ``threshold`` is what was given for faces."""

    val: float = Field(0.05, ge=0, lt=1)
    test: float = Field(0.05, ge=0, lt=1)
    seed: int = 0
    by: By = "auto"
    threshold: float | None = Field(None, gt=-1, lt=1)
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
    links: Iterable[tuple[str, str]] = ()
    if by == "identity" or (by == "auto" and has_faces(dataset)):
        least = require_threshold(dataset, threshold)
        links = _by_face(faces_of(dataset), least, by_label=by == "auto")
    labels = _labels(dataset)
    unlabelled: dict[str, str | None] = dict.fromkeys(labels)
    roots = _components(labels if by == "auto" else unlabelled, links)
    groups = _names(roots, unlabelled if by == "source" else labels)
    return Splitting(val=val, test=test, seed=seed, by=by, threshold=threshold, groups=groups)


def _labels(dataset: Dataset) -> dict[str, str | None]:
    """The speaker label of each source, by its SHA-256."""
    clips = dataset.clips.select(["source_sha256", "speaker"]).to_pylist()
    return {clip["source_sha256"]: clip["speaker"] for clip in reversed(clips)}


def _check(dataset: Dataset, by: By, val: float, test: float) -> None:
    if by not in get_args(By):
        raise ConfigError(f"--by: expected one of {', '.join(get_args(By))}, got {by!r}")
    if min(val, test) < 0 or val + test >= 1:
        raise ConfigError(f"--val {val:g} and --test {test:g} leave nothing to train on: their sum must stay below 1")
    faces = has_faces(dataset)
    if by in ("auto", "identity") and not faces and "identity" in dataset.sidecars:
        raise ConfigError(f"{dataset.stale('identity')}, or say --by speaker")
    if by == "identity" and not faces:
        raise ConfigError(f"{dataset.url} has no faces to go by. Run: {how_to_add(dataset.held, ['identity'])}")
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
    """The nearest two of one person's tracks that lie in different splits; memory grows with the number of tracks."""
    if len(set(splits)) == 1:
        return None
    vectors, where = faces.vectors[tracks], np.array(splits)
    rows = (np.where(where == split, -np.inf, vectors @ own) for split, own in zip(splits, vectors, strict=True))
    found = ((float(row.max()), one, int(row.argmax())) for one, row in enumerate(rows))
    cosine, one, other = max(found, key=itemgetter(0))
    return faces.owners[tracks[one]], faces.owners[tracks[other]], cosine


def doubt(dataset: Dataset, splitting: Splitting) -> str | None:
    """A sentence on the group that faces brought the most sources into, where these may well be of strangers.

    Sources with a label are where their label is, unless faces alone decided.
    """
    labels, sizes = _labels(dataset), Counter(splitting.groups.values())
    brought = Counter(
        group
        for source, group in splitting.groups.items()
        if sizes[group] > 1 and (splitting.by == "identity" or labels[source] is None)
    )
    ((group, count),) = brought.most_common(1) or [("", 0)]
    if count <= MANY * len(labels):
        return None
    name = group[:12] if group in labels else group
    return (
        f"faces brought {count / len(labels):.0%} of the sources into the group {name}. "
        "If these are not one person, give a higher --threshold"
    )


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


def _components(labels: Mapping[str, str | None], links: Iterable[tuple[str, str]]) -> dict[str, str]:
    """For each source the smallest of all that are linked to it, directly or over others.

    A link that would bring two labels together is left out.
    """
    parent, label = {source: source for source in labels}, dict(labels)

    def root(source: str) -> str:
        while parent[source] != source:
            parent[source] = parent[parent[source]]
            source = parent[source]
        return source

    for one, other in links:
        low, high = sorted((root(one), root(other)))
        if None in (label[low], label[high]) or label[low] == label[high]:
            parent[high] = low
            label[low] = label[low] or label[high]
    return {source: root(source) for source in parent}


def _names(roots: Mapping[str, str], labels: Mapping[str, str | None]) -> dict[str, str]:
    """Groups by source; a group is called by its first label where it has one, so that labels keep their split."""
    called: dict[str, str] = {}
    for source, root in roots.items():
        if (label := labels[source]) is not None:
            called[root] = min(called.get(root, label), label)
    return {source: called.get(root, root) for source, root in sorted(roots.items())}
