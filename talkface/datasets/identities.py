"""Whose faces a dataset shows: tracks that are one person, by the column ``identity``."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Int64

from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError

SAME_FACE: Final = {"sface": 0.363}
"""Cosine above which two faces are one person, by model: SFace's authors', in OpenCV's tutorial on recognition."""
NOBODY: Final = -1
"""Stands for a person without a label."""


@dataclass(frozen=True)
class Faces:
    """Tracks with a face: the SHA-256 of their sources, the sources' labels, and unit vectors."""

    owners: list[str]
    labels: list[str | None]
    vectors: Float[np.ndarray, "tracks k"]

    def people(self, threshold: float, *, by_label: bool) -> list[list[int]]:
        """Tracks by person; with ``by_label``, two labels are never one person."""
        numbers = {label: i for i, label in enumerate(sorted({*self.labels} - {None}, key=str))}
        known = [numbers.get(label, NOBODY) if by_label else NOBODY for label in self.labels]
        found: dict[int, list[int]] = {}
        for track, person in enumerate(cluster(self.vectors, threshold, np.array(known, np.int64)).tolist()):
            found.setdefault(person, []).append(track)
        return list(found.values())


def has_faces(dataset: Dataset) -> bool:
    """Whether there is a column ``identity`` that may be read."""
    return any(spec.name == "identity" for spec in dataset.specs())


def same_face(dataset: Dataset, told: float | None) -> float | None:
    """Cosine above which two faces are one person: ``told``, else what is known for the model that made ``identity``;
    None for any other model."""
    if told is not None:
        return told
    record = dataset.annotators.get("identity")
    models = [weight["name"] for weight in record.weights] if record else []
    return SAME_FACE.get(models[0]) if models else None


def require_threshold(dataset: Dataset, told: float | None) -> float:
    """As `same_face`. Raises ConfigError where there is none, or one that is no cosine."""
    threshold = same_face(dataset, told)
    if threshold is None:
        raise ConfigError(
            f"{dataset.url}: above which cosine two faces are one person is not known for the model that made identity."
            " Measure it on people that you know and give it as --threshold, or say --by speaker or --by source"
        )
    if not -1 < threshold < 1:
        raise ConfigError(f"--threshold: a cosine between -1 and 1, got {threshold:g}")
    return threshold


def faces_of(dataset: Dataset) -> Faces:
    """One face a track: the mean over its clips. Reads ``identity`` alone."""
    clips = dataset.clips.select(["source_sha256", "track", "speaker"]).to_pylist()
    vectors = dataset.views(range(len(clips)), ["identity"])
    tracks: dict[tuple[str, int], list[np.ndarray]] = {}
    labels: dict[str, str | None] = {}
    for clip, view in zip(clips, vectors, strict=True):
        labels.setdefault(clip["source_sha256"], clip["speaker"])
        if np.isfinite(view["identity"]).all():
            tracks.setdefault((clip["source_sha256"], clip["track"]), []).append(view["identity"].astype(np.float64))
    owners = [sha256 for sha256, _ in tracks]
    faces = [_unit(np.mean(found, axis=0)) for found in tracks.values()]
    return Faces(owners, [labels[o] for o in owners], np.stack(faces) if faces else np.zeros((0, 1)))


def cluster(
    faces: Float[np.ndarray, "tracks k"], threshold: float, labels: Int64[np.ndarray, " tracks"]
) -> Int64[np.ndarray, " tracks"]:
    """The person of each track: average linkage of unit vectors, cut where the mean cosine is the threshold.

    A chain leads from a group to its nearest and on to that one's nearest, until two are each other's: these become
    one, which gives the same groups as joining the nearest two of all first, since no group comes nearer to another by
    joining a third (Murtagh, A survey of recent advances in hierarchical clustering algorithms, 1983). Groups with
    different labels are never joined. Time grows with the square of the tracks, memory with their number.
    """
    groups = _Groups(faces.copy(), np.ones(len(faces)), labels.copy(), np.arange(len(faces)))
    free, chain = np.ones(len(faces), bool), list[tuple[int, float]]()
    while chain or free.any():
        one, least = chain.pop() if chain else (int(free.argmax()), threshold)
        free[one] = False
        nearest, cosine = groups.nearest(one, free)
        if cosine > least:
            chain += [(one, least), (nearest, cosine)]
        elif chain:
            other, _ = chain.pop()
            groups.join(other, one)
            free[other] = True
    return groups.person


@dataclass
class _Groups:
    """Groups of tracks, each in the row of one of its tracks: sum and count of their vectors, and their label."""

    sums: Float[np.ndarray, "tracks k"]
    sizes: Float[np.ndarray, " tracks"]
    labels: Int64[np.ndarray, " tracks"]
    person: Int64[np.ndarray, " tracks"]

    def nearest(self, one: int, among: Bool[np.ndarray, " tracks"]) -> tuple[int, float]:
        """The group that one is nearest to, and their mean cosine; -inf where none may be joined.

        The mean cosine of all pairs between two groups is the product of their means.
        """
        cosines = self.sums @ (self.sums[one] / self.sizes[one]) / self.sizes
        apart = (self.labels != self.labels[one]) & (self.labels != NOBODY) & (self.labels[one] != NOBODY)
        cosines[apart | ~among] = -np.inf
        found = int(cosines.argmax())
        return found, float(cosines[found])

    def join(self, one: int, other: int) -> None:
        """``other`` becomes part of ``one``."""
        self.sums[one] += self.sums[other]
        self.sizes[one] += self.sizes[other]
        self.labels[one] = max(self.labels[one], self.labels[other])
        self.person[self.person == other] = one


def _unit(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12))
