"""Strict configuration: load from TOML, hash, dump. Whatever changes the bytes of an output lives here."""

import difflib
import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

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
    max_seconds: float = Field(10.0, gt=0, description="longer tracks are cut, in a pause where there is one")
    pause_seconds: float = Field(0.25, gt=0, description="a silence at least this long is a pause")
    crop_scale: float = Field(1.8, gt=1, description="side of the crop in sides of the face box")

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


class Threshold(Strict):
    """Bounds for one score; a clip outside goes to the rejects. NaN passes."""

    min: float | None = None
    max: float | None = None


class Build(Strict):
    """Packs to shards: what may change without decoding anything again."""

    thresholds: dict[str, Threshold] = Field(
        default_factory=lambda: {"coverage": Threshold(min=0.5)}, description="bounds by score name"
    )
    shard_megabytes: float = Field(256.0, gt=0, description="a shard is closed once it holds this much")
    val: float = Field(0.05, ge=0, lt=1, description="share of identities in the validation split")
    test: float = Field(0.05, ge=0, lt=1, description="share of identities in the test split")
    licence: str = Field("unknown", description="licence of the sources, where the list does not say")

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
