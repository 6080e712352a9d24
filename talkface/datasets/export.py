"""A dataset in the forms that others read: Parquet for Hugging Face, Live Link Face's CSV, plain folders.

One function a form, named in `FORMS`. Each writes whole files, and ``export.json`` after the last of them: a folder
without it is unfinished, and running the same export again finishes it.
"""

import io
import json
import math
import wave
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int16

from talkface.datasets.build.card import terms
from talkface.datasets.format import schema
from talkface.datasets.format.hf_features import features
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError
from talkface.media import decode_flac
from talkface.motion import HEAD_NAMES, Motion
from talkface.store import Folder
from talkface.vocab import ARKIT, SAMPLE_RATE

MARKER: Final = "export.json"
GROUP_BYTES: Final = 64_000_000
"""Rows are handed to Parquet once they hold this much: clips with video are megabytes each."""


def export(dataset: Dataset, out: str, form: str) -> int:
    """Write every clip of ``dataset`` in a form; returns how many.

    Raises ConfigError for an unknown form, a column that the form needs and the dataset lacks, and a folder that holds
    something else.
    """
    if form not in FORMS:
        raise ConfigError(f"no form named {form!r}; there are: {', '.join(FORMS)}")
    folder = Folder(out)
    about = {"form": form, "of": dataset.info.fingerprint, "clips": len(dataset)}
    _refuse_other(folder, about)
    folder.remove(MARKER)
    FORMS[form](dataset, folder)
    folder.write("README.md", _readme(dataset, form).encode())
    folder.write(MARKER, json.dumps(about, indent=1).encode())
    return len(dataset)


def _refuse_other(folder: Folder, about: Mapping[str, Any]) -> None:
    """An export may be written over by an export of the same form, and nothing else may."""
    if folder.exists("dataset.json"):
        raise ConfigError(f"{folder.url}: a talkface dataset lies there. Choose another --out.")
    if folder.exists(MARKER) and json.loads(folder.read(MARKER))["form"] != about["form"]:
        raise ConfigError(f"{folder.url}: an export of another form lies there. Choose another --out.")


def to_parquet(dataset: Dataset, folder: Folder) -> None:
    """``<split>.parquet``: a row a clip, all members; ``load_dataset(folder)`` knows every type."""
    kinds = features(dataset.info)
    for sidecar in dataset.usable:
        kinds.update(features(sidecar.info))
    kinds.pop("__url__")
    kinds["json"] = {name: kind for name, kind in kinds["json"].items() if kind != {}}  # Parquet has no empty struct
    for split, rows in _by_split(dataset):
        tables = _groups(_arrow_row(dataset, row, kinds.arrow_schema) for row in rows)
        with (
            folder.create(f"{split}.parquet") as file,
            pq.ParquetWriter(file, kinds.arrow_schema, compression="zstd") as writer,
        ):
            for table in tables:
                writer.write_table(table)


def _groups(rows: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Tables of a row each, joined until they hold GROUP_BYTES."""
    group: list[pa.Table] = []
    for row in rows:
        group.append(row)
        if sum(r.nbytes for r in group) > GROUP_BYTES:
            yield pa.concat_tables(group)
            group = []
    if group:
        yield pa.concat_tables(group)


def _arrow_row(dataset: Dataset, row: int, kinds: pa.Schema) -> pa.Table:
    sample = dataset.sample(dataset.keys()[row])
    values = [sample[field.name] for field in kinds]
    cells = [
        nested(v).cast(f.type) if isinstance(v, np.ndarray) else pa.array([v], f.type)
        for v, f in zip(values, kinds, strict=True)
    ]
    return pa.Table.from_arrays(cells, schema=kinds)


def nested(array: np.ndarray) -> pa.Array:
    """An array of n axes as one row of n-fold lists, without a Python object a number."""
    lists = pa.array(array.ravel())
    for axis in reversed(range(array.ndim)):
        ends = np.arange(math.prod(array.shape[:axis]) + 1, dtype=np.int32) * array.shape[axis]
        lists = pa.ListArray.from_arrays(pa.array(ends), lists)
    return lists


def to_live_link(dataset: Dataset, folder: Folder) -> None:
    """``<key>.csv``, 61 values a row, with ``<key>.wav`` and, where the dataset keeps video, ``<key>.mp4``."""
    dataset.spec("arkit"), dataset.spec("head")  # says what is missing
    for row, key in enumerate(dataset.keys()):
        folder.write(f"{key}.csv", motion_of(dataset, key).live_link().encode())
        for name, data in _media(dataset, row).items():
            folder.write(f"{key}.{name}", data)


def to_folders(dataset: Dataset, folder: Folder) -> None:
    """``<split>/<key>/``: ``video.mp4``, ``audio.wav``, ``<column>.npy``, ``clip.json``."""
    for split, rows in _by_split(dataset):
        for row in rows:
            key = dataset.keys()[row]
            members = dataset.read([row], dataset.members())[0]
            files = {ext: data for ext, data in members.items() if ext.endswith(".npy")} | {
                "clip.json": members["json"]
            }
            files |= {{"mp4": "video.mp4", "wav": "audio.wav"}[ext]: d for ext, d in _media(dataset, row).items()}
            for name, data in files.items():
                folder.write(f"{split}/{key}/{name}", data)


FORMS: Final[Mapping[str, Callable[[Dataset, Folder], None]]] = {
    "parquet": to_parquet,
    "livelink": to_live_link,
    "folders": to_folders,
}


def motion_of(dataset: Dataset, key: str) -> Motion:
    """A clip's blendshapes and head pose as motion."""
    arrays = dataset.arrays(key, ["pts", "arkit", "head"])
    row = dataset.row(key)
    return Motion(
        pts_ns=arrays["pts"],
        arkit=arrays["arkit"],
        head=arrays["head"][:, : len(HEAD_NAMES)],
        fps=dataset.clips.column("fps_avg")[row].as_py(),
        provenance={"synthetic": False, "clip": key, "source": dataset.clips.column("source")[row].as_py()},
    )


def _by_split(dataset: Dataset) -> Iterator[tuple[str, list[int]]]:
    splits = dataset.clips.column("split").to_pylist()
    for split in schema.SPLITS:
        if rows := [row for row, name in enumerate(splits) if name == split]:
            yield split, rows


def _media(dataset: Dataset, row: int) -> dict[str, bytes]:
    members = dataset.read([row], ["mp4", "flac"] if dataset.info.has_video else ["flac"])[0]
    return {"wav": wav(decode_flac(members.pop("flac"))), **members}


def wav(samples: Int16[np.ndarray, " samples"]) -> bytes:
    """16 kHz mono as a RIFF file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()


def _readme(dataset: Dataset, form: str) -> str:
    what = (FORMS[form].__doc__ or "").splitlines()[0]
    return "\n\n".join(
        [
            "# Talking-face clips",
            f"Exported by talkface {dataset.info.talkface}, form `{form}`: {what}",
            f"ARKit blendshapes in this order: {', '.join(ARKIT)}.",
            *terms(dataset.info, [s.info for s in dataset.usable]),
        ]
    )
