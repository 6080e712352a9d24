"""Frechet distance of expressions (E-FID): how far the generated faces are from real ones as a population.

Tian et al., EMO, 2024, section 4.2, after Heusel et al. 2017: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) over the
expression vectors of all frames. EMO's vectors are those of a face reconstruction; here they are ARKit's shapes
(``e_fid_arkit``) or FLAME's 50 expressions (``e_fid_flame``): a number without the name of its vectors says nothing.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from talkface.metrics.base import Comparison, Face, Value

FLAME_EXPRESSION = slice(0, 50)


class Metric:
    """E-FID on ARKit's shapes and on FLAME's."""

    name = "expression_frechet"
    needs = ("references",)
    describes = False
    values: Mapping[str, Value] = {
        "e_fid_arkit": Value("", "lower", "on ARKit's blendshapes"),
        "e_fid_flame": Value("", "lower", "on FLAME's 50 expressions"),
    }

    def compute(self, given: Comparison) -> dict[str, float]:
        """Over all frames; shapes that either side never knows are left out, and rows with a gap."""
        return {
            "e_fid_arkit": _distance(given.generated, given.references, "arkit", slice(None)),
            "e_fid_flame": _distance(given.generated, given.references, "flame", FLAME_EXPRESSION),
        }


def _distance(generated: Sequence[Face], references: Sequence[Face], column: str, part: slice) -> float:
    sides = []
    for faces in (generated, references):
        tables = [f.columns[column][:, part] for f in faces if f.has(column)]
        if not tables:
            return float("nan")
        sides.append(np.concatenate(tables).astype(float))
    known = np.isfinite(sides[0]).any(axis=0) & np.isfinite(sides[1]).any(axis=0)
    rows = [s[:, known][np.isfinite(s[:, known]).all(axis=1)] for s in sides]
    return frechet(*rows) if min(len(r) for r in rows) > 1 else float("nan")


def frechet(one: Float[np.ndarray, "n d"], other: Float[np.ndarray, "m d"]) -> float:
    """Frechet distance of the Gaussians fitted to two sets of rows."""
    return frechet_gaussians(one.mean(axis=0), np.cov(one.T), other.mean(axis=0), np.cov(other.T))


def frechet_gaussians(mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray) -> float:
    """The closed form. The trace of the root of C1 C2 is that of C1^(1/2) C2 C1^(1/2), which is symmetric and has no
    negative or complex eigenvalue but by rounding; those are taken for 0.
    """
    cov_a, cov_b = np.atleast_2d(cov_a), np.atleast_2d(cov_b)
    eigenvalues, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.clip(eigenvalues, 0, None))) @ vectors.T
    crossed = np.linalg.eigvalsh(root @ cov_b @ root)
    trace = np.trace(cov_a) + np.trace(cov_b) - 2 * np.sqrt(np.clip(crossed, 0, None)).sum()
    return float(((mean_a - mean_b) ** 2).sum() + max(trace, 0.0))
