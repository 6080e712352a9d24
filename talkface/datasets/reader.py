"""Open a dataset: its tables, and any sample by key."""

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import datasets as hf
import pyarrow as pa

from talkface.datasets import schema
from talkface.errors import DatasetError
from talkface.store import Folder, from_npy, read_table

Sample = dict[str, Any]
"""Member extension to value: ``json`` a dict, ``*.npy`` an array, the rest bytes; ``__key__`` the key."""


class Dataset:
    """A finished dataset in a folder or behind any fsspec url.

    Raises DatasetError if it is not finished, damaged, or newer than this code.
    """

    def __init__(self, url: str) -> None:
        self.folder = Folder(url)
        try:
            data = self.folder.read("dataset.json")
        except FileNotFoundError as error:
            raise DatasetError(
                f"{url}: no dataset.json: not a dataset, or its ingest was stopped. Run the same ingest again."
            ) from error
        self.info = schema.DatasetInfo.parse(data, self.folder.path("dataset.json"))

    def __len__(self) -> int:
        return int(self.clips.num_rows)

    def table(self, name: str) -> pa.Table:
        """A manifest: sources, clips, rejects, shards or members."""
        return read_table(self.folder, f"manifest/{name}.parquet")

    @cached_property
    def clips(self) -> pa.Table:
        return self.table("clips")

    @cached_property
    def places(self) -> Mapping[str, dict[str, tuple[str, int, int]]]:
        """Key to member to (shard, offset, size)."""
        found: dict[str, dict[str, tuple[str, int, int]]] = {}
        for row in self.table("members").to_pylist():
            found.setdefault(row["key"], {})[row["member"]] = row["shard"], row["offset"], row["size"]
        return found

    def keys(self) -> list[str]:
        """Keys in the order of the shards."""
        keys: list[str] = self.clips.column("key").to_pylist()
        return keys

    def member(self, key: str, member: str) -> bytes:
        """The bytes of one member, read alone. Raises DatasetError naming shard and member."""
        try:
            shard, offset, size = self.places[key][member]
        except KeyError as error:
            raise DatasetError(f"{self.folder.url}: no member {member!r} of clip {key!r}.") from error
        with self.folder.open(shard) as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) != size:
            raise DatasetError(f"{shard}: {key}.{member} is cut short. Run: toolkit verify --repair {self.folder.url}")
        return data

    def sample(self, key: str) -> Sample:
        """One sample, decoded."""
        return {"__key__": key} | {m: decode(m, self.member(key, m)) for m in self.info.members()}

    def __iter__(self) -> Iterator[Sample]:
        return (self.sample(key) for key in self.keys())


def decode(member: str, data: bytes) -> Any:
    """A member's value by its extension."""
    if member == "json":
        return json.loads(data)
    return from_npy(data) if member.endswith(".npy") else data


def hf_features(info: schema.DatasetInfo) -> hf.Features:
    """Features for ``datasets.load_dataset("webdataset", ..., features=...)``.

    Without them ``datasets`` guesses: it wants torchcodec for mp4 and flac, and breaks where a value is missing first.
    """
    columns = {schema.member_name(s.name): _hf_array(s.dtype, len(s.shape) + (s.clock != "clip")) for s in info.specs()}
    media = {ext: hf.Value("binary") for ext in ("mp4", "flac")}
    known = {"json": _hf_json(info), **media, **columns}
    keys = {"__key__": hf.Value("string"), "__url__": hf.Value("string")}
    return hf.Features({ext: known[ext] for ext in info.members()} | keys)


def _hf_array(dtype: str, axes: int) -> Any:
    feature: Any = hf.Value(dtype)
    for _ in range(axes):
        feature = hf.List(feature)
    return feature


def _hf_json(info: schema.DatasetInfo) -> dict[str, Any]:
    text, whole, real = hf.Value("string"), hf.Value("int64"), hf.Value("float64")
    return {
        **dict.fromkeys(("key", "source", "source_sha256"), text),
        **dict.fromkeys(("track", "shot", "start_ns", "end_ns", "frames", "crop_size"), whole),
        **dict.fromkeys(("duration", "fps_avg", "av_offset_ms", "av_drift_ms"), real),
        "is_vfr": hf.Value("bool"),
        "labels": dict.fromkeys(("speaker", "emotion", "camera", "language", "licence"), text) | {"intensity": whole},
        "crop": hf.List(hf.List(real)),
        "scores": {s["name"]: real for s in info.scores},
        "status": dict.fromkeys(info.annotators, text),
    }
