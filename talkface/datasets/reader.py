"""Open a dataset: its tables, any sample by key, any span of it, any column at any times."""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int16, Int64

from talkface.clip import NS, ColumnSpec, ScoreSpec, ns_to_samples
from talkface.datasets.format import schema
from talkface.datasets.format.shards import Places, ShardReader, Wanted, column_view
from talkface.datasets.format.sidecar import Sidecar, SidecarInfo, find_sidecars
from talkface.datasets.missing_columns import Held, how_to_have
from talkface.datasets.resample import How, resample_column, sound_clock
from talkface.errors import ConfigError, DatasetError
from talkface.media import FlacSamples
from talkface.store import TIMEOUT, Folder, from_npy, read_table

if TYPE_CHECKING:
    import datasets as hf

Sample = dict[str, Any]
"""Member extension to value: ``json`` a dict, ``*.npy`` an array, the rest bytes; ``__key__`` the key."""


class Dataset:
    """A finished dataset in a folder or behind any fsspec url; read-only, and nothing of it stays open in a pickle.

    It has every clip, whatever ``selection.json`` says: `open_dataset` honours that. Columns and scores of its sidecars
    are its own, and read only when asked for. ``sidecars`` None takes those that a listing of its folder shows; names
    ask for exactly these, also where a server gives no listing.

    Times are ns from a clip's start. Raises DatasetError if it is not finished, damaged, or newer than this code.
    """

    def __init__(self, url: str, *, sidecars: Sequence[str] | None = None, timeout: float = TIMEOUT) -> None:
        self.url = str(url)
        self._sidecar_names = sidecars
        self.reader = ShardReader(self.url, timeout=timeout)
        try:
            data = self.folder.read("dataset.json")
        except FileNotFoundError as error:
            raise DatasetError(
                f"{url}: no dataset.json: not a dataset, or its ingest was stopped. Run the same ingest again."
            ) from error
        self.info = schema.DatasetInfo.parse(data, self.folder.path("dataset.json"))
        self._rows: Int64[np.ndarray, " clips"] | None = None
        self._indices: dict[str, Places] = {}

    @property
    def folder(self) -> Folder:
        return self.reader.folder

    def __len__(self) -> int:
        return int(self.clips.num_rows)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_row_of", "places")}

    def __repr__(self) -> str:
        return f"Dataset({self.url!r}, {len(self)} clips)"

    def table(self, name: str) -> pa.Table:
        """A manifest as it was written: sources, clips, rejects, shards or members."""
        return read_table(self.folder, f"manifest/{name}.parquet")

    @cached_property
    def clips(self) -> pa.Table:
        """A row a clip: key, split, shard, span, labels, every score, those of the sidecars last."""
        clips = self.table("clips")
        for sidecar in self.usable:
            for name, values in sidecar.scores(self.folder, clips.column("key")):
                clips = clips.append_column(name, values)
        return clips

    @cached_property
    def sidecars(self) -> Mapping[str, Sidecar]:
        """Its whole sidecars by name, those that are stale too."""
        return find_sidecars(self.folder, self._sidecar_names)

    @property
    def usable(self) -> list[Sidecar]:
        """The sidecars whose columns and scores it serves."""
        return [s for s in self.sidecars.values() if not s.stale]

    @property
    def annotators(self) -> dict[str, schema.AnnotatorRecord]:
        """What made its columns and scores, those of the sidecars too."""
        return {**self.info.annotators, **{s.info.name: s.info.annotator() for s in self.usable}}

    def specs(self) -> list[ColumnSpec]:
        """All columns, ``pts`` and ``valid`` first, those of the sidecars last."""
        return [*self.info.specs(), *(spec for s in self.usable for spec in s.info.specs())]

    @property
    def held(self) -> Held:
        """What it has, for those who ask what can be added."""
        base = {s.name for s in self.info.specs()} | {s["name"] for s in self.info.scores}
        return Held(self.url, frozenset(base), frozenset(s.name for s in self.specs()), self.info.has_video)

    def members(self) -> tuple[str, ...]:
        """Member extensions of every sample, those of the sidecars last."""
        return (*self.info.members(), *(m for s in self.usable for m in s.info.members()))

    def scores(self) -> list[ScoreSpec]:
        """All scores, those of the sidecars last."""
        own = [ScoreSpec(**s) for s in self.info.scores]
        return [*own, *(spec for s in self.usable for spec in s.info.score_specs())]

    def rejects(self) -> list[dict[str, Any]]:
        """What did not become a clip, and then the clips that a sidecar has nothing for: rows of rejects.parquet."""
        tables = [self.table("rejects"), *(s.table(self.folder, "rejects") for s in self.usable)]
        return [row for table in tables for row in table.to_pylist()]

    def where(self, expression: pc.Expression) -> "Dataset":
        """The clips for which a pyarrow expression over `clips` holds: ``pc.field("emotion") == "happy"``.

        A null (a label or score that is not known) never holds. Raises ConfigError for an unknown column.
        """
        rows = np.arange(len(self)) if self._rows is None else self._rows
        numbered = self.clips.append_column("__row", pa.array(rows))
        try:
            numbered = numbered.filter(expression)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, KeyError) as error:
            stale = " ".join(s.stale for s in self.sidecars.values() if s.stale)
            raise ConfigError(
                f"{expression}: {str(error).splitlines()[0]} Columns: {', '.join(self.clips.column_names)}. {stale}"
            ) from error
        part = copy.copy(self)
        part.__dict__.pop("_row_of", None)
        part._rows = numbered.column("__row").to_numpy()
        part.__dict__["clips"] = numbered.drop_columns("__row")
        return part

    def wanted(self, row: int, member: str) -> Wanted:
        """Where a member of the clip in a row of `clips` lies. Raises DatasetError if there is no such member."""
        return self.index_of(member).wanted(int(row if self._rows is None else self._rows[row]), member)

    def index_of(self, member: str) -> Places:
        """The places among which a member is. Raises DatasetError for one of a stale sidecar."""
        if member in self.index.members:
            return self.index
        sidecar = next((s for s in self.sidecars.values() if member in s.info.members()), None)
        if sidecar is None:
            return self.index
        if sidecar.stale:
            raise DatasetError(sidecar.stale)
        if sidecar.info.name not in self._indices:
            self._indices[sidecar.info.name] = sidecar.places(self.folder, self.table("clips"))
        return self._indices[sidecar.info.name]

    def refuse_stale(self, name: str) -> None:
        """Raise DatasetError if a stale sidecar has a column or a score of this name."""
        if why := self.stale(name):
            raise DatasetError(why)

    def stale(self, name: str) -> str:
        """Why a column or a score must not be read, and the command that mends it; nothing for all others."""
        for sidecar in self.sidecars.values():
            record = sidecar.info.annotator()
            if sidecar.stale and name in (*record.columns, *record.scores):
                return sidecar.stale
        return ""

    def locate(self, members: Sequence[str]) -> None:
        """Read now where these members lie: copies in other processes need not do it again."""
        for member in members:
            self.index_of(member)

    @cached_property
    def places(self) -> Mapping[str, dict[str, tuple[str, int, int]]]:
        """Key to member to (shard, offset, size), as members.parquet has it."""
        found: dict[str, dict[str, tuple[str, int, int]]] = {}
        for row in self.table("members").to_pylist():
            found.setdefault(row["key"], {})[row["member"]] = row["shard"], row["offset"], row["size"]
        return found

    @cached_property
    def index(self) -> Places:
        """Where every member of every clip lies, those that `where` left out too."""
        return Places.of(self.url, self.table("clips"), self.table("members"), self.info.members())

    @cached_property
    def _row_of(self) -> Mapping[str, int]:
        return {key: row for row, key in enumerate(self.keys())}

    def keys(self) -> list[str]:
        """Keys in the order of the shards."""
        keys: list[str] = self.clips.column("key").to_pylist()
        return keys

    def row(self, key: str) -> int:
        """The row of `clips` that a key stands in. Raises DatasetError for one that is not there."""
        try:
            return self._row_of[key]
        except KeyError as error:
            raise DatasetError(f"{self.url}: no clip {key!r} among {len(self)}.") from error

    def __contains__(self, key: object) -> bool:
        return key in self._row_of

    def spec(self, column: str) -> ColumnSpec:
        """What a column is.

        Raises ConfigError naming those that there are, and the command that adds it where an annotator makes it;
        DatasetError for a column of a stale sidecar.
        """
        for spec in self.specs():
            if spec.name == column:
                return spec
        self.refuse_stale(column)
        names = ", ".join(s.name for s in self.specs())
        how = how_to_have(self.held, column)
        raise ConfigError(f"{self.url}: no column {column!r}; there are: {names}. {how}".rstrip())

    def member(self, key: str, member: str) -> bytes:
        """The bytes of one member, read alone. Raises DatasetError naming shard and member."""
        return self.read([self.row(key)], [member])[0][member]

    def read(self, rows: Sequence[int], members: Sequence[str]) -> list[dict[str, bytes]]:
        """Members of the clips in ``rows``, as bytes. Raises the first DatasetError."""
        found = self.try_read(rows, members)
        for clip in found:
            if isinstance(clip, DatasetError):
                raise clip
        return [clip for clip in found if not isinstance(clip, DatasetError)]

    def try_read(self, rows: Sequence[int], members: Sequence[str]) -> list[dict[str, bytes] | DatasetError]:
        """As `read`; the error of a clip that cannot be read stands in its place."""
        wanted = [self.wanted(row, member) for row in rows for member in members]
        data = iter(self.reader.read(wanted))
        clips: list[dict[str, bytes] | DatasetError] = []
        for _ in rows:
            parts = {member: next(data) for member in members}
            error = next((p for p in parts.values() if isinstance(p, DatasetError)), None)
            clips.append(error or {m: p for m, p in parts.items() if not isinstance(p, DatasetError)})
        return clips

    def sample(self, key: str, members: Sequence[str] | None = None) -> Sample:
        """One sample, decoded: all of its members, or some. Raises DatasetError naming shard and member."""
        names = self.members() if members is None else members
        row = self.row(key)
        decoded: Sample = {"__key__": key}
        for member, data in self.read([row], names)[0].items():
            try:
                decoded[member] = decode(member, data)
            except (ValueError, EOFError) as error:
                shard = self.wanted(row, member).shard
                raise DatasetError(f"{shard}: {key}.{member} is damaged: {error}") from error
        return decoded

    def arrays(self, key: str, columns: Sequence[str]) -> dict[str, np.ndarray]:
        """Whole columns by name, read-only."""
        return self.views([self.row(key)], columns)[0]

    def views(self, rows: Sequence[int], columns: Sequence[str]) -> list[dict[str, np.ndarray]]:
        """Whole columns of several clips. Raises DatasetError naming shard and member."""
        specs = {schema.member_name(name): self.spec(name) for name in columns}
        data = self.read(rows, tuple(specs))
        return [self.view(row, clip, specs) for row, clip in zip(rows, data, strict=True)]

    def view(self, row: int, data: Mapping[str, bytes], specs: Mapping[str, ColumnSpec]) -> dict[str, np.ndarray]:
        """The columns in the bytes of a clip's members. Raises DatasetError naming shard and member."""
        frames = self.clips.column("frames")[row].as_py()
        return {
            spec.name: column_view(self.wanted(row, member), data[member], spec, frames)
            for member, spec in specs.items()
        }

    def duration_ns(self, key: str) -> int:
        """From a clip's first frame until its last frame leaves the screen."""
        row = self.row(key)
        return int(self.clips.column("end_ns")[row].as_py() - self.clips.column("start_ns")[row].as_py())

    def column(
        self, key: str, name: str, times_ns: Sequence[int] | Int64[np.ndarray, " times"], how: How | None = None
    ) -> np.ndarray:
        """A column at any times: (times, ...), NaN where it is missing or outside the clip.

        ``how`` is ``linear``, ``nearest`` or ``slerp``; None takes what fits the column. A quaternion is never mixed
        part by part: ``linear`` takes slerp for it. A value between two rows is NaN where either of them is; the last
        frame holds until it leaves the screen. Raises ConfigError for a column without a time axis, or that cannot be
        had so.
        """
        spec = self.spec(name)
        if spec.clock == "clip":
            raise ConfigError(f"{name} is one value a clip: use arrays({key!r}, [{name!r}])")
        arrays = self.arrays(key, dict.fromkeys(("pts", name)))  # type: ignore[arg-type]
        clock, hold = clock_of(spec, arrays[name], arrays["pts"], self.duration_ns(key))
        try:
            return resample_column(spec, arrays[name], clock, np.asarray(times_ns, np.int64), how, hold_ns=hold)
        except ValueError as error:
            raise ConfigError(f"{name}: {error}") from error

    def span(
        self, key: str, start_ns: int, end_ns: int, columns: Sequence[str] | None = None, *, sound: bool = False
    ) -> Sample:
        """The rows of columns (all of them unless told) with start <= time < end, on their own clocks.

        Gives each column by name, ``pts`` (still from the clip's start), and ``sound`` where asked for: int16 at
        16 kHz. Columns without a time axis come whole.
        """
        names = [s.name for s in self.specs()] if columns is None else list(dict.fromkeys(["pts", *columns]))
        specs = {schema.member_name(n): self.spec(n) for n in names}
        row = self.row(key)
        data = self.read([row], [*specs, *(["flac"] if sound else [])])[0]
        arrays = self.view(row, data, specs)
        found: Sample = {"__key__": key}
        for spec in specs.values():
            values = arrays[spec.name]
            if spec.clock != "clip":
                clock, _ = clock_of(spec, values, arrays["pts"], end_ns)
                values = values[np.searchsorted(clock, start_ns) : np.searchsorted(clock, end_ns)]
            found[spec.name] = values
        if sound:
            where = f"{self.clips.column('shard')[row]}: {key}.flac"
            samples = decode_sound(where, data["flac"], self.duration_ns(key))
            found["sound"] = samples[ns_to_samples(max(start_ns, 0)) : ns_to_samples(max(end_ns, 0))]
        return found

    def __iter__(self) -> Iterator[Sample]:
        return (self.sample(key) for key in self.keys())


def clock_of(
    spec: ColumnSpec, values: np.ndarray, pts_ns: Int64[np.ndarray, " frames"], duration_ns: int
) -> tuple[Int64[np.ndarray, " rows"], tuple[int, int] | None]:
    """Times of a column's rows, and for how long the first and the last hold (None: a step of its own clock).

    The last frame is on the screen until the clip ends; before the first there is nothing.
    """
    if spec.clock == "sound":
        return sound_clock(spec, len(values)), None
    return pts_ns, (0, max(duration_ns - int(pts_ns[-1]), 0) if len(pts_ns) else 0)


def decode_sound(where: str, data: bytes, duration_ns: int) -> Int16[np.ndarray, " samples"]:
    """The samples of a clip's flac. Raises DatasetError if it cannot be decoded or does not last as long as the clip.

    A decoder that finds no frame in damaged bytes gives no samples and no error.
    """
    return sound_part(where, open_sound(where, data, duration_ns), 0)


def open_sound(where: str, data: bytes, duration_ns: int) -> FlacSamples:
    """A clip's flac, to read parts of. Raises DatasetError if it is none or does not last as long as the clip."""
    try:
        sound = FlacSamples(data)
    except Exception as error:  # decoders have many kinds
        raise DatasetError(f"{where} is damaged ({type(error).__name__}: {error}).") from error
    if abs(len(sound) - ns_to_samples(duration_ns)) > 1:
        raise DatasetError(f"{where} is damaged: {len(sound)} samples for {duration_ns / NS:.3f} s.")
    return sound


def sound_part(where: str, sound: FlacSamples, first: int, count: int = -1) -> Int16[np.ndarray, " samples"]:
    """Samples of an open flac, as `FlacSamples.get`. Raises DatasetError if they cannot be decoded."""
    try:
        return sound.get(first, count)
    except Exception as error:  # decoders have many kinds
        raise DatasetError(f"{where} is damaged ({type(error).__name__}: {error}).") from error


def decode(member: str, data: bytes) -> Any:
    """A member's value by its extension."""
    if member == "json":
        return json.loads(data)
    return from_npy(data) if member.endswith(".npy") else data


def hf_features(info: schema.DatasetInfo | SidecarInfo) -> "hf.Features":
    """Features for ``datasets.load_dataset("webdataset", ..., features=...)``, of a dataset's shards or a sidecar's.

    Without them ``datasets`` guesses: it wants torchcodec for mp4 and flac, and breaks where a value is missing first.
    """
    # Importing Hugging Face takes a second and much memory, which loader workers need not spend.
    from talkface.datasets.format.hf_features import features  # noqa: PLC0415

    return features(info)
