"""Whether the generated face is the reference's: F-SIM, the cosine of both clips' identities.

EMO 4.2 compares face features of generated frames with those of the reference image. Here each clip has one vector, the
mean over its frames (`annotate.identity`), so that both sides need that column, made by the same network.
"""

from collections.abc import Mapping

import numpy as np

from talkface.metrics.base import Comparison, Face, Value, mean


class Metric:
    """Cosine of identities."""

    name = "face_similarity"
    needs = ("pairs", "identity")
    describes = False
    values: Mapping[str, Value] = {"f_sim": Value("-1..1", "higher", "cosine of both clips' identities (F-SIM)")}

    def compute(self, given: Comparison) -> dict[str, float]:
        """Mean over clips; vectors of different length, which no one network makes, are left out."""
        return {"f_sim": mean([similarity(a, b) for a, b in given.pairs])}


def similarity(one: Face, other: Face) -> float:
    """Cosine of two faces' identities; NaN where they do not compare."""
    a, b = one.identity, other.identity
    if a is None or b is None or len(a) != len(b):
        return float("nan")
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
