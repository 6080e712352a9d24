"""What a metric is, what it is given, and how metrics are found: the public modules of this folder, by file name."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int16, Int64, UInt8

from talkface import discover
from talkface.weights import Models

Better = Literal["lower", "higher", "as reference"]


@dataclass(frozen=True, kw_only=True)
class Face:
    """One face over time: what is known of a clip or of generated motion.

    ``columns`` have a row a frame, missing is NaN: ``arkit`` (52), ``head`` (7: quaternion wxyz, cm), ``flame`` (59),
    ``lm68`` (68, 2: pixels of a 256 crop), and from the built-in head moved by ``arkit`` and ``head``: ``lips``
    (vertices, 3: cm) and ``rig68`` (68, 2: pixels of a picture of 256). ``sound`` is 16 kHz mono from time 0.
    ``pictures`` gives RGB frames in order, at ``picture_pts_ns``: ``pts_ns`` unless it is given. ``identity`` says who
    it is; ``scores`` are those of a dataset's clip that are known. ``lacking`` says of
    columns that are there and must not be read why.
    """

    key: str
    pts_ns: Int64[np.ndarray, " frames"]
    columns: Mapping[str, np.ndarray]
    sound: Int16[np.ndarray, " samples"] | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    pictures: Callable[[], Iterator[UInt8[np.ndarray, "height width 3"]]] | None = None
    identity: Float[np.ndarray, " k"] | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    lacking: Mapping[str, str] = field(default_factory=dict)
    picture_pts_ns: Int64[np.ndarray, " pictures"] | None = None

    def times_of_pictures(self) -> Int64[np.ndarray, " pictures"]:
        """When each of ``pictures`` is shown."""
        return self.pts_ns if self.picture_pts_ns is None else self.picture_pts_ns

    def has(self, what: str) -> bool:
        """Whether a column, a score, ``sound``, ``pictures`` or ``identity`` is there and not wholly missing."""
        if what in ("sound", "pictures", "identity"):
            return getattr(self, what) is not None
        if what in self.scores:
            return True
        return what in self.columns and bool(np.isfinite(self.columns[what]).any())


class SyncExpert(Protocol):
    """Tells whether mouth and sound belong together; a trained ``sync_expert`` is one."""

    def distance(self, face: Face, shift_ns: int) -> Float[np.ndarray, " windows"]:
        """How far mouth and sound are apart in every window, the sound taken ``shift_ns`` later."""
        ...


class FlameModel(Protocol):
    """FLAME's head: `talkface.flame.Flame` is one."""

    def on_jaw(self) -> Bool[np.ndarray, " vertices"]:
        """The vertices that the jaw carries."""
        ...

    def vertices(
        self, rows: Float[np.ndarray, "n 59"], shape: Float[np.ndarray, " 100"]
    ) -> Float[np.ndarray, "n vertices 3"]:
        """Vertices, in metres, of rows of ``flame``; NaN for rows with a gap."""
        ...


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is measured: generated faces, references as a set, and pairs of both on the generated face's clock.

    ``window`` and ``stride`` are the frames of a sampling window and by how many the windows advance. ``lacking`` says
    why ``sync_expert`` or ``flame_model`` is not there, where more can be said than that it is not.
    """

    generated: Sequence[Face]
    references: Sequence[Face] = ()
    pairs: Sequence[tuple[Face, Face]] = ()
    window: int = 32
    stride: int = 31
    sync_expert: SyncExpert | None = None
    flame_model: FlameModel | None = None
    lacking: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Value:
    """One number of a metric: unit, which way is better, what it is."""

    unit: str
    better: Better
    description: str


class Metric(Protocol):
    """Numbers from a comparison.

    ``needs`` names what every face it looks at must have (see `Face.has`), and ``pairs``, ``references``,
    ``sync_expert`` or ``flame_model``. ``describes`` is true where the numbers describe one set of faces, so that those
    of the references are worth having beside them. ``compute`` gives a float for every name in ``values``, NaN where
    there is nothing to measure.
    """

    name: str
    needs: Sequence[str]
    describes: bool
    values: Mapping[str, Value]

    def compute(self, given: Comparison) -> Mapping[str, float]: ...


@runtime_checkable
class WithWeights(Protocol):
    """A metric that looks through a network, which it owns as an annotator does: ``open`` comes before ``compute``.

    ``weights`` are groups of names of the registry, of each of which the first that can be had is used; ``settings``
    is what a reader must know of the number: crop, size, network.
    """

    weights: Sequence[Sequence[str]]
    settings: Mapping[str, Any]

    def open(self, models: Models) -> None:
        """Read the network. Raises WeightsError, which says what is missing and how to get it."""
        ...


def metric_names() -> tuple[str, ...]:
    """Names of all metrics: the files of this folder, and what installed packages offer."""
    return discover.names(discover.METRICS)


def metric(name: str) -> Metric:
    """A metric by its name, or by ``package.module:Class``. Raises ConfigError for one that is not there."""
    made: Metric = discover.load(discover.METRICS, name)()
    return made


def mean(numbers: Sequence[float] | np.ndarray) -> float:
    """Mean of what is known; NaN for nothing."""
    known = np.asarray(numbers, float)
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) > 0 else float("nan")
