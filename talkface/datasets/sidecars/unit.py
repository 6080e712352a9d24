"""One work unit of a sidecar: some clips of a finished dataset, read, annotated, and put into a pack."""

import gc
import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from tarfile import BLOCKSIZE
from threading import Lock
from typing import Any, Final

import cv2
import numpy as np

from talkface.annotate.base import Annotator, ClipView, Result, chosen_weights, failure, make_annotator
from talkface.clip import NS, Clip, FrameTable, Labels, Probe, Reject, Source, Timeline
from talkface.datasets.format import schema
from talkface.datasets.format.shards import ShardReader, Wanted
from talkface.datasets.reader import decode_sound
from talkface.errors import DatasetError, RunError
from talkface.made_with import made_with
from talkface.store import Folder, from_npy, npy, write_pack
from talkface.weights import Models, Weight

NO_SOUND: Final = np.zeros(0, np.int16)

SPAN: Final = ("start_ns", "end_ns", "track", "shot", "crop", "crop_size")
"""What a sample's json says of the clip itself."""

_ONE_AT_A_TIME: Final = Lock()
"""A process has one annotator, which no two threads may use: workers of a foreign cluster may have many."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is the same for all units of a run. ``config`` is the annotator's, as JSON."""

    url: str
    packs_url: str
    name: str
    config: str
    models: Models
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """A clip to annotate: its source's row, the base shard it lies in, and the members that the annotator reads."""

    key: str
    start_ns: int
    end_ns: int
    source: Mapping[str, Any]
    shard_sha256: str
    wanted: tuple[Wanted, ...]

    @property
    def seconds(self) -> float:
        """How long the clip lasts."""
        return (self.end_ns - self.start_ns) / NS


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Clips that one worker turns into one pack."""

    name: str
    tasks: tuple[Task, ...]

    @property
    def seconds(self) -> float:
        """How long the clips last."""
        return sum(t.seconds for t in self.tasks)


@dataclass(frozen=True, kw_only=True)
class UnitReport:
    """What a unit cost in CPU seconds, and what came to nothing.

    ``rejects`` are clips that the annotator failed on, ``damaged`` what could not be read of the base.
    """

    cpu: float
    rejects: tuple[Reject, ...]
    damaged: tuple[str, ...]


def fingerprint_of(annotator: Annotator, weights: Sequence[Weight]) -> str:
    """What a result depends on besides the clip: the annotator's version and settings, and its weights."""
    config = annotator.config.model_dump(mode="json")
    parts = [annotator.name, annotator.version, config, [w.sha256 for w in weights]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


@lru_cache(maxsize=1)
def _opened(name: str, config: str, models: Models, fingerprint: str) -> Annotator:
    annotator = make_annotator(name, json.loads(config))
    if fingerprint_of(annotator, chosen_weights(annotator, models)) != fingerprint:
        raise RunError("a worker has other model files or another talkface than the run. Give all of them the same.")
    cv2.setNumThreads(1)
    annotator.open(models)
    if "torch" in sys.modules:  # not all annotators need it
        sys.modules["torch"].set_num_threads(1)
    return annotator


@lru_cache(maxsize=1)
def _reader(url: str) -> ShardReader:
    return ShardReader(url, gap=BLOCKSIZE - 1)  # sound without the pictures before it


def release() -> None:
    """Let go of this process's annotator and open files."""
    _opened.cache_clear()
    _reader.cache_clear()


def process(settings: Settings, unit: Unit) -> UnitReport:
    """Turn a unit into a finished pack of the clips that could be annotated. Raises RunError when the disk is full."""
    with _ONE_AT_A_TIME:
        started = time.process_time()
        annotator = _opened(settings.name, settings.config, settings.models, settings.fingerprint)
        about: dict[str, Any] = {"fingerprint": settings.fingerprint, "clips": [], "made_with": made_with([annotator])}
        rejects: list[Reject] = []
        damaged: list[str] = []
        with write_pack(Folder(settings.packs_url), unit.name, about) as pack:
            for task in unit.tasks:
                try:
                    members = read_task(_reader(settings.url), task)
                    result = annotate(annotator, task, members)
                except DatasetError as error:
                    damaged.append(str(error))
                except RunError:
                    raise
                except Exception as error:  # whatever an annotator or a decoder may raise costs this clip alone
                    rejects.append(reject_of(task, *failure(settings.name, error)))
                else:
                    content = content_of(task, members, reads_labels=hasattr(annotator, "labelled"))
                    about["clips"].append(_record(task, content, result))
                    pack.add(task.key, {schema.member_name(n): npy(v) for n, v in result.columns.items()})
        gc.collect()
        return UnitReport(cpu=time.process_time() - started, rejects=tuple(rejects), damaged=tuple(damaged))


def read_task(reader: ShardReader, task: Task) -> dict[str, bytes]:
    """The members that a task names. Raises DatasetError naming shard and member."""
    found: dict[str, bytes] = {}
    for wanted, data in zip(task.wanted, reader.read(task.wanted), strict=True):
        if isinstance(data, DatasetError):
            raise data
        found[wanted.member] = data
    return found


def annotate(annotator: Annotator, task: Task, members: Mapping[str, bytes]) -> Result:
    """The columns to store, checked, and the scores of one clip.

    Raises DatasetError for sound that does not decode, and whatever the annotator raises.
    """
    facts, timeline = json.loads(members["json"]), Timeline(from_npy(members["pts.npy"]))
    clip = Clip(
        key=task.key,
        source=source_of(task.source),
        start_ns=facts["start_ns"],
        end_ns=facts["end_ns"],
        track=facts["track"],
        shot=facts["shot"],
        crop=np.array(facts["crop"]),
        crop_size=facts["crop_size"],
    )
    table = FrameTable(timeline, {name: from_npy(members[schema.member_name(name)]) for name in annotator.needs})
    sound = _sound(task, members, clip.end_ns - clip.start_ns)
    has_sound = task.source["audio_codec"] is not None
    result: Result = annotator.clip(  # type: ignore[attr-defined]
        ClipView(clip, table, sound, has_sound, members.get("mp4", b""))
    )
    stored = [spec for spec in annotator.columns if spec.stored]
    for spec in stored:
        spec.check(result.columns[spec.name], frames=len(timeline))
    return Result({spec.name: result.columns[spec.name] for spec in stored}, result.scores)


def _sound(task: Task, members: Mapping[str, bytes], duration_ns: int) -> np.ndarray:
    if "flac" not in members:
        return NO_SOUND
    shard = next(w.shard for w in task.wanted if w.member == "flac")
    return decode_sound(f"{shard}: {task.key}.flac", members["flac"], duration_ns)


def source_of(row: Mapping[str, Any]) -> Source:
    """The source that a row of sources.parquet describes."""
    labels, probe = ({f.name: row[f.name] for f in fields(kind)} for kind in (Labels, Probe))
    own = {f.name: row[f.name] for f in fields(Source) if f.name not in ("labels", "probe", "recording")}
    recording = tuple(row.get("recording") or ())  # datasets made before there were any lack it
    return Source(**own, labels=Labels(**labels), probe=Probe(**probe), recording=recording)


def content_of(task: Task, members: Mapping[str, bytes], *, reads_labels: bool) -> str:
    """What a clip's result depends on besides the annotator: all that is read of the clip and of its source.

    Names and labels are corrected now and then; only an annotator that says what they say reads these.
    """
    facts = json.loads(members["json"])
    source = source_of(task.source)
    parts = [[facts[name] for name in SPAN], source.sha256, asdict(source.probe) if source.probe else None]
    labels = asdict(source.labels) if reads_labels else None
    digest = hashlib.sha256(json.dumps([*parts, labels], sort_keys=True).encode())
    for member in sorted(members.keys() - {"json"}):
        digest.update(f"\n{member} {len(members[member])}\n".encode())
        digest.update(members[member])
    return digest.hexdigest()


def _record(task: Task, content: str, result: Result) -> dict[str, Any]:
    scores = {name: float(value) if np.isfinite(value) else None for name, value in result.scores.items()}
    return {"key": task.key, "shard_sha256": task.shard_sha256, "content": content, "scores": scores}


def reject_of(task: Task, reason: str, message: str) -> Reject:
    """The row of rejects.parquet that says why a sidecar has nothing for a clip."""
    return Reject(
        stage="annotate",
        reason=reason,
        source=task.source["name"],
        key=task.key,
        start_ns=task.start_ns,
        end_ns=task.end_ns,
        message=message,
    )


def units_of(tasks: Sequence[Task], fingerprint: str, seconds: float) -> list[Unit]:
    """Neighbouring clips of a shard, together at least ``seconds`` long. Equal names mean equal packs."""
    units: list[Unit] = []
    group: list[Task] = []
    for i, task in enumerate(tasks):
        group.append(task)
        last = i + 1 == len(tasks) or tasks[i + 1].wanted[0].shard != task.wanted[0].shard
        if last or sum(t.seconds for t in group) >= seconds:
            units.append(Unit(name=_unit_name(group, fingerprint), tasks=tuple(group)))
            group = []
    return units


def _unit_name(tasks: Sequence[Task], fingerprint: str) -> str:
    parts = [fingerprint, *([t.key, t.shard_sha256] for t in tasks)]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    return f"{tasks[0].wanted[0].shard.removesuffix('.tar').replace('/', '-')}-{digest}"
