"""What every check of shards shares: how a problem reads, the samples in a tar, and whether three readers agree."""

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol

import datasets as hf
import numpy as np
import webdataset as wds

from talkface.clip import ColumnSpec
from talkface.datasets.format import schema
from talkface.datasets.reader import hf_features
from talkface.store import Folder, npy, tar_members


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and where. A ``note`` is worth knowing and breaks no promise."""

    where: str
    what: str
    note: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class Described(Protocol):
    """What says which members the samples of a tar have: dataset.json, or a sidecar's record."""

    def specs(self) -> list[ColumnSpec]: ...

    def members(self) -> tuple[str, ...]: ...


Members = dict[str, tuple[int, bytes]]
"""Extension to offset and bytes."""


def samples_of(file: Any) -> Iterator[tuple[str, Members]]:
    """Key and members of each sample of a shard, in order. Raises DatasetError for a tar that is cut short."""
    key, members = "", Members()
    for place, data in tar_members(file):
        name, _, ext = place.name.partition(".")
        if name != key and members:
            yield key, members
            members = {}
        key = name
        members[ext] = place.offset, data
    if members:
        yield key, members


def check_column(spec: ColumnSpec, values: np.ndarray, frames: int) -> None:
    """Raise AssertionError for a column that is not what its spec promises, or holds what stands for nothing."""
    spec.check(values, frames=frames)
    infinite = np.issubdtype(values.dtype, np.floating) and bool(np.isinf(values).any())
    assert not infinite, f"{spec.name}: an infinite number; what is missing is NaN"


def check_readers(folder: Folder, shards: Sequence[str], info: Described) -> Iterator[Problem]:
    """Where webdataset or Hugging Face ``datasets`` gives other samples than plain tarfile."""
    for shard, name in product(shards, READERS):
        path = folder.path(shard)
        plain, found = dict(_read_tarfile(path)), dict(READERS[name](path, info))
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


def _read_webdataset(path: str, _: Described) -> Iterator[tuple[str, dict[str, bytes]]]:
    for sample in wds.WebDataset(f"file:{path}", shardshuffle=False, empty_check=False):
        yield sample["__key__"], {k: v for k, v in sample.items() if not k.startswith("__")}


def _read_datasets(path: str, info: Any) -> Iterator[tuple[str, dict[str, bytes]]]:
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
