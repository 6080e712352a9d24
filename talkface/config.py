"""Strict configuration: load from TOML, hash, dump. Whatever changes the bytes of an output lives here."""

import difflib
import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from talkface.errors import ConfigError


class Strict(BaseModel):
    """Base of all configuration: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of the canonical JSON."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def toml(self) -> str:
        """The configuration as TOML; ``None`` is left out."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


class Shots(Strict):
    """Shot boundaries (PySceneDetect's content detector)."""

    threshold: float = Field(27.0, gt=0, description="content change, 0..255, above which a shot ends")
    min_seconds: float = Field(0.5, ge=0, description="shots shorter than this give no clips")


class Faces(Strict):
    """Finding and following faces."""

    every_seconds: float = Field(0.5, gt=0, description="look for new faces this often")
    min_score: float = Field(0.6, ge=0, le=1, description="detector's score below which a face is not believed")
    min_pixels: int = Field(40, ge=16, description="smaller faces (longer side of the box) are ignored")
    max_gap_seconds: float = Field(0.5, ge=0, description="a face lost for longer than this ends its track")
    max_faces: int = Field(8, ge=1, description="faces followed at once, the largest first")


class Cut(Strict):
    """Tracks to clips."""

    min_seconds: float = Field(1.0, gt=0, description="shorter clips are rejected")
    max_seconds: float = Field(
        10.0,
        gt=0,
        description="longer tracks are cut, in a pause or else where it is quietest; too short an end is left on",
    )
    pause_seconds: float = Field(0.25, gt=0, description="a silence at least this long is a pause")
    crop_scale: float = Field(1.8, gt=1, description="side of the crop in sides of the face box")
    speaking: bool = Field(False, description="clips are only where their face speaks, as `speaker` finds it")
    silence_seconds: float = Field(
        0.5, ge=0, le=60, description="with `speaking`: a face may be silent for this long while nobody else speaks"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_seconds > self.max_seconds:
            raise ValueError("min_seconds is more than max_seconds")
        return self


class Video(Strict):
    """The crop's encoding."""

    size: int = Field(512, ge=64, multiple_of=2, description="side of the square crop in pixels")
    crf: int = Field(20, ge=0, le=51, description="x264's constant rate factor")
    preset: str = Field("superfast", description="x264's preset")
    keyframe_seconds: float = Field(0.5, gt=0, description="longest distance between key frames")


class Pack(Strict):
    """All that decides the bytes of a pack: one work unit's annotated clips."""

    unit_seconds: float = Field(300.0, gt=0, description="longer sources are cut into units of this length")
    annotators: tuple[str, ...] = ("box", "landmarks", "arkit", "head", "mel", "voice", "quality", "emotion")
    annotate: dict[str, dict[str, Any]] = Field(default_factory=dict, description="settings by annotator name")
    shots: Shots = Shots()
    faces: Faces = Faces()
    cut: Cut = Cut()
    video: Video = Video()
    keep_video: bool = Field(True, description="write the crop; false leaves mp4 out of every sample")

    @property
    def wanted(self) -> tuple[str, ...]:
        """The annotators, and those that other settings ask for."""
        return tuple(dict.fromkeys((*self.annotators, *self._asked)))

    def how_to_leave_out(self, name: str) -> str:
        """What makes a run go on without an annotator: its name left out, a setting that asks for it dropped."""
        ways = [f"drop {self._asked[name]}"] if name in self._asked else []
        if name in self.annotators or not ways:
            ways.append(f"leave {name} out")
        return " and ".join(ways)

    @property
    def _asked(self) -> dict[str, str]:
        """Annotators that other settings ask for, and these settings."""
        moved = self.annotate.get("sync", {}).get("fix_offset", False)
        speaking = {"speaker": "--speaking (pack.cut.speaking)"} if self.cut.speaking else {}
        return speaking | ({"sync": "--fix-offset (pack.annotate.sync.fix_offset)"} if moved else {})


class Threshold(Strict):
    """Bounds for one score; a clip outside goes to the rejects. NaN passes."""

    min: float | None = None
    max: float | None = None


class Rule(Threshold):
    """A threshold of a preset: with its reason, and the annotator whose score it bounds."""

    annotator: str
    why: str


PresetName = Literal["mead", "hdtf", "in-the-wild", "emo-stage1"]

PRESETS: Final[dict[str, dict[str, Rule]]] = {
    "mead": {
        "coverage": Rule(
            min=0.95, annotator="quality", why="a studio shows the face always; a gap is a tracker's fault"
        ),
        "faces_max": Rule(max=1, annotator="quality", why="one actor before a plain wall; more is a false face"),
        "face_pixels": Rule(min=142, annotator="quality", why="a crop of 1.8 faces then has 256 px of its own"),
        "sharpness": Rule(
            min=0.04, annotator="quality", why="as filmed 0.07 to 0.15, blurred by a 50th of the face 0.03"
        ),
        "jaw_open_range": Rule(
            min=0.05, annotator="arkit", why="an actor who speaks opens the jaw further than its noise"
        ),
        "sync_confidence": Rule(min=0.0, annotator="sync", why="log-odds: mouth and sound rather belong together"),
        "sync_offset_ms": Rule(
            min=-80, max=80, annotator="sync", why="studios are off too: 150 to 200 ms late were seen"
        ),
    },
    "hdtf": {
        "coverage": Rule(min=0.95, annotator="quality", why="talks to a camera; gaps are cuts and slides"),
        "faces_median": Rule(max=1, annotator="quality", why="one speaker; somebody may pass behind"),
        "face_pixels": Rule(min=142, annotator="quality", why="a crop of 1.8 faces then has 256 px of its own"),
        "sharpness": Rule(
            min=0.04, annotator="quality", why="as filmed 0.07 to 0.15, blurred by a 50th of the face 0.03"
        ),
        "yaw_min_degrees": Rule(
            min=-45, annotator="head", why="beyond 45 degrees the far corner of the mouth is a guess"
        ),
        "yaw_max_degrees": Rule(
            max=45, annotator="head", why="beyond 45 degrees the far corner of the mouth is a guess"
        ),
        "speech_share": Rule(
            min=0.5, annotator="voice", why="a talk with less speech than silence is applause or music"
        ),
        "jaw_open_range": Rule(min=0.05, annotator="arkit", why="sound over a still picture has a mouth that rests"),
        "sync_confidence": Rule(min=0.0, annotator="sync", why="log-odds: mouth and sound rather belong together"),
        "sync_offset_ms": Rule(
            min=-80, max=80, annotator="sync", why="two frames at 25 fps; as near as the estimate comes"
        ),
    },
    "in-the-wild": {
        "coverage": Rule(
            min=0.8, annotator="quality", why="hands and heads pass; below four fifths a track is patched"
        ),
        "face_pixels": Rule(min=100, annotator="quality", why="the mouth, two fifths of a face, still has 40 px"),
        "sharpness": Rule(
            min=0.04, annotator="quality", why="as filmed 0.07 to 0.15, blurred by a 50th of the face 0.03"
        ),
        "brightness": Rule(min=30, max=235, annotator="quality", why="beyond, shadows or skin are clipped"),
        "yaw_min_degrees": Rule(min=-60, annotator="head", why="beyond 60 degrees the mesh's far half is invented"),
        "yaw_max_degrees": Rule(max=60, annotator="head", why="beyond 60 degrees the mesh's far half is invented"),
        "speech_share": Rule(min=0.3, annotator="voice", why="pauses are fine, scenes without words teach no lips"),
        "snr_db": Rule(min=5, annotator="voice", why="with louder music than this, mel follows the music"),
        "jaw_open_range": Rule(min=0.05, annotator="arkit", why="a listener's mouth rests"),
        "sync_confidence": Rule(min=0.0, annotator="sync", why="log-odds: mouth and sound rather belong together"),
        "sync_offset_ms": Rule(
            min=-80, max=80, annotator="sync", why="two frames at 25 fps; as near as the estimate comes"
        ),
        "speaking_share": Rule(min=0.5, annotator="speaker", why="the voice must be this face's for most of the clip"),
    },
    "emo-stage1": {
        "coverage": Rule(min=0.8, annotator="quality", why="pairs of frames are drawn from those with a face"),
        "face_pixels": Rule(
            min=284, annotator="quality", why="a crop of 1.8 faces then has the 512 px of EMO's stage 1"
        ),
        "sharpness": Rule(min=0.06, annotator="quality", why="the generator learns the blur of what it is shown"),
        "brightness": Rule(min=30, max=235, annotator="quality", why="beyond, shadows or skin are clipped"),
    },
}
"""Thresholds for kinds of footage. EMO's first stage learns from pictures alone: it asks nothing of the sound."""


class Build(Strict):
    """Packs to shards: what may change without decoding anything again.

    A preset's bounds are among ``thresholds`` as soon as it is read; those that were given besides go before them.
    """

    preset: PresetName | None = Field(None, description="thresholds for a kind of footage")
    thresholds: dict[str, Threshold] = Field(
        default_factory=lambda: {"coverage": Threshold(min=0.5)}, description="bounds by score name"
    )
    shard_megabytes: float = Field(256.0, gt=0, description="a shard is closed once it holds this much")
    val: float = Field(0.05, ge=0, lt=1, description="share of identities in the validation split")
    test: float = Field(0.05, ge=0, lt=1, description="share of identities in the test split")
    licence: str = Field("unknown", description="licence of the sources, where the list does not say")

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, data: Any) -> Any:
        rules = PRESETS.get(str(data.get("preset"))) if isinstance(data, dict) else None
        if rules is None:
            return data
        bounds = {name: {"min": rule.min, "max": rule.max} for name, rule in rules.items()}
        return {**data, "thresholds": bounds | dict(data.get("thresholds", {}))}

    @model_validator(mode="after")
    def _leaves_training(self) -> Self:
        if self.val + self.test >= 1:
            raise ValueError("val and test leave nothing to train on")
        return self


class Ingest(Strict):
    """Everything ``toolkit ingest`` may be told beyond paths and workers."""

    layout: str = "auto"
    duplicates: Literal["reject", "keep"] = Field("reject", description="what happens to a source of equal content")
    pack: Pack = Pack()
    build: Build = Build()

    @classmethod
    def load(cls, path: str | Path | None) -> Self:
        """Read TOML; ``None`` gives the defaults. Raises ConfigError naming the nearest known key."""
        if path is None:
            return cls()
        try:
            data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror}). Check --config.") from error
        except ValueError as error:
            raise ConfigError(f"{path}: not TOML: {error}.") from error
        return parse(cls, data, where=str(path))


T = TypeVar("T", bound=BaseModel)


def parse(model: type[T], data: dict[str, Any], *, where: str) -> T:
    """Validate ``data``; raise ConfigError with one sentence for the first thing that is wrong."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(p) for p in first["loc"])
        if first["type"] != "extra_forbidden":
            raise ConfigError(f"{where}: {path}: {first['msg']} (got {first['input']!r}).") from None
        known = _known_keys(model, first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.0)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{where}: unknown key {path!r}.{hint} Known: {', '.join(known)}.") from None


def _known_keys(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        inner = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)
