"""One work unit from file to pack: the one place that orders the stages."""

import gc
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from io import BytesIO
from threading import Lock
from typing import Any, Final

import cv2
import numpy as np

from talkface.annotate.base import (
    Annotator,
    ClipView,
    FaceView,
    Result,
    Rows,
    annotator_class,
    annotator_names,
    failure,
    in_order,
    make_annotator,
    weights_of,
)
from talkface.annotate.landmarks import FaceMesh
from talkface.annotate.sync import SHIFT
from talkface.annotate.voice import Voice
from talkface.clip import NS, Clip, ColumnSpec, FrameTable, Reject, Timeline, finite_rows
from talkface.config import Pack, Video
from talkface.errors import ConfigError, RunError, SourceError, StorageError
from talkface.ingest.cut import CutClip, Cutter
from talkface.ingest.faces import DETECTORS, Detector, Face, Tracker
from talkface.ingest.inputs import READ_AGAIN_SECONDS, content_of
from talkface.ingest.shots import ShotCutter
from talkface.ingest.speaking import SPEAKER, SpeakingCutter, uncoded
from talkface.ingest.unit import Settings, Stopwatch, Unit, UnitReport
from talkface.made_with import made_with
from talkface.media import Frame, Sound, VideoReader, VideoWriter, encode_flac, read_sound
from talkface.speech.loudness import loudness
from talkface.speech.turns import claims
from talkface.store import Folder, npy, write_pack
from talkface.vocab import SAMPLE_RATE
from talkface.weights import Models, Weight

PACK_VERSION: Final = 7
"""Part of every pack's name: raise it when the same configuration gives other bytes."""


_ONE_AT_A_TIME: Final = Lock()
"""A process has one set of tools, whose models no two threads may use: workers of a foreign cluster may have many."""


@dataclass(frozen=True)
class Tools:
    """What a worker opens once: models and annotators, none of which remembers a clip.

    Annotators that say what the labels say are not among them: they run when shards are built.
    """

    detector: Detector
    mesh: FaceMesh
    voice: Voice
    annotators: tuple[Annotator, ...]


@lru_cache(maxsize=1)
def _tools(pack_json: str, models: Models, fingerprint: str) -> Tools:
    pack = Pack.model_validate_json(pack_json)
    if settings_fingerprint(pack, models) != fingerprint:
        raise RunError("a worker has other model files or another talkface than the run. Give all of them the same.")
    cv2.setNumThreads(1)
    weight, path = models.choose(FaceMesh.weights)
    annotators = tuple(a for a in make_annotators(pack) if not hasattr(a, "labelled"))
    for annotator in annotators:
        annotator.open(models)
    if "torch" in sys.modules:  # none of the annotators that run by default needs it
        sys.modules["torch"].set_num_threads(1)
    detector_weight, detector_path = models.choose(DETECTORS)
    tools = Tools(
        Detector(detector_weight.name, detector_path, pack.faces),
        FaceMesh(path if weight.name == "face_landmarker" else None),
        Voice(models.get("silero_vad")),
        annotators,
    )
    gc.collect()
    gc.freeze()  # what lives as long as the process is not looked through after each unit
    return tools


def make_annotators(pack: Pack) -> tuple[Annotator, ...]:
    """The configured annotators, each after what it needs, not yet opened.

    Raises ConfigError for an unknown name or setting.
    """
    if unknown := sorted(set(pack.annotate) - set(annotator_names())):
        raise ConfigError(f"annotate: no annotator named {unknown[0]!r}; there are: {', '.join(annotator_names())}")
    made = []
    for name in in_order(pack.wanted):
        cls = annotator_class(name)
        if "mp4" in cls.reads and not pack.keep_video:
            raise ConfigError(f"{name} looks at the clips' pictures, and --no-video keeps none. Leave out one of them.")
        made.append(make_annotator(name, pack.annotate.get(name, {})))
    return tuple(made)


def face_rows(
    annotators: Sequence[Annotator], pixels: np.ndarray, pts_ns: int, face: Face, n_faces: int
) -> dict[str, np.ndarray]:
    """What the annotators that see frames say of one face in a frame: a row of each of their columns."""
    rows: dict[str, np.ndarray] = {}
    for annotator in annotators:
        if hasattr(annotator, "frame"):
            rows |= annotator.frame(FaceView(pixels, pts_ns, face.box, face.mesh, face.shapes, rows, n_faces))
    return rows


def settings_fingerprint(pack: Pack, models: Models) -> str:
    """What a pack depends on besides its source: configuration, code versions, weights."""
    annotators, leave_out = make_annotators(pack), pack.how_to_leave_out
    parts = [PACK_VERSION, pack.hash(), [w.sha256 for w in detector_weights(models)]]
    chosen = weights_of(annotators, models, leave_out)
    parts += [[a.name, a.version, [w.sha256 for w in own]] for a, own in zip(annotators, chosen, strict=True)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def detector_weights(models: Models) -> list[Weight]:
    """The face detector's file."""
    return [models.choose(DETECTORS)[0]]


def release() -> None:
    """Let go of this process's models while the interpreter is whole: some hold threads that must end first."""
    _tools.cache_clear()


def process(settings: Settings, unit: Unit) -> UnitReport:
    """Turn a unit into a finished pack. A source that cannot be decoded ends as a reject inside its pack.

    Raises RunError when the disk is full, StorageError if the source could not be read again and again, and is not
    known to be damaged: its content cannot be read either, or is not what it was.
    """
    with _ONE_AT_A_TIME:
        report = _process(settings, unit)
        gc.collect()  # a unit's decoder and pictures may lie in reference cycles, whose size Python does not see
        return report


def _process(settings: Settings, unit: Unit) -> UnitReport:
    tools = _tools(settings.pack.model_dump_json(), settings.models, settings.fingerprint)
    for seconds in READ_AGAIN_SECONDS:
        try:
            return _written(settings, _UnitWork(settings.pack, unit, tools))
        except StorageError:
            time.sleep(seconds)
    return _written(settings, _UnitWork(settings.pack, unit, tools, last_try=True))


def _written(settings: Settings, work: "_UnitWork") -> UnitReport:
    unit = work.unit
    about: dict[str, Any] = {"clips": [], "rejects": [], "mesh": work.tools.mesh.runtime}
    about["libraries"] = made_with(work.tools.annotators)
    with write_pack(Folder(settings.packs_url), unit.name, about) as pack:
        for record, members in work.samples():
            about["clips"].append(record)
            pack.add(record["key"], members)
        about["rejects"] = [r.row() | {"source": ""} for r in work.rejects]  # its name is known when shards are built
        about["failed"] = len(work.failed)
    return UnitReport(
        cpu=dict(work.clock.cpu), frames=work.frames, clips=len(about["clips"]), failed=tuple(work.failed)
    )


class _UnitWork:
    """The stages of one unit, and what they count."""

    def __init__(self, pack: Pack, unit: Unit, tools: Tools, *, last_try: bool = False) -> None:
        self.pack, self.unit, self.tools, self.last_try = pack, unit, tools, last_try
        self.clock = Stopwatch()
        self.rejects: list[Reject] = []
        self.failed: list[str] = []
        self.frames = self.broken_packets = self.bad_timestamps = 0

    def samples(self) -> Iterator[tuple[dict[str, Any], dict[str, bytes]]]:
        """Record and members of each clip, in the order in which clips close."""
        try:
            sound = self._sound()
            for cut in self._cuts(sound):
                try:
                    sample = self._sample(cut, sound)
                except _ClipError as error:
                    self._fail(cut, error)
                else:
                    yield sample
        except SourceError as error:
            self._blame(error)
        self._count("broken_packets", self.broken_packets, "packets could not be decoded; their frames are left out")
        self._count("bad_timestamps", self.bad_timestamps, "frames had no time, or one that does not rise")
        if not self.frames and not self.rejects:
            self._reject("decode", "no_frames", "no frame could be decoded in this span")

    def _fail(self, cut: CutClip, error: "_ClipError") -> None:
        source = self.unit.source.name
        self.rejects.append(
            Reject(
                stage="annotate",
                reason=error.reason,
                source=source,
                message=str(error),
                start_ns=cut.start_ns,
                end_ns=cut.end_ns,
            )
        )
        self.failed.append(f"{source}: {error.reason}: {error}")

    def _blame(self, error: SourceError) -> None:
        """A reject, if it is the file's fault: it can be read, and holds what it held. Raises StorageError if not."""
        source = self.unit.source
        if isinstance(error, StorageError) and not self.last_try:
            raise error
        try:
            sha256, _ = content_of(source.files)
        except SourceError as again:
            raise StorageError(str(again)) from error
        if sha256 != source.sha256:
            raise StorageError(f"{source.uri}: it has changed during the run. Leave it alone and run this again.")
        message = str(error)
        for uri in source.files:  # the same file gives the same pack wherever it lies
            message = message.removeprefix(f"{uri}: ")
        self._reject("decode", "unreadable" if isinstance(error, StorageError) else error.reason, message)

    def _reject(self, stage: str, reason: str, message: str, value: float | None = None) -> None:
        unit = self.unit
        self.rejects.append(
            Reject(
                stage=stage,
                reason=reason,
                source=unit.source.name,
                message=message,
                start_ns=unit.start_ns,
                end_ns=unit.end_ns,
                value=value,
            )
        )

    def _count(self, reason: str, count: int, what: str) -> None:
        if count:
            self._reject("decode", reason, f"{count} {what}", float(count))

    def _sound(self) -> Sound:
        source, unit = self.unit.source, self.unit
        # A second more than the unit: its last frame stays on screen beyond the end, headers may understate.
        end_ns = unit.start_ns + round((unit.seconds + 1) * NS)
        with self.clock("sound"):
            if source.audio_uri is not None:
                return read_sound(source.audio_uri, unit.start_ns, end_ns, clock_of=source.uri)
            return read_sound(source.uri, unit.start_ns, end_ns)

    def _cuts(self, sound: Sound) -> Iterator[CutClip]:
        """Decode, find shots, follow faces, annotate frames, and hand over each clip as it closes."""
        with self.clock("voice"):
            pauses = [(a + sound.start_ns, b + sound.start_ns) for a, b in self.tools.voice.pauses(sound.samples)]
        shots = ShotCutter(self.pack.shots)
        tracker = Tracker(self.tools.detector, self.tools.mesh, self.pack.faces, self.clock)
        cutter = self._cutter(sound, pauses)
        with VideoReader(self.unit.source.uri, start_ns=self.unit.start_ns, end_ns=self.unit.end_ns) as reader:
            for frame in self._decoded(reader):
                with self.clock("shots"):
                    new_shot = shots.push(frame.rgb, frame.pts_ns)
                faces = tracker.push(frame.rgb, frame.pts_ns, new_shot)
                with self.clock("annotate"):
                    seen = (frame.rgb, frame.pts_ns)
                    rows = [face_rows(self.tools.annotators, *seen, face, len(faces)) for face in faces]
                with self.clock("crop"):
                    closed = cutter.push(frame, faces, rows, new_shot)
                yield from closed
            yield from cutter.close(reader.frame_duration_ns)
        self.broken_packets, self.bad_timestamps = reader.broken_packets, reader.bad_timestamps
        self.rejects += cutter.rejects

    def _cutter(self, sound: Sound, pauses: Sequence[tuple[int, int]]) -> Cutter | SpeakingCutter:
        name, loud = self.unit.source.name, partial(loudness, sound.samples, sound.start_ns)
        cutter = Cutter(self.pack, pauses, source=name, loudness=loud)
        if not self.pack.cut.speaking:
            return cutter
        return SpeakingCutter(cutter, self.pack.cut, partial(self._claims, sound), loud, source=name)

    def _claims(self, sound: Sound, cut: CutClip) -> np.ndarray:
        """How strong a clip's face's claim to each frame is; NaN where that cannot be told."""
        speaker = next(a for a in self.tools.annotators if a.name == SPEAKER)
        with self.clock("annotate"):
            try:
                part = sound.between(cut.start_ns, cut.end_ns)
                view = uncoded(self._clip(cut), cut, self._framed(cut.rows), part)
                found = _result(speaker, view, len(cut.pts_ns)).columns
                return claims(found["talk"], found["lip_motion"])
            except _ClipError as error:
                self._fail(cut, error)
                return np.full(len(cut.pts_ns), np.nan, np.float32)

    def _clip(self, cut: CutClip) -> Clip:
        return Clip(
            key=f"{cut.start_ns // 1_000_000:08d}-{cut.track:02d}",
            source=self.unit.source,
            start_ns=cut.start_ns,
            end_ns=cut.end_ns,
            track=cut.track,
            shot=cut.shot,
            crop=cut.crop,
            crop_size=self.pack.video.size,
        )

    def _decoded(self, reader: VideoReader) -> Iterator[Frame]:
        frames = iter(reader)
        while True:
            try:
                with self.clock("decode"):
                    frame = next(frames, None)
            except SourceError as error:  # what was seen until then still becomes clips
                self._blame(error)
                return
            if frame is None:
                return
            self.frames += 1
            yield frame

    def _sample(self, cut: CutClip, sound: Sound) -> tuple[dict[str, Any], dict[str, bytes]]:
        part, clip = sound.between(cut.start_ns, cut.end_ns), self._clip(cut)
        timeline = Timeline(cut.pts_ns - cut.start_ns)
        video = self._encode(cut, timeline) if self.pack.keep_video else b""
        with self.clock("annotate"):
            annotated = self._annotate(clip, timeline, cut.rows, part, video)
            if shift_ns := round(annotated.scores.get(SHIFT, 0.0) * 1_000_000):
                part = sound.between(cut.start_ns + shift_ns, cut.end_ns + shift_ns)
                annotated = self._annotate(clip, timeline, cut.rows, part, video)
                annotated.scores[SHIFT] = shift_ns / 1_000_000
        members = {
            "flac": encode_flac(part.samples),
            "pts.npy": npy(timeline.pts_ns),
            "valid.npy": npy(annotated.table.valid()),
        }
        members |= {f"{name}.npy": npy(value) for name, value in annotated.stored.items()}
        if self.pack.keep_video:
            members["mp4"] = video
        return self._record(clip, timeline, part, annotated), members

    @property
    def _specs(self) -> list[ColumnSpec]:
        return [spec for annotator in self.tools.annotators for spec in annotator.columns]

    def _framed(self, rows: Sequence[Rows]) -> dict[str, np.ndarray]:
        """The columns on the frames' clock that are known frame by frame; the others' are NaN still."""
        return {spec.name: _stack(spec, rows) for spec in self._specs if spec.clock == "frame"}

    def _annotate(
        self, clip: Clip, timeline: Timeline, rows: Sequence[Rows], sound: Sound, video: bytes
    ) -> "_Annotated":
        framed = self._framed(rows)
        others: dict[str, np.ndarray] = {}
        scores: dict[str, float] = {}
        for annotator in self.tools.annotators:
            if not hasattr(annotator, "clip"):
                continue
            view = ClipView(clip, FrameTable(timeline, framed), sound.samples, sound.present, video)
            result = _result(annotator, view, len(timeline))
            for spec in annotator.columns:
                if spec.name in result.columns:
                    (framed if spec.clock == "frame" else others)[spec.name] = result.columns[spec.name]
            scores |= result.scores
        columns = framed | others
        stored = {spec.name: columns[spec.name] for spec in self._specs if spec.stored}
        return _Annotated(
            table=FrameTable(timeline, {n: c for n, c in framed.items() if n in stored}),
            stored=stored,
            scores=scores,
            share={a.name: _share(a, framed, sound) for a in self.tools.annotators},
        )

    def _encode(self, cut: CutClip, timeline: Timeline) -> bytes:
        video: Video = self.pack.video
        buffer = BytesIO()
        writer = VideoWriter(
            buffer, video.size, video.size, crf=video.crf, preset=video.preset, keyframe_seconds=video.keyframe_seconds
        )
        with self.clock("encode"), writer:
            for crop, pts_ns in zip(cut.crops(), timeline.pts_ns, strict=True):
                writer.write(crop, int(pts_ns))
        return buffer.getvalue()

    def _record(self, clip: Clip, timeline: Timeline, sound: Sound, annotated: "_Annotated") -> dict[str, Any]:
        """A clip's facts for the manifests and its ``json`` member. A score without a value is None."""
        return {
            "key": clip.key,
            "track": clip.track,
            "shot": clip.shot,
            "start_ns": clip.start_ns,
            "end_ns": clip.end_ns,
            "duration": (clip.end_ns - clip.start_ns) / NS,
            "frames": len(timeline),
            "fps_avg": timeline.fps,
            "is_vfr": timeline.is_variable,
            "av_offset_ms": _known(sound.start_offset_ms),
            "av_drift_ms": sound.drift_ms,
            "sound_filled_seconds": sound.filled_seconds,
            "sound_dropped_seconds": sound.dropped_seconds,
            "crop": clip.crop.tolist(),
            "crop_size": clip.crop_size,
            "scores": {name: _known(value) for name, value in annotated.scores.items()},
            "share": annotated.share,
            "status": {a.name: _status(a, annotated.share[a.name], sound) for a in self.tools.annotators},
        }


class _ClipError(Exception):
    """An annotator could not do a clip."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def _result(annotator: Any, view: ClipView, frames: int) -> Result:
    """Whatever is wrong with an annotator's result costs its clip alone; a full disk or memory is not its fault."""
    try:
        result: Result = annotator.clip(view)
        for spec in annotator.columns:
            if spec.clock != "frame" or spec.name in result.columns:  # else `_stack` has made it of the frames' rows
                spec.check(result.columns[spec.name], frames=frames)
    except (RunError, MemoryError):
        raise
    except Exception as error:
        raise _ClipError(*failure(annotator.name, error)) from error
    return result


@dataclass(frozen=True, kw_only=True)
class _Annotated:
    """What annotators made of a clip: the frame columns to store, all columns to store, scores.

    ``share`` says for each annotator in how much of the clip it had what it needs, a face or sound.
    """

    table: FrameTable
    stored: dict[str, np.ndarray]
    scores: dict[str, float]
    share: dict[str, float]


def _share(annotator: Annotator, framed: Mapping[str, np.ndarray], sound: Sound) -> float:
    """Share of the frames in which an annotator has a value, or of the time in which there was sound for it."""
    rows = [finite_rows(framed[s.name]) for s in annotator.columns if s.name in framed and framed[s.name].size]
    seen = float(np.any(rows, axis=0).mean()) if rows else 1.0
    return min(seen, _heard(sound)) if "flac" in annotator.reads else seen


def _heard(sound: Sound) -> float:
    seconds = len(sound.samples) / SAMPLE_RATE
    return 1.0 - min(1.0, sound.filled_seconds / seconds) if seconds and sound.present else 0.0


def _status(annotator: Annotator, share: float, sound: Sound) -> str:
    """``ok``; ``partial``: something was missing in a part of the clip; ``no_sound`` and ``no_face``: in all of it."""
    if "flac" in annotator.reads and not _heard(sound):
        return "no_sound"
    return "ok" if share == 1 else "partial" if share else "no_face"


def _known(value: float) -> float | None:
    """A number for JSON: None stands for NaN."""
    return float(value) if np.isfinite(value) else None


def _stack(spec: ColumnSpec, rows: Sequence[Rows]) -> np.ndarray:
    """One column from its rows; a row that is missing is NaN."""
    column = np.full((len(rows), *spec.shape), np.nan, spec.dtype)
    for i, row in enumerate(rows):
        if spec.name in row:
            column[i] = row[spec.name]
    return column
