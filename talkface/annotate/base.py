"""The Annotator protocol, and discovery by file name.

A new annotator is one new file here: ``gaze.py`` with a class ``Annotator`` makes ``--with gaze`` work. Modules whose
name starts with an underscore are helpers and are not discovered.
"""

import difflib
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from jaxtyping import Float, Int16, UInt8
from pydantic import BaseModel, ConfigDict

from talkface import discover
from talkface.clip import Clip, ColumnSpec, FrameTable, ScoreSpec
from talkface.config import parse
from talkface.errors import ConfigError, SourceError, WeightsError
from talkface.licences import Use, require_use
from talkface.media import ClipFrames
from talkface.weights import Models, Weight

T = TypeVar("T")

Rows = Mapping[str, np.ndarray]
"""Column name to value: one row for ``frame``, whole columns for ``sound`` and ``clip``."""


class AnnotatorConfig(BaseModel):
    """Base of every annotator's configuration: strict and frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class FaceView:
    """One face in one frame, while the frame is in memory.

    ``pixels`` is the whole frame, RGB. ``box`` is x0 y0 x1 y1 in source pixels and the detector's score. ``mesh`` is
    the 478-point mesh in source pixels that the tracker followed, ``shapes`` the 52 blendshapes of the model that made
    the mesh (Apple's order, NaN where it has none); both are None where no mesh was found, ``shapes`` also where the
    model has no blendshapes. ``rows`` holds what the annotators named in ``needs`` returned for this frame.
    ``n_faces`` counts the faces in the frame.
    """

    pixels: UInt8[np.ndarray, "height width 3"]
    pts_ns: int
    box: Float[np.ndarray, " 5"]
    mesh: Float[np.ndarray, "478 3"] | None = None
    shapes: Float[np.ndarray, " 52"] | None = None
    rows: Rows = field(default_factory=dict)
    n_faces: int = 1


@dataclass(frozen=True)
class ClipView:
    """A clip that has closed: its frame columns so far, its sound (16 kHz mono), and whether its source had any.

    ``video`` is the clip's crop as it is stored, H.264; what is measured in its pictures is the same while ingesting
    and years later. It is empty where the dataset keeps no video, or the annotator does not read it.
    """

    clip: Clip
    table: FrameTable
    sound: Int16[np.ndarray, " samples"]
    has_sound: bool
    video: bytes = b""

    def pictures(self) -> Iterator[UInt8[np.ndarray, "size size 3"]]:
        """The crop of every frame, RGB, in order. ``clip.crop`` maps source pixels to its pixels."""
        return iter(ClipFrames(self.video))


@dataclass(frozen=True)
class Result:
    """Columns and scores of a whole clip. A score that has no value is NaN."""

    columns: Rows = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)


class Annotator(Protocol):
    """Turns pictures or sound into the columns and scores it declares.

    ``open`` runs once in the worker. Then, for each frame with a face, ``frame`` (if the class has it) returns one row
    for each of its frame columns; a column it leaves out is missing in that frame. When the clip closes, ``clip`` (if
    the class has it) returns the remaining columns and the scores. Neither may depend on an earlier clip, nor on the
    source's name and labels: these may be corrected when all is decoded. Columns that say what the labels say come from
    ``labelled(labels)``, which runs when shards are built.
    ``needs`` names columns that other annotators produce, ``reads`` the members that ``clip`` reads: ``flac``, ``mp4``.
    An annotator that reads ``mp4`` cannot run where no video is kept. ``weights`` lists groups of entries of the model
    registry; the first entry of a group that can be had is used. A class that imports an optional dependency names it
    in ``packages``, so that it is missed before anything is fetched; one with ``on_gpu`` computes by PyTorch, on a GPU
    where there is one.
    """

    name: str
    version: int
    columns: Sequence[ColumnSpec]
    scores: Sequence[ScoreSpec]
    needs: Sequence[str]
    reads: Sequence[str]
    weights: Sequence[Sequence[str]]
    licence: str
    Config: type[AnnotatorConfig]
    config: Any

    def __init__(self, config: Any) -> None: ...

    def open(self, models: Models) -> None: ...


def annotator_names() -> tuple[str, ...]:
    """Names of all annotators: the files of this folder, and what installed packages offer."""
    return discover.names(discover.ANNOTATORS)


def annotator_class(name: str) -> type[Annotator]:
    """The class of an annotator by its name, or by ``package.module:Class``.

    Raises ConfigError for one that is not there.
    """
    loaded: type[Annotator] = discover.load(discover.ANNOTATORS, name)
    return loaded


def failure(name: str, error: Exception) -> tuple[str, str]:
    """Reason and message of the reject of a clip that an annotator could not do."""
    reason = error.reason if isinstance(error, SourceError) else "internal_error"
    return f"{name}_{reason}", " ".join(f"{type(error).__name__}: {error}".split())


def make_annotator(name: str, settings: Mapping[str, Any]) -> Annotator:
    """An annotator with its settings, not yet opened. Raises ConfigError for an unknown name or setting."""
    cls = annotator_class(name)
    return cls(parse(cls.Config, dict(settings), where=f"annotate.{name}"))


def settled(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Settings by annotator in which ``auto`` has given way to what it is on this machine.

    All workers then do the same, and what is recorded is what was done.
    """
    made = {name: make_annotator(name, given).config for name, given in settings.items()}
    return {
        name: {key: getattr(made[name], key) if value == "auto" else value for key, value in given.items()}
        for name, given in settings.items()
    }


def left_out(name: str) -> str:
    """What makes a run go on without an annotator that was named."""
    return f"leave {name} out"


def chosen_weights(annotator: Annotator, models: Models) -> list[Weight]:
    """As ``weights_of``, for one annotator."""
    return weights_of([annotator], models)[0]


def weights_of(
    annotators: Sequence[Annotator], models: Models, how_to_leave_out: Callable[[str], str] = left_out
) -> list[list[Weight]]:
    """For each annotator, the model file that each group of alternatives comes down to here.

    Raises WeightsError with a line for each annotator that lacks one: how to get the file, and what the run can do
    without it. What cannot be had is told before anything is downloaded.
    """
    _require_files(annotators, models, how_to_leave_out)
    return of_all(annotators, lambda a: [models.choose(group)[0] for group in a.weights], how_to_leave_out)


def known_weights(annotator: Annotator, models: Models, recorded: Mapping[str, str]) -> list[Weight] | None:
    """What ``weights_of`` gives for an annotator, where the files need not be here to know it; None where they must.

    ``recorded`` are hashes, by name, of the files that it was last used with.
    """
    try:
        found = [models.known(group[0], recorded) for group in annotator.weights if len(group) == 1]
    except WeightsError:  # weights_of tells it, and what to do
        return None
    weights = [weight for weight in found if weight is not None]
    return weights if len(weights) == len(annotator.weights) else None


def of_all(
    annotators: Sequence[Annotator], find: Callable[[Annotator], T], how_to_leave_out: Callable[[str], str] = left_out
) -> list[T]:
    """What ``find`` gives for each. Raises WeightsError with a line for each that it raises one for."""
    found: list[T] = []
    lines: list[str] = []
    for annotator in annotators:
        try:
            found.append(find(annotator))
        except WeightsError as error:
            made = ", ".join([*(c.name for c in annotator.columns), *(s.name for s in annotator.scores)])
            what, how = str(error).rstrip("."), how_to_leave_out(annotator.name)
            lines.append(f"{annotator.name}: {what}. To go on without {made}, {how}.")
    if lines:
        raise WeightsError("\n".join(lines))
    return found


def require_fit(
    annotators: Sequence[Annotator], models: Models, use: Use, how_to_leave_out: Callable[[str], str] = left_out
) -> None:
    """Raise WeightsError where a model file or a package cannot be had, and ConfigError naming annotator, model file
    and licence where one of them forbids the use: a line for each annotator.

    All that is known to be refused is refused before any file is looked for. Files are fetched for ``commercial`` use
    alone: of alternatives, the terms are those of the one that is had.
    """
    require_licences(annotators, models, use, how_to_leave_out)
    of_all(annotators, _require_packages, how_to_leave_out)
    _require_files(annotators, models, how_to_leave_out)
    if use == "commercial":
        _require_use(use, annotators, weights_of(annotators, models, how_to_leave_out))


def require_licences(
    annotators: Sequence[Annotator], models: Models, use: Use, how_to_leave_out: Callable[[str], str] = left_out
) -> None:
    """The part of ``require_fit`` that takes no file: raises ConfigError for what is known to be refused."""
    if use == "commercial":
        _require_use(use, annotators, of_all(annotators, lambda a: _bound(a, models), how_to_leave_out))


def _require_files(annotators: Sequence[Annotator], models: Models, how_to_leave_out: Callable[[str], str]) -> None:
    of_all(annotators, lambda a: models.require(*a.weights), how_to_leave_out)


def _require_packages(annotator: Annotator) -> None:
    for package in getattr(annotator, "packages", ()):
        if importlib.util.find_spec(package) is None:
            raise WeightsError(f"needs the package {package}. Run: pip install 'talkface[annotate]'")


def _bound(annotator: Annotator, models: Models) -> list[Weight]:
    """Model files that forbid commercial use whichever of the alternatives is taken."""
    groups = [[models.weight(name) for name in group] for group in annotator.weights]
    return [group[0] for group in groups if not any(w.commercial for w in group)]


def _require_use(use: Use, annotators: Sequence[Annotator], weights: Sequence[Sequence[Weight]]) -> None:
    terms = {a.name: (a.licence, [w.row() for w in own]) for a, own in zip(annotators, weights, strict=True)}
    require_use(use, terms)


def in_order(names: Sequence[str]) -> list[str]:
    """``names`` and all that they need, each after what it needs; otherwise in the order given."""
    ordered: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise ConfigError(f"annotators need each other in a circle: {' -> '.join((*path, name))}")
        for column in annotator_class(name).needs:
            visit(producer(column, likely=names), (*path, name))
        if name not in ordered:
            ordered.append(name)

    for name in names:
        visit(name, ())
    return ordered


def require_scores(names: Iterable[str], *, likely: Sequence[str] = ()) -> None:
    """Raise ConfigError for a name that is no annotator's score: a threshold on it would let everything pass.

    ``likely`` names the annotators to look at first: the others, and what they import, are then left alone.
    """
    known: set[str] = set()
    for annotator in (*likely, *annotator_names()):
        if known.issuperset(names):
            return
        known |= {s.name for s in annotator_class(annotator).scores}
    for name in sorted(set(names) - known):
        near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.0)[0]
        raise ConfigError(f"build.thresholds: no score named {name!r}. Did you mean {near!r}? See docs/annotators.md.")


def producer(column: str, *, likely: Sequence[str] = ()) -> str:
    """Name of the annotator that declares ``column``; ``likely`` as for ``require_scores``."""
    for name in (*likely, *annotator_names()):
        if any(spec.name == column for spec in annotator_class(name).columns):
            return name
    raise ConfigError(f"no annotator makes the column {column!r}")
