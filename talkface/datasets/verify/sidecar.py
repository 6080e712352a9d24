"""Does a sidecar hold what its record and manifests promise, clip by clip of its base?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from talkface.datasets.format import schema
from talkface.datasets.format.sidecar import (
    NAME,
    SIDECARS,
    Sidecar,
    hash_of_shards,
    manifest,
    record_path,
    redo,
    sidecar_shard,
)
from talkface.datasets.reader import Dataset
from talkface.datasets.verify.readers import Members, Problem, check_column, check_readers, samples_of
from talkface.errors import DatasetError
from talkface.store import from_npy, sha256_of


def verify_sidecars(dataset: Dataset, *, readers: bool = True) -> list[Problem]:
    """All that is wrong with the sidecars of a dataset: of one that was not finished, and of one that is stale, too."""
    try:
        sidecars = dataset.sidecars
    except DatasetError as error:
        return [Problem(SIDECARS, str(error))]
    begun = [n for n in dataset.folder.names(SIDECARS) if NAME.fullmatch(n) and n not in sidecars]
    unfinished = [
        Problem(f"{SIDECARS}/{n}", f"not finished. Run: toolkit annotate {dataset.url} --with {n}") for n in begun
    ]
    return unfinished + [p for s in sidecars.values() for p in verify_sidecar(dataset, s, readers=readers)]


def broken_sidecars(dataset: Dataset) -> list[str]:
    """Names of the sidecars that something is wrong with."""
    return [name for name, s in dataset.sidecars.items() if verify_sidecar(dataset, s)]


def verify_sidecar(dataset: Dataset, sidecar: Sidecar, *, readers: bool = True) -> list[Problem]:
    """All that is wrong with one sidecar."""
    if sidecar.stale:
        return [Problem(record_path(sidecar.info.name), sidecar.stale)]
    try:
        check = _Check.of(dataset, sidecar)
        problems = [*check.manifests(), *(p for row in check.shards for p in check.shard(row))]
    except DatasetError as error:
        return [Problem(f"{SIDECARS}/{sidecar.info.name}", str(error))]
    if readers and not problems and dataset.folder.is_local and check.shards:
        problems += check_readers(dataset.folder, [s["shard"] for s in check.shards], sidecar.info)
    return problems


@dataclass(frozen=True)
class _Check:
    """A sidecar's manifests in memory, and what its base says of each shard."""

    dataset: Dataset
    sidecar: Sidecar
    shards: Sequence[Mapping[str, Any]]
    places: Mapping[tuple[str, str], tuple[str, int, int]]
    clips: Mapping[str, Sequence[Mapping[str, Any]]]

    @classmethod
    def of(cls, dataset: Dataset, sidecar: Sidecar) -> "_Check":
        name, folder = sidecar.info.name, dataset.folder
        table = dataset.table("clips")
        if sidecar.info.columns:
            sidecar.places(folder, table)
        sidecar.scores(folder, table.column("key"))
        members = sidecar.table(folder, "members").to_pylist()
        clips: dict[str, list[Mapping[str, Any]]] = {}
        for clip in table.select(["key", "shard", "frames"]).to_pylist():
            clips.setdefault(sidecar_shard(clip["shard"], name), []).append(clip)
        return cls(
            dataset,
            sidecar,
            sidecar.table(folder, "shards").to_pylist(),
            {(m["key"], m["member"]): (m["shard"], m["offset"], m["size"]) for m in members},
            clips,
        )

    def manifests(self) -> Iterator[Problem]:
        info, listed = self.sidecar.info, {s["shard"] for s in self.shards}
        if hash_of_shards(self.shards) != info.shards:
            yield Problem(manifest(info.name, "shards"), "not the shards that the record was written for")
        if (rows := self.sidecar.table(self.dataset.folder, "rejects").num_rows) != info.rejects:
            yield Problem(manifest(info.name, "rejects"), f"{rows} rows, the record says {info.rejects}")
        if info.columns and listed != self.clips.keys():
            yield Problem(manifest(info.name, "shards"), "not one shard for each of the base's")
        for split in schema.SPLITS:
            for file in self.dataset.folder.names(f"{split}-{info.name}", ".tar"):
                if (shard := f"{split}-{info.name}/{file}") not in listed:
                    yield Problem(shard, "not in the manifest")

    def shard(self, row: Mapping[str, Any]) -> Iterator[Problem]:
        shard = row["shard"]
        try:
            with self.dataset.folder.open(shard) as file:
                if (digest := sha256_of(file)) != row["sha256"]:
                    yield Problem(shard, f"sha256 is {digest[:12]}, the manifest says {row['sha256'][:12]}")
                file.seek(0)
                yield from self._samples(shard, list(samples_of(file)))
        except FileNotFoundError:
            yield Problem(shard, f"missing. {redo(self.sidecar)}")
        except (DatasetError, ValueError) as error:
            yield Problem(shard, str(error))

    def _samples(self, shard: str, samples: Sequence[tuple[str, Members]]) -> Iterator[Problem]:
        clips = self.clips.get(shard, [])
        if [key for key, _ in samples] != [c["key"] for c in clips]:
            yield Problem(shard, "its keys are not those of the base's shard in their order")
            return
        for (key, members), clip in zip(samples, clips, strict=True):
            where = f"{shard}/{key}"
            if tuple(members) != self.sidecar.info.members():
                yield Problem(where, f"members are {', '.join(members)}")
                continue
            for spec in self.sidecar.info.specs():
                member = schema.member_name(spec.name)
                offset, data = members[member]
                if self.places.get((key, member)) != (shard, offset, len(data)):
                    yield Problem(f"{where}.{member}", "members.parquet has it elsewhere")
                try:
                    check_column(spec, from_npy(data), clip["frames"])
                except (AssertionError, ValueError, EOFError) as error:
                    yield Problem(where, str(error))
