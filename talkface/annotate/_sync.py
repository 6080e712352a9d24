"""Do mouth and sound belong together, and how far apart are they: our own linear model, in NumPy.

Canonical correlation analysis (Hotelling 1936) finds directions in windows of mouth shapes and in windows of log-mel
whose projections correlate as much as can be over many people. At each lag the projections of a clip are correlated
again; the curve of these correlations, weighted by what each direction is worth, peaks at the offset. Trained by
scripts/train_sync.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

import numpy as np
import scipy.fft
import scipy.linalg
from jaxtyping import Float, Int64

from talkface.annotate.head import procrustes, reference_face
from talkface.clip import NS

HZ: Final = 40
"""Rows a second of both sides: a row is two of mel."""
LAGS: Final = np.arange(-HZ, HZ + 1)
"""Offsets that are tried, in rows: up to a second either way."""
SHORTEST: Final = 1.5
"""Seconds under which nothing is said."""
PEAK: Final = 6
"""Rows on either side of a peak that belong to it."""

MOUTH: Final = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409,  # outer lips
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415,  # inner lips
    152, 148, 377, 176, 400, 172, 397, 205, 425, 200, 199,  # chin, jaw and cheeks
)  # fmt: skip
"""Points of the mesh that move when somebody speaks."""

MOUTH_TAPS: Final = (-6, -4, -2, 0, 2, 4, 6)
MEL_TAPS: Final = (-8, -6, -4, -2, 0, 2, 4, 6, 8)
"""Rows of a window, from its middle."""
SHAPES: Final = 12
"""Principal components of the mouth, and pairs of directions."""
CEPSTRA: Final = 24
"""Coefficients kept of a mel row's cosine transform: its envelope, without the voice's pitch."""
RIDGE: Final = 0.1
"""Of the mean variance, added to every variance before directions are sought."""

Rows = Float[np.ndarray, "rows _"]


@dataclass(frozen=True)
class Model:
    """``basis`` takes mouth points to principal components, ``mouth`` and ``mel`` windows to canonical directions,
    whose weights are ``gains``. ``odds`` are the coefficients of ln z, ln height and 1 in the log-odds that picture and
    sound belong together.
    """

    basis: Float[np.ndarray, "points3 shapes"]
    mouth: Float[np.ndarray, "mouth_window directions"]
    mel: Float[np.ndarray, "mel_window directions"]
    gains: Float[np.ndarray, " directions"]
    odds: Float[np.ndarray, " 3"]

    def confidence(self, offset: "Offset") -> float:
        """Log-odds that a clip with this peak has its own sound."""
        return float(self.odds @ evidence(offset))


@dataclass(frozen=True)
class Offset:
    """``ms`` is positive where the sound is late. ``height`` is the peak's over the median of the other lags times the
    clip's rows, ``z`` the same in deviations of the other lags, ``margin`` the part of it by which the peak stands
    above the second best.
    """

    ms: float
    height: float
    z: float
    margin: float


def mouth_rows(
    meshes: Float[np.ndarray, "frames 478 3"], pts_ns: Int64[np.ndarray, " frames"], n_rows: int
) -> Float[np.ndarray, "rows points3"] | None:
    """Points of the mouth in cm on the upright reference face, less their median, at ``HZ`` rows a second.

    Frames without a mesh are bridged; None where half of them have none.
    """
    seen = np.isfinite(meshes).all(axis=(1, 2))
    if seen.mean() <= 0.5:
        return None
    points, steadiness = reference_face()
    upright = meshes[seen].astype(np.float64) * (1, -1, -1)
    scale, rotation, translation = procrustes(points, upright, steadiness)
    front = (upright[:, MOUTH] - translation[:, None]) @ rotation / scale[:, None, None]
    flat = front.reshape(len(front), -1)
    times, clock = np.arange(n_rows) / HZ, pts_ns[seen] / NS
    rows = np.stack([np.interp(times, clock, column) for column in flat.T], axis=1)
    return np.asarray(rows - np.median(rows, axis=0))


def mel_rows(mel: Float[np.ndarray, "mel_rows 80"]) -> Rows:
    """Log-mel (80 rows a second) at ``HZ`` rows a second, each band at mean 0 and like deviation, as cepstra."""
    n = len(mel) // 2
    pairs = mel[: 2 * n].astype(np.float64).reshape(n, 2, -1).mean(axis=1)
    even = (pairs - pairs.mean(axis=0)) / (pairs.std(axis=0) + 0.3)
    return np.asarray(scipy.fft.dct(even, axis=1, norm="ortho")[:, :CEPSTRA])


def projections(
    model: Model, mouth: Float[np.ndarray, "rows points3"], mel: Rows
) -> tuple[Float[np.ndarray, "rows directions"], Float[np.ndarray, "mel_rows directions"]]:
    """Both sides on the canonical directions, with mean 0 and variance 1 over the clip."""
    return _scaled(_mouth_windows(mouth @ model.basis) @ model.mouth), _scaled(windows(mel, MEL_TAPS) @ model.mel)


def curve(
    mouth: Float[np.ndarray, "rows directions"],
    mel: Float[np.ndarray, "mel_rows directions"],
    gains: Float[np.ndarray, " directions"],
) -> Float[np.ndarray, " lags"]:
    """Weighted correlation when row i of the mouth is laid beside row i + lag of the sound, for each of ``LAGS``."""
    n = min(len(mouth), len(mel))
    values = []
    for lag in LAGS:
        one, other = mouth[max(0, -lag) : n - max(0, lag)], mel[max(0, lag) : n - max(0, -lag)]
        correlation = ((one - one.mean(axis=0)) * (other - other.mean(axis=0))).mean(axis=0)
        values.append(float(correlation @ gains) * np.sqrt(len(one) / n))
    return np.array(values)


def offset_of(heights: Float[np.ndarray, " lags"], n_rows: int) -> Offset:
    """Where the curve of a clip peaks, to parts of a row, and how much that stands out."""
    best = int(np.argmax(heights))
    others = heights[np.abs(LAGS - LAGS[best]) > PEAK]
    height = heights[best] - np.median(others)
    margin = (heights[best] - others.max()) / height
    ms = (LAGS[best] + _vertex(heights, best)) * 1000 / HZ
    return Offset(float(ms), float(height * n_rows), float(height / others.std()), float(margin))


def evidence(offset: Offset) -> Float[np.ndarray, " 3"]:
    """What `Model.odds` weighs."""
    return np.array([np.log(max(offset.z, 1e-3)), np.log(max(offset.height, 1e-3)), 1.0])


def estimate(
    model: Model,
    meshes: Float[np.ndarray, "frames 478 3"],
    pts_ns: Int64[np.ndarray, " frames"],
    mel: Float[np.ndarray, "mel_rows 80"],
) -> Offset | None:
    """Offset of a clip; None where there is no saying: too short, half of it without a face, no sound, no movement."""
    n_rows = len(mel) // 2
    if n_rows < SHORTEST * HZ or not np.isfinite(mel).all() or mel.astype(np.float64).std(axis=0).max() == 0:
        return None
    mouth = mouth_rows(meshes, pts_ns, n_rows)
    if mouth is None or mouth.std(axis=0).max() == 0:
        return None
    return offset_of(curve(*projections(model, mouth, mel_rows(mel)), model.gains), n_rows)


def fit(
    mouths: Sequence[Float[np.ndarray, "rows points3"]], mels: Sequence[Rows], weights: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """``basis``, ``mouth``, ``mel`` and ``gains`` of a `Model` from clips whose sound is in place.

    A direction of correlation r is worth r / (1 - r^2): the slope of the log-likelihood ratio of two normal variables.
    """
    basis = _principal(np.concatenate([m[::4] for m in mouths]))
    parts = [_covariances(m @ basis, mel) for m, mel in zip(mouths, mels, strict=True)]
    of_mouth, of_mel, across = (np.tensordot(weights, np.stack(part), axes=1) for part in zip(*parts, strict=True))
    one, other = _cholesky(of_mouth), _cholesky(of_mel)
    whitened = scipy.linalg.solve_triangular(
        other, scipy.linalg.solve_triangular(one, across, lower=True).T, lower=True
    )
    v, correlations, u = np.linalg.svd(whitened, full_matrices=False)
    mouth = scipy.linalg.solve_triangular(one.T, u[:SHAPES].T)
    mel = scipy.linalg.solve_triangular(other.T, v[:, :SHAPES])
    r = correlations[:SHAPES]
    return basis, mouth, mel, r / (1 - r**2)


def windows(rows: Rows, taps: Sequence[int]) -> Rows:
    """Each row together with its neighbours at ``taps``; the first and the last row hold beyond the ends."""
    at = np.clip(np.arange(len(rows))[:, None] + np.array(taps), 0, len(rows) - 1)
    return rows[at].reshape(len(rows), -1)


@cache
def load_model() -> Model:
    """The model in this package."""
    with (files("talkface.annotate") / "data" / "sync.npz").open("rb") as file, np.load(file) as arrays:
        return Model(**{name: arrays[name].astype(np.float64) for name in arrays.files})


def _mouth_windows(shapes: Rows) -> Rows:
    return windows(shapes - shapes.mean(axis=0), MOUTH_TAPS)


def _covariances(shapes: Rows, mel: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = min(len(shapes), len(mel))
    x, y = _mouth_windows(shapes[:n]), windows(mel[:n], MEL_TAPS)
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    x = x / (x.std() + 0.2)  # people who move little count almost as much as those who move a lot
    return x.T @ x, y.T @ y, x.T @ y


def _principal(rows: Rows) -> Float[np.ndarray, "points3 shapes"]:
    _, _, axes = np.linalg.svd(rows, full_matrices=False)
    basis = axes[:SHAPES].T
    return np.asarray(basis / (rows @ basis).std(axis=0))


def _cholesky(covariance: np.ndarray) -> np.ndarray:
    ridge = RIDGE * np.trace(covariance) / len(covariance)
    return np.asarray(np.linalg.cholesky(covariance + ridge * np.eye(len(covariance))))


def _scaled(rows: Rows) -> Rows:
    return np.asarray((rows - rows.mean(axis=0)) / (rows.std(axis=0) + 1e-6))


def _vertex(heights: Float[np.ndarray, " lags"], best: int) -> float:
    """Rows from ``best`` to the top of the parabola through it and its neighbours; 0 at the ends."""
    if best in (0, len(heights) - 1):
        return 0.0
    before, top, after = heights[best - 1 : best + 2]
    return float((after - before) / (2 * (2 * top - before - after))) if 2 * top > before + after else 0.0
