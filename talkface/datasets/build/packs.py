"""What the packs of a build hold: their clips as candidates for a dataset, and members read from them."""

import dataclasses
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple, cast

from talkface.annotate.base import Rows, annotator_class, make_annotator
from talkface.clip import ColumnSpec, Labels, ScoreSpec
from talkface.config import Build, Threshold
from talkface.datasets.format import schema
from talkface.datasets.selection import Mark
from talkface.errors import DatasetError
from talkface.store import CHUNK, PACKS, Folder, npy, read_pack_index, sha256_of

AGAIN = "Run the same ingest again: it makes it anew."


@dataclass(frozen=True, kw_only=True)
class PackUse:
    """A pack, the source whose clips it holds, and what comes before its clips' names in their keys."""

    name: str
    source: str
    prefix: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything about a dataset that its packs do not say.

    ``build`` are the settings of the ingest. ``marks`` and ``thresholds`` are a selection's, which go before those.
    ``measured`` holds what sidecars say of the clips that these thresholds leave out, score by score and key by key:
    once a clip is out of the shards, no sidecar knows it.
    """

    sources: Sequence[Mapping[str, Any]]
    packs: Sequence[PackUse]
    rejects: Sequence[Mapping[str, Any]]
    columns: Sequence[ColumnSpec]
    scores: Sequence[ScoreSpec]
    info: Mapping[str, Any]
    has_video: bool
    build: Build
    marks: Mapping[str, Mark] = field(default_factory=dict)
    thresholds: Mapping[str, Threshold] = field(default_factory=dict)
    measured: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def bounds(self) -> dict[str, Threshold]:
        """The thresholds that decide."""
        return {**self.build.thresholds, **self.thresholds}

    def score(self, clip: "Candidate", name: str) -> float | None:
        """A clip's score or other number that a threshold may bound; None or NaN where it is not known."""
        for known in (clip.record["scores"], clip.record):
            if name in known:
                return cast("float | None", known[name])
        return self.measured.get(name, {}).get(clip.key)


@dataclass(frozen=True)
class Candidate:
    """A clip in a pack, with its record and where its members lie.

    ``labelled`` holds the members that packs do not: they say what the source's labels say.
    """

    pack: str
    record: Mapping[str, Any]
    source: Mapping[str, Any]
    members: Mapping[str, tuple[int, int]]
    labelled: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return str(self.record["key"])


class DamagedPack(DatasetError):
    """A pack that is missing or not what it was; without it, its unit is done again by the next ingest."""

    def __init__(self, message: str, pack: str) -> None:
        super().__init__(message)
        self.pack = pack


class Contents(NamedTuple):
    """What the packs hold: clips, rejects, and what made them (versions by library)."""

    clips: list[Candidate]
    rejects: list[dict[str, Any]]
    made_with: dict[str, list[str]]


def read_packs(folder: Folder, plan: Plan) -> Contents:
    """All of a plan's packs. Raises DamagedPack if one is missing or not what it was."""
    packs = Folder(f"{folder.url}/{PACKS}")
    by_name = {s["name"]: s for s in plan.sources}
    labelled = {name: labelled_members(source, plan) for name, source in by_name.items()}
    contents = Contents([], [dict(r) for r in plan.rejects], defaultdict(list))
    counted: dict[str, tuple[int, int]] = {}
    for use in plan.packs:
        index = read_pack_index(packs, use.name)
        if index is None:
            raise DamagedPack(f"{packs.path(use.name)}.tar: missing or damaged. {AGAIN}", use.name)
        if any(not {"members", "share", "status"} <= {*record, *index} for record in index["clips"]):
            raise DamagedPack(f"{packs.path(use.name)}.json: of another version of talkface. {AGAIN}", use.name)
        for record in _numbered(index["clips"], counted, use.source):
            places = index["members"][record["key"]]
            made = _with_labels({**record, "key": use.prefix + record["key"]}, labelled[use.source])
            members = {ext: data for columns in labelled[use.source].values() for ext, data in columns.items()}
            contents.clips.append(Candidate(use.name, made, by_name[use.source], places, members))
        contents.rejects.extend({**row, "source": use.source} for row in index["rejects"])
        for library, version in {**index.get("libraries", {}), "mesh": index.get("mesh", "")}.items():
            contents.made_with[library] = sorted({*contents.made_with[library], version} - {""})
    return contents


def _numbered(
    records: Sequence[Mapping[str, Any]], counted: dict[str, tuple[int, int]], source: str
) -> list[dict[str, Any]]:
    """Records whose tracks and shots count on from those of the source's earlier units, which know nothing of them."""
    track, shot = counted.get(source, (0, 0))
    moved = [{**r, "track": r["track"] + track, "shot": r["shot"] + shot} for r in records]
    tracks, shots = [track, *(r["track"] for r in moved)], [shot - 1, *(r["shot"] for r in moved)]
    counted[source] = max(tracks), max(shots) + 1
    return moved


def labelled_members(source: Mapping[str, Any], plan: Plan) -> dict[str, dict[str, bytes]]:
    """The members that say what a source's labels say, by annotator."""
    labels = Labels(**{f.name: source[f.name] for f in dataclasses.fields(Labels)})
    members: dict[str, dict[str, bytes]] = {}
    for name, record in plan.info["annotators"].items():
        if hasattr(annotator_class(name), "labelled"):
            columns: Rows = make_annotator(name, record["config"]).labelled(labels)  # type: ignore[attr-defined]
            members[name] = {schema.member_name(column): npy(values) for column, values in columns.items()}
    return members


def _with_labels(record: dict[str, Any], labelled: Mapping[str, Any]) -> dict[str, Any]:
    """A clip's record with what the pipeline says of all other annotators: how much they had."""
    share, status = dict.fromkeys(labelled, 1.0), dict.fromkeys(labelled, "ok")
    return record | {"share": record["share"] | share, "status": record["status"] | status}


def read_members(folder: Folder, clip: Candidate, members: Sequence[str]) -> dict[str, bytes]:
    """Members of a clip in its pack. Raises DatasetError if one is not there."""
    with PackReader(folder) as packs:
        return {ext: packs.member(clip, ext) for ext in members}


class PackReader:
    """Reads members from packs, keeping the last one open: clips of a unit lie side by side.

    Raises DamagedPack for a pack that is not what it was when it was made.
    """

    def __init__(self, folder: Folder) -> None:
        self._packs = Folder(f"{folder.url}/{PACKS}")
        self._open: tuple[str, BinaryIO] | None = None
        self._stack = ExitStack()

    def __enter__(self) -> "PackReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def member(self, clip: Candidate, ext: str) -> bytes:
        """One member of a clip, by its extension."""
        if ext in clip.labelled:
            return clip.labelled[ext]
        if self._open is None or self._open[0] != clip.pack:
            self._stack.close()
            self._open = clip.pack, self._stack.enter_context(self._whole(clip.pack))
        offset, size = clip.members[ext]
        file = self._open[1]
        file.seek(offset)
        return file.read(size)

    @contextmanager
    def _whole(self, name: str) -> Iterator[BinaryIO]:
        """A pack whose bytes are those of its index; one that lies elsewhere is fetched once."""
        index = read_pack_index(self._packs, name)
        with self._packs.open(f"{name}.tar") as file, ExitStack() as stack:
            if not self._packs.is_local:
                fetched = cast("BinaryIO", stack.enter_context(tempfile.TemporaryFile()))
                shutil.copyfileobj(file, fetched, CHUNK)
            pack = file if self._packs.is_local else fetched
            pack.seek(0)
            if index is None or sha256_of(pack) != index["sha256"]:
                raise DamagedPack(f"{self._packs.path(name)}.tar: damaged. {AGAIN}", name)
            yield pack
