"""Does a dataset on disk hold what its manifests promise? And if not: make it anew from its packs."""

import re
import zlib
from collections.abc import Iterator
from typing import Any

import pyarrow.compute as pc

from talkface.clip import FrameTable, Timeline
from talkface.config import Build
from talkface.datasets.format import schema
from talkface.datasets.identities import has_faces, same_face
from talkface.datasets.reader import Dataset, Sample, decode
from talkface.datasets.split import By, Splitting, leaks, read_splitting
from talkface.datasets.verify.duplicates import across_splits, duplicates
from talkface.datasets.verify.readers import Members, Problem, check_column, check_readers, samples_of
from talkface.datasets.verify.sidecar import verify_sidecars
from talkface.errors import DatasetError
from talkface.store import sha256_of

KEY = re.compile(r"[a-z0-9_-]+")


def verify(url: str, *, readers: bool = True, sidecars: bool = True) -> list[Problem]:
    """All that is wrong with the dataset at ``url``; empty when nothing is.

    Checks checksums, that every sample has every member in order, dtypes, shapes, clocks and validity bits, that the
    manifests agree with the shards, that nothing of one split is in another too (speakers, the same takes), and
    (``readers``, local folders) that webdataset, Hugging Face ``datasets`` and plain tarfile give the same samples;
    and (``sidecars``) the same of every sidecar.
    """
    try:
        dataset = Dataset(url, sidecars=())
        shards = dataset.table("shards").to_pylist()
        problems = [p for shard in shards for p in _check_shard(dataset, shard)]
        problems += _check_manifests(dataset, shards)
        for name in ("sources", "rejects"):  # the others have been read by now
            dataset.table(name)
    except DatasetError as error:
        return [Problem(url, str(error))]
    if not problems:
        problems += _check_duplicates(dataset)
        problems += _check_faces(Dataset(url) if sidecars else dataset)
    if readers and all(p.note for p in problems) and dataset.folder.is_local and shards:
        problems += check_readers(dataset.folder, [s["shard"] for s in shards], dataset.info)
    return problems + (verify_sidecars(Dataset(url), readers=readers) if sidecars else [])


def _check_manifests(dataset: Dataset, shards: list[dict[str, Any]]) -> Iterator[Problem]:
    clips = dataset.clips.to_pylist()
    keys = [c["key"] for c in clips]
    if len(set(keys)) != len(keys):
        yield Problem("manifest/clips.parquet", "a key stands twice")
    if sum(s["count"] for s in shards) != len(keys):
        yield Problem(
            "manifest/shards.parquet", f"counts {sum(s['count'] for s in shards)} clips, clips.parquet {len(keys)}"
        )
    listed = {s["shard"] for s in shards}
    for split in schema.SPLITS:
        for name in dataset.folder.names(split, ".tar"):
            if f"{split}/{name}" not in listed:
                yield Problem(f"{split}/{name}", "not in the manifest")
    splitting = read_splitting(dataset.folder, Build())
    groups: dict[str, set[str]] = {}
    for clip in clips:
        for who in {splitting.group(clip["speaker"], clip["source_sha256"]), clip["speaker"] or clip["source_sha256"]}:
            groups.setdefault(who, set()).add(clip["split"])
    for who, splits in groups.items():
        if len(splits) > 1:
            yield Problem("manifest/clips.parquet", f"{who} is in several splits: {', '.join(sorted(splits))}")


def _check_faces(dataset: Dataset) -> Iterator[Problem]:
    """One person in two splits is a leak; two labels are two people unless the split was made by faces alone."""
    where, splitting = "manifest/clips.parquet", read_splitting(dataset.folder, Build())
    if not has_faces(dataset) or len(pc.unique(dataset.clips.column("split"))) < 2:
        return
    if same_face(dataset, splitting.threshold) is None:
        why = "for the model that made identity no threshold is known"
        yield Problem(
            where, f"faces were not compared: {why}. Run: toolkit split {dataset.url} --threshold COSINE", note=True
        )
        return
    for one, other, cosine in leaks(dataset, splitting):
        yield Problem(
            where,
            f"sources {one[:12]} and {other[:12]} show one face (cosine {cosine:.2f}) in different splits. "
            f"Run: toolkit split {dataset.url} --by {_mends(splitting, one, other)}",
        )


def _mends(splitting: Splitting, one: str, other: str) -> By:
    """How to split so that two sources with one face come together: with labels, unless that left them apart."""
    had_both = {one, other} <= splitting.groups.keys()
    return "identity" if splitting.by == "identity" or (splitting.by == "auto" and had_both) else "auto"


def _check_duplicates(dataset: Dataset) -> Iterator[Problem]:
    """The same take in two splits is a leak, in one split it weighs twice."""
    found = duplicates(dataset)
    leaks = across_splits(dataset, found)
    for twins in found:
        what = f"the same take as {twins.other} (equal {twins.how})"
        leaks_here = twins in leaks
        yield Problem(twins.one, f"{what}, in another split" if leaks_here else what, note=not leaks_here)


def _check_shard(dataset: Dataset, row: dict[str, Any]) -> Iterator[Problem]:
    shard = row["shard"]
    try:
        with dataset.folder.open(shard) as file:
            if (digest := sha256_of(file)) != row["sha256"]:
                yield Problem(shard, f"sha256 is {digest[:12]}, the manifest says {row['sha256'][:12]}")
            file.seek(0)
            yield from _check_samples(dataset, shard, list(samples_of(file)), row["count"])
    except FileNotFoundError:
        yield Problem(shard, "missing")
    except (DatasetError, ValueError) as error:
        yield Problem(shard, str(error))


def _check_samples(dataset: Dataset, shard: str, samples: list[tuple[str, Members]], count: int) -> Iterator[Problem]:
    if len(samples) != count:
        yield Problem(shard, f"holds {len(samples)} samples, the manifest says {count}")
    for key, members in samples:
        where = f"{shard}/{key}"
        if not KEY.fullmatch(key):
            yield Problem(where, "a key may hold a-z 0-9 _ - only")
        if tuple(members) != dataset.info.members():
            yield Problem(where, f"members are {', '.join(members)}; expected {', '.join(dataset.info.members())}")
            continue
        for ext, (offset, data) in members.items():
            if dataset.places.get(key, {}).get(ext) != (shard, offset, len(data)):
                yield Problem(f"{where}.{ext}", "members.parquet has it elsewhere")
            elif dataset.wanted(dataset.row(key), ext).crc32 not in (None, zlib.crc32(data)):
                yield Problem(f"{where}.{ext}", "its CRC-32 is not that of members.parquet")
        try:
            check_values({ext: decode(ext, data) for ext, (_, data) in members.items()}, dataset.info)
        except (AssertionError, ValueError, KeyError, TypeError, EOFError, MemoryError) as error:
            yield Problem(where, str(error))


def check_values(sample: Sample, info: schema.DatasetInfo) -> None:
    """Raise AssertionError or ValueError where a decoded sample breaks its column specs, its clock or its validity."""
    timeline = Timeline(sample["pts.npy"])
    frames = len(timeline)
    assert frames > 0, "no frames"
    assert frames == sample["json"]["frames"], f"{frames} frames, json says {sample['json']['frames']}"
    assert timeline.pts_ns[0] == 0, f"the first frame is at {timeline.pts_ns[0]} ns, not 0"
    for spec in info.specs():
        check_column(spec, sample[schema.member_name(spec.name)], frames)
    on_frames = {s.name: sample[schema.member_name(s.name)] for s in info.specs()[2:] if s.clock == "frame"}
    expected = FrameTable(timeline, on_frames).valid()
    assert (sample["valid.npy"] == expected).all(), "valid.npy disagrees with the finite rows of its columns"
