"""Sidecars: columns and scores that were added to a finished dataset, in shards of their own beside it.

    train-flame/000000.tar           the same shard ids and keys as train/000000.tar, one member a column
    sidecars/flame/shards.parquet    shard, count, bytes, sha256
    sidecars/flame/members.parquet   key, member, shard, offset, size
    sidecars/flame/clips.parquet     a row a clip: key, every score
    sidecars/flame/rejects.parquet   clips that could not be annotated; their columns are missing
    sidecars/flame/record.json       what made it, and from which shards; written last: a sidecar that has one is whole
    sidecars/flame/packs/            the work units' results; not part of the dataset

The base dataset is never rewritten. A sidecar whose base was built anew since is stale: its record says which shards it
was made from.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
from pydantic import Field, ValidationError

from talkface.clip import ColumnSpec, ScoreSpec
from talkface.config import Strict
from talkface.datasets.format import schema
from talkface.datasets.format.shards import Places
from talkface.errors import DatasetError
from talkface.store import PACKS, Folder, read_pack_index, read_table

SIDECARS: Final = "sidecars"
"""Folder of the sidecars' manifests inside a dataset's folder."""

RECORD: Final = "record.json"

NAME: Final = re.compile(r"[a-z][a-z0-9_]*")


class SidecarInfo(Strict):
    """The content of record.json.

    ``fingerprint`` stands for the annotator's version, settings and weights; ``base`` for the base's shards, and
    ``inputs`` for those of the sidecars whose columns it read. ``shards`` stands for its own. ``made_with`` holds the
    versions of the libraries that made its packs, and as ``device`` on what: ``cpu``, or the GPU's name.
    """

    schema_version: int = schema.VERSION
    talkface: str
    name: str
    version: int
    licence: str
    config: dict[str, Any]
    weights: tuple[dict[str, Any], ...]
    columns: tuple[dict[str, Any], ...]
    scores: tuple[dict[str, Any], ...]
    fingerprint: str
    base: str
    inputs: dict[str, str]
    shards: str
    rejects: int
    made_with: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    def specs(self) -> list[ColumnSpec]:
        """The sidecar's columns."""
        return [schema.column_from(c) for c in self.columns]

    def members(self) -> tuple[str, ...]:
        """Member extensions of every sample of the sidecar, in order."""
        return tuple(schema.member_name(c["name"]) for c in self.columns)

    def score_specs(self) -> list[ScoreSpec]:
        """The sidecar's scores."""
        return [ScoreSpec(**s) for s in self.scores]

    def annotator(self) -> schema.AnnotatorRecord:
        """What made it, as dataset.json says it of the base's columns."""
        return schema.AnnotatorRecord(
            version=self.version,
            licence=self.licence,
            config=self.config,
            weights=self.weights,
            columns=tuple(c["name"] for c in self.columns),
            scores=tuple(s["name"] for s in self.scores),
        )

    @classmethod
    def parse(cls, data: bytes, where: str) -> "SidecarInfo":
        """Read record.json. Raises DatasetError for a damaged or newer one."""
        try:
            raw = json.loads(data)
            version = int(raw["schema_version"])
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{where}: not a sidecar's record ({error}). Remove it and annotate again.") from error
        if version > schema.VERSION:
            raise DatasetError(
                f"{where}: schema version {version}; this talkface reads {schema.VERSION}. Update talkface."
            )
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise DatasetError(f"{where}: damaged ({error.errors()[0]['msg']}: {error.errors()[0]['loc']}).") from error


@dataclass(frozen=True)
class Sidecar:
    """A whole sidecar of the dataset at ``url``. ``stale`` is why it must not be read, or empty."""

    url: str
    info: SidecarInfo
    stale: str = ""

    def table(self, folder: Folder, name: str) -> pa.Table:
        """A manifest of the sidecar: shards, members, clips or rejects."""
        return read_table(folder, manifest(self.info.name, name))

    def places(self, folder: Folder, clips: pa.Table) -> Places:
        """Where its members lie, for each row of the base's whole clips table."""
        shards = pa.array([sidecar_shard(s, self.info.name) for s in clips.column("shard").to_pylist()], pa.string())
        clips = clips.select(["key"]).append_column("shard", shards)
        return Places.of(self.url, clips, self.table(folder, "members"), self.info.members())

    def scores(self, folder: Folder, keys: pa.ChunkedArray) -> list[tuple[str, pa.ChunkedArray]]:
        """Its scores by name, a value a clip of the base. Raises DatasetError where its clips are others."""
        if not self.info.scores:
            return []
        table = self.table(folder, "clips")
        if not table.column("key").equals(keys):
            raise DatasetError(f"{self.url}: {manifest(self.info.name, 'clips')} lists other clips. {redo(self)}")
        return [(s["name"], table.column(s["name"])) for s in self.info.scores]


def sidecar_shard(shard: str, name: str) -> str:
    """The sidecar's shard that goes with a shard of the base: ``train/000000.tar`` to ``train-flame/000000.tar``."""
    split, number = shard.split("/")
    return f"{split}-{name}/{number}"


def manifest(name: str, table: str) -> str:
    """Where a sidecar keeps one of its manifests."""
    return f"{SIDECARS}/{name}/{table}.parquet"


def record_path(name: str) -> str:
    """Where a sidecar's record lies."""
    return f"{SIDECARS}/{name}/{RECORD}"


def packs_url(folder: Folder, name: str) -> str:
    """Where a sidecar's packs lie; absolute, since a worker may stand in another folder."""
    return f"{folder.root if folder.is_local else folder.url}/{SIDECARS}/{name}/{PACKS}"


def packs_of(packs: Folder, fingerprint: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Names and indices of the whole packs with this fingerprint."""
    for file in packs.names("", ".json"):
        index = read_pack_index(packs, name := file.removesuffix(".json"))
        if index is not None and index["fingerprint"] == fingerprint:
            yield name, index


def hash_of_shards(rows: Sequence[Mapping[str, Any]]) -> str:
    """What stands for all bytes of some shards: the hash of their names and checksums."""
    return hashlib.sha256(json.dumps([[r["shard"], r["sha256"]] for r in rows]).encode()).hexdigest()


def redo(sidecar: Sidecar) -> str:
    """The sentence that ends every message about a sidecar that cannot be read."""
    return f"Run: toolkit annotate {sidecar.url} --with {sidecar.info.name}"


def find_sidecars(folder: Folder, names: Sequence[str] | None = None) -> dict[str, Sidecar]:
    """The whole sidecars of a dataset by name; those that are stale say so.

    ``names`` asks for these alone, and needs no listing of the folder, which some servers do not give. Raises
    DatasetError for one of ``names`` that is not there, and for a damaged record.
    """
    listed = [n for n in folder.names(SIDECARS) if NAME.fullmatch(n)] if names is None else names
    infos: dict[str, SidecarInfo] = {}
    for name in listed:
        where = record_path(name)
        try:
            infos[name] = SidecarInfo.parse(folder.read(where), folder.path(where))
        except (FileNotFoundError, NotADirectoryError) as error:
            if names is not None:
                raise DatasetError(
                    f"{folder.url}: no sidecar {name!r}. Run: toolkit annotate {folder.url} --with {name}"
                ) from error
    if not infos:
        return {}
    base = hash_of_shards(read_table(folder, "manifest/shards.parquet").to_pylist())
    return {name: Sidecar(folder.url, info, _stale(folder.url, info, infos, base)) for name, info in infos.items()}


def _stale(url: str, info: SidecarInfo, infos: Mapping[str, SidecarInfo], base: str) -> str:
    what = ""
    if info.base != base:
        what = "the dataset's shards were built anew"
    for name, shards in info.inputs.items():
        if name in infos and infos[name].shards != shards:
            what = what or f"{name}, which it was made from, was made anew"
    return f"{url}: the sidecar {info.name} is stale: {what} since. {redo(Sidecar(url, info))}" if what else ""
