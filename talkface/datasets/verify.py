"""Does a dataset on disk hold what its manifests promise? And if not: make it anew from its packs."""

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import datasets as hf
import numpy as np
import webdataset as wds

from talkface.clip import FrameTable, Timeline
from talkface.datasets import schema
from talkface.datasets.reader import Dataset, Sample, decode, hf_features
from talkface.errors import DatasetError
from talkface.store import npy, sha256_of, tar_members

KEY = re.compile(r"[a-z0-9_-]+")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and where."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def verify(url: str, *, readers: bool = True) -> list[Problem]:
    """All that is wrong with the dataset at ``url``; empty when nothing is.

    Checks checksums, that every sample has every member in order, dtypes, shapes, clocks and validity bits, that the
    manifests agree with the shards, and (``readers``, local folders) that webdataset, Hugging Face ``datasets`` and
    plain tarfile give the same samples.
    """
    try:
        dataset = Dataset(url)
        shards = dataset.table("shards").to_pylist()
        problems = [p for shard in shards for p in _check_shard(dataset, shard)]
        problems += _check_manifests(dataset, shards)
        for name in ("sources", "rejects"):  # the others have been read by now
            dataset.table(name)
    except DatasetError as error:
        return [Problem(url, str(error))]
    if readers and not problems and dataset.folder.is_local and shards:
        problems += _check_readers(dataset, [s["shard"] for s in shards])
    return problems


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
    speakers: dict[str, set[str]] = {}
    for clip in clips:
        speakers.setdefault(clip["speaker"] or clip["source_sha256"], set()).add(clip["split"])
    for who, splits in speakers.items():
        if len(splits) > 1:
            yield Problem("manifest/clips.parquet", f"{who} is in several splits: {', '.join(sorted(splits))}")


def _check_shard(dataset: Dataset, row: dict[str, Any]) -> Iterator[Problem]:
    shard = row["shard"]
    try:
        with dataset.folder.open(shard) as file:
            if (digest := sha256_of(file)) != row["sha256"]:
                yield Problem(shard, f"sha256 is {digest[:12]}, the manifest says {row['sha256'][:12]}")
            file.seek(0)
            yield from _check_samples(dataset, shard, list(_samples(file)), row["count"])
    except FileNotFoundError:
        yield Problem(shard, "missing")
    except (DatasetError, ValueError) as error:
        yield Problem(shard, str(error))


def _samples(file: Any) -> Iterator[tuple[str, dict[str, tuple[int, bytes]]]]:
    """Key and members (offset, bytes) of each sample of a shard, in order."""
    key, members = "", dict[str, tuple[int, bytes]]()
    for place, data in tar_members(file):
        name, _, ext = place.name.partition(".")
        if name != key and members:
            yield key, members
            members = {}
        key = name
        members[ext] = place.offset, data
    if members:
        yield key, members


def _check_samples(
    dataset: Dataset, shard: str, samples: list[tuple[str, dict[str, tuple[int, bytes]]]], count: int
) -> Iterator[Problem]:
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
        spec.check(sample[schema.member_name(spec.name)], frames=frames)
    on_frames = {s.name: sample[schema.member_name(s.name)] for s in info.specs()[2:] if s.clock == "frame"}
    expected = FrameTable(timeline, on_frames).valid()
    assert (sample["valid.npy"] == expected).all(), "valid.npy disagrees with the finite rows of its columns"


def _check_readers(dataset: Dataset, shards: list[str]) -> Iterator[Problem]:
    for shard, name in product(shards, READERS):
        path = dataset.folder.path(shard)
        plain, found = dict(_read_tarfile(path)), dict(READERS[name](path, dataset.info))
        if found.keys() != plain.keys():
            yield Problem(shard, f"{name} reads {len(found)} samples where tarfile reads {len(plain)}")
        for key in found.keys() & plain.keys():
            for ext, data in plain[key].items():
                if found[key].get(ext) != data:
                    yield Problem(shard, f"{name} reads other bytes than tarfile: {key}.{ext}")


def _read_tarfile(path: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path) as tar:
        for info in tar:
            key, _, ext = info.name.partition(".")
            file = tar.extractfile(info)
            samples.setdefault(key, {})[ext] = file.read() if file else b""
    yield from samples.items()


def _read_webdataset(path: str, _: schema.DatasetInfo) -> Iterator[tuple[str, dict[str, bytes]]]:
    for sample in wds.WebDataset(f"file:{path}", shardshuffle=False, empty_check=False):
        yield sample["__key__"], {k: v for k, v in sample.items() if not k.startswith("__")}


def _read_datasets(path: str, info: schema.DatasetInfo) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Through ``datasets``; its lists and dicts are turned back into bytes, so that every bit is compared."""
    dtypes = {schema.member_name(s.name): (s.dtype, s.shape, s.clock) for s in info.specs()}
    stream = hf.load_dataset("webdataset", data_files=[path], split="train", streaming=True, features=hf_features(info))
    for sample in stream:
        yield sample["__key__"], {ext: _as_bytes(sample[ext], dtypes.get(ext)) for ext in info.members()}


READERS = {"webdataset": _read_webdataset, "datasets": _read_datasets}


def _as_bytes(value: Any, array: tuple[str, tuple[int, ...], str] | None) -> bytes:
    if array is None:
        return schema.json_bytes(value) if isinstance(value, dict) else bytes(value)
    dtype, shape, clock = array
    return npy(np.asarray(value, dtype).reshape(shape if clock == "clip" else (-1, *shape)))
