"""What of mouth and sound goes together, in closed form: the start of the sync expert and of lip refinement.

Canonical correlation analysis (Hotelling 1936) and ridge regression need minutes of speech where networks need hours.
Recordings are often a frame or more out of sync, each by its own, and dubbed ones altogether; a model of other people
says by how much, so that what is learned is learned of sound in its place.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Bool, Float, Int64

from talkface.clip import NS, ColumnSpec
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError
from talkface.motion import steady_pts
from talkface.nets.cca import centre_taps, cepstra_of, window_taps
from talkface.train.base import Facts
from talkface.train.inputs.audio_rows import own_level, rows_around
from talkface.train.inputs.mouth import MOUTH_INDEX, SMALLEST, STEPS, lively

DIRECTIONS: Final = 12
"""Pairs of directions that are kept."""
PRINCIPAL: Final = 64
"""Principal components of wider rows among which directions are sought: 288 by 12 would need hours of speech."""
MOUTH_RIDGE: Final = 0.5
SOUND_RIDGE: Final = 0.3
"""Of the mean variance, added to every variance before directions are sought."""
LIP_RIDGE: Final = 1e4
"""Added to the variance of every input, times frames, before mouths are regressed on sound."""
LEAST_SPEECH: Final = 0.2
"""Share of speech under which a clip teaches nothing about speaking."""
LATENESS_MS: Final = np.arange(-320, 321, 20)
FARTHEST_MS: Final = 300
"""By how much the sound of a clip may be late or early and the clip still teach."""
PEAK: Final = 7
"""Steps of lateness on either side of a peak that belong to it."""
LEAST_PEAK: Final = 10.0
"""Height over the median of other latenesses of a clip that fits: weighted correlation times the root of the frames."""
FRAMES: Final = 8
"""Of the windows by which lip refinement finds a clip's lateness."""
PLACED_BY: Final = "mel"
"""Column by which a clip's lateness is found."""
MOST: Final = 1000
"""Clips, evenly spaced, that closed forms learn from; the others are only put in their place."""
FOLDS: Final = 5
ROUNDS: Final = 2


@dataclass(frozen=True)
class Take:
    """A clip's mouth, lively (`lively`), with mean and deviation of its logarithms, and its sound as cepstra at the
    level of the clip."""

    key: str
    person: str
    mouth: Float[np.ndarray, "frames 27"]
    rest: Float[np.ndarray, " 27"]
    scale: Float[np.ndarray, " 27"]
    cepstra: Float[torch.Tensor, "rows kept"]
    spec: ColumnSpec
    rate: float

    @property
    def step(self) -> float:
        """Rows of its sound from one that is looked at to the next."""
        return STEPS[self.spec.name]

    def sound(
        self, taps: Float[np.ndarray, "taps 2"], late_ms: float, times_ns: Int64[np.ndarray, " frames"] | None = None
    ) -> Float[np.ndarray, "frames width"]:
        """Cepstra around each frame or around these times, sound taken ``late_ms`` later. Each tap is the mean of two
        rows: how many rows from the frame their middle is, and half their distance."""
        at = steady_pts(len(self.mouth), self.rate) if times_ns is None else times_ns
        # Rows count from the first: the times are put as lateness from 0, where a window starts.
        times = torch.from_numpy(np.concatenate([[0], at + round(late_ms * NS / 1000)]))[None]
        around = (self.cepstra[None], self.spec.rate, self.spec.first_seconds, times)
        one, other = (rows_around(*around, (taps @ (1, side)).tolist())[:, 1:] for side in (-1, 1))
        return ((one + other) / 2)[0].flatten(1).double().numpy()


def takes_of(dataset: Dataset, column: str, rate: float, rows: Iterable[int] | None = None) -> list[Take]:
    """All clips with speech and a mouth, or those of these rows. Raises ConfigError where none has."""
    found = list(_takes(dataset, range(len(dataset)) if rows is None else rows, column, rate))
    if not found:
        raise ConfigError(f"{dataset.url}: no clip of two seconds has speech and a mouth.")
    return found


def _takes(dataset: Dataset, rows: Iterable[int], column: str, rate: float) -> Iterator[Take]:
    return (take for row in rows if (take := _take(dataset, row, column, rate)))


def _take(dataset: Dataset, row: int, column: str, rate: float) -> Take | None:
    """The clip in a row; None for one that has hardly any speech, gaps in its sound, or no mouth."""
    clip = dataset.clips.slice(row, 1).to_pylist()[0]
    if clip.get("speech_share") is not None and clip["speech_share"] < LEAST_SPEECH:
        return None
    key, spec = clip["key"], dataset.spec(column)
    sound = torch.from_numpy(dataset.arrays(key, [column])[column].astype(np.float32))
    frames = int(dataset.duration_ns(key) * rate / NS)
    if frames < 2 * rate or not bool(torch.isfinite(sound).all()):
        return None
    shapes = _filled(dataset.column(key, "arkit", steady_pts(frames, rate))[:, MOUTH_INDEX])
    if shapes is None:
        return None
    mouth, logs = lively(torch.from_numpy(shapes), None).numpy(), np.log(shapes.clip(0) + SMALLEST)
    cepstra = cepstra_of(own_level(sound[None])[0])
    return Take(key, clip.get("speaker") or clip["source"], mouth, logs.mean(0), logs.std(0), cepstra, spec, rate)


def _filled(shapes: np.ndarray) -> Float[np.ndarray, "frames 27"] | None:
    """Shapes without gaps; a shape that is never known is 0. None where half of the frames have none."""
    known = np.isfinite(shapes).any(axis=1)
    if known.mean() < 0.5:
        return None
    t = np.arange(len(shapes))
    out = np.zeros(shapes.shape)
    for column, values in enumerate(shapes.T):
        finite = np.isfinite(values)
        if finite.any():
            out[:, column] = np.interp(t, t[finite], values[finite])
    return out


@dataclass(frozen=True)
class Cca:
    """Directions of windows of mouth and of sound, and what each pair is worth: r / (1 - r^2), the slope of the
    log-likelihood ratio of two normal variables with correlation r."""

    mouth: Float[np.ndarray, "mouth_window directions"]
    sound: Float[np.ndarray, "sound_window directions"]
    gains: Float[np.ndarray, " directions"]

    def facts(self) -> Facts:
        """As plain JSON."""
        return {name: np.round(value, 7).tolist() for name, value in vars(self).items()}


def fit_cca(takes: Sequence[Take], late: Mapping[str, float], frames: int) -> Cca:
    """Of windows of ``frames`` frames, each person counting by the root of their time."""
    if takes[0].cepstra.shape[1] > PRINCIPAL:
        basis = _principal(takes)
        found = fit_cca([replace(take, cepstra=take.cepstra @ basis) for take in takes], late, frames)
        each = found.sound.reshape(-1, PRINCIPAL, found.sound.shape[1])
        return replace(found, sound=(basis.double().numpy() @ each).reshape(-1, found.sound.shape[1]))
    parts = [_sums(take, late[take.key], frames) for take in takes]
    mouth, sound, across = (np.tensordot(_weights(takes), np.stack(part), axes=1) for part in zip(*parts, strict=True))
    one, other = _cholesky(mouth, MOUTH_RIDGE), _cholesky(sound, SOUND_RIDGE)
    half = scipy.linalg.solve_triangular(one, across, lower=True)
    u, r, vt = np.linalg.svd(scipy.linalg.solve_triangular(other, half.T, lower=True).T, full_matrices=False)
    u, r, vt = u[:, :DIRECTIONS], r[:DIRECTIONS], vt[:DIRECTIONS]
    return Cca(scipy.linalg.solve_triangular(one.T, u), scipy.linalg.solve_triangular(other.T, vt.T), r / (1 - r**2))


def _principal(takes: Sequence[Take]) -> Float[torch.Tensor, "kept components"]:
    """Directions in which rows vary most, of all clips together."""
    rows = torch.cat([take.cepstra for take in takes])
    return torch.linalg.eigh(rows.T @ rows).eigenvectors.flip(1)[:, :PRINCIPAL].contiguous()


def ridge(takes: Sequence[Take], late: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Weights (cepstra of a frame, 27) of the lively mouth on the sound, and the r of each shape, mean over clips."""
    x = [_centred(take.sound(centre_taps(take.step), late[take.key])) for take in takes]
    y = [_centred(take.mouth) for take in takes]
    frames = sum(map(len, x))
    variance = sum(part.T @ part for part in x)
    scale = np.sqrt(np.diag(variance) / frames + 1e-9)
    weights = (
        np.linalg.solve(
            variance / np.outer(scale, scale) + LIP_RIDGE * np.eye(len(scale)),
            sum(a.T @ b for a, b in zip(x, y, strict=True)) / scale[:, None],
        )
        / scale[:, None]
    )
    r = [(a @ weights * b).mean(0) / ((a @ weights).std(0) * b.std(0) + 1e-3) for a, b in zip(x, y, strict=True)]
    return weights, np.mean(r, axis=0)


def lateness(
    keys: Sequence[str], facts: Facts, device: torch.device
) -> tuple[Int64[torch.Tensor, " clips"], Bool[torch.Tensor, " clips"]]:
    """By how many ns the sound of clips is late, as `in_place` found it (0 for others), and which fit nowhere."""
    late, unfit = facts.get("late", {}), frozenset(facts.get("unfit", ()))
    return (
        torch.tensor([round(late.get(key, 0.0) * NS / 1000) for key in keys], device=device),
        torch.tensor([key in unfit for key in keys], device=device),
    )


def ridge_facts(dataset: Dataset, column: str, rate: float) -> Facts:
    """What lip refinement starts from: ``ridge`` with the weights, how well each shape is told (``worth``), mean and
    deviation of the shapes' logarithms; and the sound's lateness as `lateness` reads it, which mel tells."""
    fit, about = placed_by_mel(dataset, column, rate, FRAMES)
    weights, r = ridge(fit, about["late"])
    start = {
        "weights": weights, "worth": r.clip(0.01) ** 2, "rest": np.mean([t.rest for t in fit], axis=0),
        "scale": np.mean([t.scale for t in fit], axis=0),
    }  # fmt: skip
    return {"ridge": {k: np.round(v, 7).tolist() for k, v in start.items()}, **about}


def placed_by_mel(dataset: Dataset, column: str, rate: float, frames: int) -> tuple[list[Take], Facts]:
    """The same with the sound of any column: mel says how late it is."""
    fit, about = placed(dataset, PLACED_BY, rate, frames)
    if column == PLACED_BY:
        return fit, about
    takes = (_take(dataset, dataset.row(take.key), column, rate) for take in fit)
    return [take for take in takes if take is not None], about


def placed(dataset: Dataset, column: str, rate: float, frames: int, *, clips: int = MOST) -> tuple[list[Take], Facts]:
    """The clips to learn from that fit, and as `lateness` reads it how late all clips are and which fit nowhere.

    Learned from are ``clips`` clips at most, evenly spaced; those beyond are judged by a model of all of these. Where
    nobody can be judged, all clips are taken as they are.
    """
    rows = np.unique(np.linspace(0, len(dataset) - 1, min(clips, len(dataset))).astype(int)).tolist()
    takes = takes_of(dataset, column, rate, rows)
    judged, keys = in_place(takes, frames), [take.key for take in takes]
    if judged is None:
        return takes, {"late": dict.fromkeys(keys, 0.0), "unfit": []}
    fit = [take for take in takes if take.key in judged]
    model, late = fit_cca(fit, judged, frames), dict(judged)
    for take in _takes(dataset, sorted(set(range(len(dataset))) - set(rows)), column, rate):
        late |= _judged([take], model, frames)
        keys.append(take.key)
    return fit, {"late": late, "unfit": [key for key in keys if key not in late]}


def in_place(takes: Sequence[Take], frames: int) -> dict[str, float] | None:
    """By how many ms the sound of each clip is late, judged by a model of other people; a clip that fits nowhere is
    missing. None where nobody can be judged: of fewer than four people, and of too little speech."""
    people = sorted({take.person for take in takes})
    late = {take.key: 0.0 for take in takes}
    if len(people) < 4:
        return None
    for _ in range(ROUNDS):
        judged: dict[str, float] = {}
        for fold in range(min(FOLDS, len(people))):
            out = set(people[fold :: min(FOLDS, len(people))])
            model = fit_cca([t for t in takes if t.person not in out and t.key in late], late, frames)
            judged |= _judged([t for t in takes if t.person in out], model, frames)
        if len({t.person for t in takes if t.key in judged}) < 2:
            return None
        late = judged
    return late


def _judged(takes: Sequence[Take], model: Cca, frames: int) -> dict[str, float]:
    """Lateness of the clips that fit: where the weighted correlation of both sides is highest, and stands out."""
    found = {}
    for take in takes:
        mouth = _scaled(_windows(take.mouth, frames) @ model.mouth)
        sounds = _at_every_lateness(take, model.sound, frames, len(mouth))
        heights = np.array([(mouth * _scaled(sound)).mean(0) @ model.gains for sound in sounds]) * np.sqrt(len(mouth))
        best = int(heights.argmax())
        others = heights[np.abs(np.arange(len(heights)) - best) > PEAK]
        if heights[best] - np.median(others) > LEAST_PEAK and abs(LATENESS_MS[best]) <= FARTHEST_MS:
            found[take.key] = float(LATENESS_MS[best])
    return found


def _at_every_lateness(
    take: Take, directions: np.ndarray, frames: int, count: int
) -> list[Float[np.ndarray, "windows directions"]]:
    """Projections of the sound for each of `LATENESS_MS`: all of them lie on one grid of times."""
    step = LATENESS_MS[1] - LATENESS_MS[0]
    each = max(round(1000 / take.rate / step), 1)
    times = (np.arange(each * count + len(LATENESS_MS)) * (1000 / take.rate / each) + LATENESS_MS[0]) * NS / 1000
    grid = (
        take.sound(window_taps(frames, take.spec.rate / take.rate, take.step), 0, times.round().astype(np.int64))
        @ directions
    )
    return [grid[first : first + each * count : each] for first in range(len(LATENESS_MS))]


def _sums(take: Take, late: float, frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y = _centred(_windows(take.mouth, frames)), _centred(_windows_of_sound(take, late, frames))
    return x.T @ x, y.T @ y, x.T @ y


def _windows(rows: np.ndarray, frames: int) -> Float[np.ndarray, "windows width"]:
    view = np.lib.stride_tricks.sliding_window_view(rows, frames, axis=0).swapaxes(1, 2)
    return view.reshape(len(view), -1)


def _windows_of_sound(take: Take, late: float, frames: int) -> Float[np.ndarray, "windows width"]:
    return take.sound(window_taps(frames, take.spec.rate / take.rate, take.step), late)[: len(take.mouth) - frames + 1]


def _weights(takes: Sequence[Take]) -> Float[np.ndarray, " takes"]:
    """Of the clips' sums, so that their weighted sum is a mean over frames."""
    time: dict[str, int] = defaultdict(int)
    for take in takes:
        time[take.person] += len(take.mouth)
    weights = np.array([1 / np.sqrt(time[take.person]) for take in takes])
    return np.asarray(weights / (weights @ [len(take.mouth) for take in takes]))


def _centred(rows: np.ndarray) -> np.ndarray:
    centred: np.ndarray = rows - rows.mean(axis=0)
    return centred


def _scaled(rows: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = _centred(rows) / (rows.std(axis=0) + 1e-6)
    return scaled


def _cholesky(covariance: np.ndarray, ridge_share: float) -> np.ndarray:
    much = ridge_share * np.trace(covariance) / len(covariance) + 1e-9
    return np.asarray(np.linalg.cholesky(covariance + much * np.eye(len(covariance))))
