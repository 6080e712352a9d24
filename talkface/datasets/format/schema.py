"""The one description of a dataset on disk: members of a sample, manifests, dataset.json.

A sample is a run of members in a tar that share a key: ``json``, then ``mp4`` (whole datasets may leave it out),
``flac``, ``pts.npy``, ``valid.npy``, then one ``.npy`` a column in the order of dataset.json. A **pack** holds the
samples of one work unit, with an index beside it; a **shard** holds samples alone.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
from pydantic import Field, ValidationError

from talkface.clip import ColumnSpec, ScoreSpec
from talkface.config import Strict
from talkface.errors import DatasetError

VERSION: Final = 1
"""Schema version: readers refuse a newer one."""

SPLITS: Final = ("train", "val", "test")

PTS = ColumnSpec(
    name="pts", dtype="int64", shape=(), unit="ns", clock="frame", description="presentation time from the clip's start"
)
VALID = ColumnSpec(
    name="valid",
    dtype="uint8",
    shape=(),
    unit="bits",
    clock="frame",
    description="bit 0 face, 1 arkit, 2 head, 3 landmarks, 4 flame",
)


def member_name(column: str) -> str:
    """Extension of a column's member."""
    return f"{column}.npy"


class AnnotatorRecord(Strict):
    """What made a column: enough to make it again, and to know its terms."""

    version: int
    licence: str
    config: dict[str, Any]
    weights: tuple[dict[str, Any], ...]
    columns: tuple[str, ...]
    scores: tuple[str, ...]


class DatasetInfo(Strict):
    """The content of dataset.json.

    ``made_with`` holds the versions of the libraries that made its packs, as ``device`` on what, and as ``mesh`` what
    ran the mesh's networks.
    """

    schema_version: int = VERSION
    talkface: str
    columns: tuple[dict[str, Any], ...]
    scores: tuple[dict[str, Any], ...]
    annotators: dict[str, AnnotatorRecord]
    faces: tuple[dict[str, Any], ...]
    has_video: bool
    config: dict[str, Any]
    config_hash: str
    fingerprint: str
    layout: str
    strictest_licence: str
    splits: dict[str, dict[str, float]]
    made_with: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    def specs(self) -> list[ColumnSpec]:
        """All columns as specs, ``pts`` and ``valid`` first."""
        return [PTS, VALID, *map(column_from, self.columns)]

    def members(self) -> tuple[str, ...]:
        """Member extensions of every sample, in order."""
        return member_order(self.specs()[2:], has_video=self.has_video)

    @classmethod
    def parse(cls, data: bytes, where: str) -> "DatasetInfo":
        """Read dataset.json. Raises DatasetError for a damaged or newer one."""
        try:
            raw = json.loads(data)
            version = int(raw["schema_version"])
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{where}: not a dataset.json ({error}).") from error
        if version > VERSION:
            raise DatasetError(f"{where}: schema version {version}; this talkface reads {VERSION}. Update talkface.")
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise DatasetError(f"{where}: damaged ({error.errors()[0]['msg']}: {error.errors()[0]['loc']}).") from error


def spec_dict(spec: ColumnSpec | ScoreSpec) -> dict[str, Any]:
    """A spec as plain JSON values."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(spec).items()}


def column_from(raw: Mapping[str, Any]) -> ColumnSpec:
    """The spec that ``spec_dict`` made plain."""
    return ColumnSpec(**{**raw, "shape": tuple(raw["shape"]), "names": tuple(raw["names"])})


def member_order(columns: Sequence[ColumnSpec], *, has_video: bool) -> tuple[str, ...]:
    """Members of a sample in their fixed order."""
    head = ("json", "mp4", "flac") if has_video else ("json", "flac")
    return (*head, *(member_name(c.name) for c in (PTS, VALID, *columns)))


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """Canonical JSON: sorted keys, floats always written as floats, missing floats as NaN."""
    return json.dumps(value, sort_keys=True, indent=None, separators=(",", ":"), ensure_ascii=False).encode()


CLIP_FIELDS: Final[tuple[tuple[str, pa.DataType], ...]] = (
    ("key", pa.string()),
    ("split", pa.string()),
    ("shard", pa.string()),
    ("source", pa.string()),
    ("source_sha256", pa.string()),
    ("track", pa.int32()),
    ("shot", pa.int32()),
    ("start_ns", pa.int64()),
    ("end_ns", pa.int64()),
    ("duration", pa.float64()),
    ("frames", pa.int32()),
    ("fps_avg", pa.float64()),
    ("is_vfr", pa.bool_()),
    ("av_offset_ms", pa.float64()),
    ("av_drift_ms", pa.float64()),
    ("sound_filled_seconds", pa.float64()),
    ("sound_dropped_seconds", pa.float64()),
    ("speaker", pa.string()),
    ("emotion", pa.string()),
    ("intensity", pa.int32()),
    ("camera", pa.string()),
    ("language", pa.string()),
    ("licence", pa.string()),
)

JSON_NUMBERS: Final = (
    "duration", "fps_avg", "av_offset_ms", "av_drift_ms", "sound_filled_seconds", "sound_dropped_seconds",
)  # fmt: skip
"""What stands in a sample's json as a float, as it stands in clips.parquet."""

SOURCES: Final = pa.schema(
    [
        ("uri", pa.string()),
        ("name", pa.string()),
        ("sha256", pa.string()),
        ("size", pa.int64()),
        ("layout", pa.string()),
        ("audio_uri", pa.string()),
        ("recording", pa.list_(pa.string())),
        ("speaker", pa.string()),
        ("emotion", pa.string()),
        ("intensity", pa.int32()),
        ("camera", pa.string()),
        ("language", pa.string()),
        ("licence", pa.string()),
        ("container", pa.string()),
        ("duration", pa.float64()),
        ("video_codec", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("fps", pa.float64()),
        ("rotation", pa.int32()),
        ("audio_codec", pa.string()),
        ("audio_rate", pa.int32()),
        ("audio_channels", pa.int32()),
        ("status", pa.string()),
        ("clips", pa.int32()),
        ("clip_seconds", pa.float64()),
    ]
)

REJECTS: Final = pa.schema(
    [
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("source", pa.string()),
        ("key", pa.string()),
        ("start_ns", pa.int64()),
        ("end_ns", pa.int64()),
        ("value", pa.float64()),
        ("threshold", pa.float64()),
        ("message", pa.string()),
    ]
)

SHARDS: Final = pa.schema(
    [
        ("shard", pa.string()),
        ("split", pa.string()),
        ("count", pa.int32()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
    ]
)

MEMBERS: Final = pa.schema(
    [
        ("key", pa.string()),
        ("member", pa.string()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("crc32", pa.uint32()),
    ]
)
"""``crc32`` is of the member's bytes; datasets made before it was added lack the column, and are read unchecked."""


def clips_schema(scores: Sequence[ScoreSpec]) -> pa.Schema:
    """Schema of clips.parquet: the fixed fields, then one float a score."""
    return pa.schema([*CLIP_FIELDS, *((s.name, pa.float64()) for s in scores)])


def scores_schema(scores: Sequence[ScoreSpec]) -> pa.Schema:
    """Schema of a sidecar's clips.parquet: the key, then one float a score."""
    return pa.schema([("key", pa.string()), *((s.name, pa.float64()) for s in scores)])


def is_missing(value: float | None) -> bool:
    """Whether a score has no value."""
    return value is None or math.isnan(value)
