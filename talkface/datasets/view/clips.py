"""What the page asks for: tables and columns as compact bytes, and one clip's media and picture."""

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from talkface.annotate.head import euler_degrees
from talkface.datasets.build.job import clips_in_packs, sample_json
from talkface.datasets.build.packs import Candidate, read_members
from talkface.datasets.format import schema
from talkface.datasets.reader import Dataset
from talkface.datasets.selection import Selection, read_selection
from talkface.errors import DatasetError
from talkface.media import ClipFrames, with_sound
from talkface.store import from_npy
from talkface.vocab import ARKIT

ANGLES = "head_degrees"
"""A column that is not stored: yaw, pitch and roll of ``head``."""

CACHE_BYTES = 256 << 20


def packed(arrays: Mapping[str, np.ndarray], **about: Any) -> bytes:
    """Arrays behind a JSON header: its length (uint32), the header, then each array at a multiple of 8 bytes.

    The header's ``arrays`` says name, dtype, shape and where each begins, counted from the end of the header. All is
    little-endian, so that a browser can lay typed arrays over it without a copy.
    """
    places, parts, at = [], [], 0
    for name, array in arrays.items():
        data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        places.append({"name": name, "dtype": array.dtype.str[1:], "shape": array.shape, "offset": at})
        parts += [data, b"\0" * (-len(data) % 8)]
        at += len(data) + -len(data) % 8
    header = json.dumps({"arrays": places, **about}, allow_nan=False).encode()
    header += b" " * (-(len(header) + 4) % 8)
    return len(header).to_bytes(4, "little") + header + b"".join(parts)


def packed_table(table: pa.Table, **about: Any) -> bytes:
    """A table: numbers as float64 where they are whole and float32 elsewhere, text as codes into ``words``.

    Missing numbers are NaN, missing text is the empty word, which is always code 0.
    """
    arrays: dict[str, np.ndarray] = {}
    words: dict[str, list[str]] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_string(column.type) or pa.types.is_null(column.type):
            texts = pc.fill_null(column.cast(pa.string()), "").combine_chunks()
            coded = pa.concat_arrays([pa.array([""]), texts]).dictionary_encode()
            words[name] = coded.dictionary.to_pylist()
            arrays[name] = coded.indices.to_numpy()[1:].astype(np.uint32)
        else:
            dtype = np.float32 if pa.types.is_floating(column.type) else np.float64
            arrays[name] = column.cast(pa.float64()).to_numpy().astype(dtype)
    return packed(arrays, rows=table.num_rows, words=words, **about)


class Clips:
    """Clips of a dataset, those that a threshold of the build left in its packs too. Safe to use from many threads."""

    def __init__(self, dataset: Dataset) -> None:
        """``dataset`` has every clip."""
        self.dataset = dataset
        self._made: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._lock = threading.Lock()

    @cached_property
    def in_packs(self) -> Mapping[str, Candidate]:
        """Clips that the build left out; none where the packs are gone."""
        try:
            found = clips_in_packs(self.dataset.folder)
        except DatasetError:
            return {}
        return {key: clip for key, clip in found.items() if key not in self.dataset}

    def __contains__(self, key: str) -> bool:
        return key in self.dataset or key in self.in_packs

    def about(self) -> dict[str, Any]:
        """What the page must know about the dataset before any clip."""
        info = self.dataset.info
        thresholds = info.config.get("build", {}).get("thresholds", {})
        return {
            "url": self.dataset.url,
            "has_video": info.has_video,
            "columns": [schema.spec_dict(s) for s in self.dataset.specs()],
            "scores": [schema.spec_dict(s) for s in self.dataset.scores()],
            "arkit": list(ARKIT),
            "built_with": thresholds,
            "selection": self.selection().model_dump(exclude_none=True),
            "writable": self.dataset.folder.is_local,
        }

    def selection(self) -> Selection:
        return read_selection(self.dataset.folder)

    def table(self) -> bytes:
        """A row a clip, see `packed_table`."""
        return packed_table(self.dataset.clips)

    def rejects(self) -> bytes:
        """A row a reject; ``playable`` is 1 where the clip is still in a pack."""
        table = pa.Table.from_pylist(self.dataset.rejects(), schema=schema.REJECTS)
        playable = pa.array([key in self for key in table.column("key").to_pylist()], pa.bool_())
        return packed_table(table.append_column("playable", playable))

    def json(self, key: str) -> dict[str, Any]:
        """The clip's ``json``, what is missing as None."""
        raw = sample_json(self.in_packs[key]) if key in self.in_packs else self.dataset.sample(key, ["json"])["json"]
        plain: dict[str, Any] = _without_nan(raw)
        return plain

    def columns(self, key: str, names: Sequence[str]) -> bytes:
        """Columns by name, in single precision at most, times in seconds; those that the clip has not are left out."""
        specs = {s.name: s for s in self.dataset.specs()}
        stored = dict.fromkeys("head" if name == ANGLES else name for name in names)
        known = [name for name in stored if name in specs]
        if key in self.in_packs:
            members = self.in_packs[key].members.keys() | self.in_packs[key].labelled.keys()
            known = [name for name in known if schema.member_name(name) in members]
        data = self._read(key, [schema.member_name(name) for name in known])
        arrays = {name: from_npy(data[schema.member_name(name)]) for name in known}
        if ANGLES in names and "head" in arrays:
            arrays[ANGLES] = euler_degrees(arrays["head"][:, :4])
        return packed({name: _for_page(name, arrays[name]) for name in names if name in arrays})

    def media(self, key: str) -> tuple[bytes, str]:
        """One file with picture and sound, and its type; the sound alone where the dataset has no pictures."""
        if not self.dataset.info.has_video:
            return self._read(key, ["flac"])["flac"], "audio/flac"
        return self._kept((key, "mp4"), lambda: with_sound(**self._read(key, ["mp4", "flac"]))), "video/mp4"

    def picture(self, key: str, side: int) -> bytes:
        """The frame in the middle of the clip, ``side`` pixels wide, as JPEG."""
        return self._kept((key, "jpg"), lambda: self._picture(key, side))

    def _picture(self, key: str, side: int) -> bytes:
        frames = ClipFrames(self._read(key, ["mp4"])["mp4"])
        frame = frames.get([len(frames) // 2])[0]
        small = cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA)
        _, data = cv2.imencode(".jpg", small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
        return bytes(data)

    def _read(self, key: str, members: Sequence[str]) -> dict[str, bytes]:
        if key in self.in_packs:
            return read_members(self.dataset.folder, self.in_packs[key], members)
        return self.dataset.read([self.dataset.row(key)], members)[0]

    def _kept(self, name: tuple[str, str], make: Callable[[], bytes]) -> bytes:
        """What was made before, or is made now; what was not used for longest is forgotten."""
        with self._lock:
            if name in self._made:
                self._made.move_to_end(name)
                return self._made[name]
        data = make()
        with self._lock:
            self._made[name] = data
            while len(self._made) > 1 and sum(map(len, self._made.values())) > CACHE_BYTES:
                self._made.popitem(last=False)
        return data


def _for_page(name: str, array: np.ndarray) -> np.ndarray:
    if name.endswith("pts"):
        return array / 1e9
    return array if array.dtype == np.uint8 else array.astype(np.float32)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
