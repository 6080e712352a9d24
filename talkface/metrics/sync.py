"""Lip sync by a trained expert, counted as SyncNet's LSE-D and LSE-C.

Chung and Zisserman, "Out of time", 2016, and Prajwal et al., Wav2Lip, 2020: distances of mouth and sound at every shift
within 15 frames of 40 ms, averaged over windows. D is the smallest of them, C the median less the smallest. The expert
is ours (`SyncExpert`), so the numbers compare among themselves and not with SyncNet's.
"""

from collections.abc import Mapping

import numpy as np

from talkface.metrics.base import Comparison, Face, SyncExpert, Value, mean

SHIFTS_NS = np.arange(-15, 16) * 40_000_000


class Metric:
    """Distance, confidence and offset by the expert."""

    name = "sync"
    needs = ("arkit", "sound", "sync_expert")
    describes = True
    values: Mapping[str, Value] = {
        "sync_distance": Value("", "lower", "mean distance at the best shift, as LSE-D"),
        "sync_confidence": Value("", "higher", "median over shifts less the smallest, as LSE-C"),
        "sync_offset": Value("ms", "as reference", "the best shift: positive where the sound fits when taken later"),
    }

    def compute(self, given: Comparison) -> dict[str, float]:
        """Mean over faces."""
        assert given.sync_expert is not None
        rows = [scores(given.sync_expert, face) for face in given.generated]
        return {name: mean([row[i] for row in rows]) for i, name in enumerate(self.values)}


def scores(expert: SyncExpert, face: Face) -> tuple[float, float, float]:
    """Distance, confidence, offset in ms of one face; NaN for one that is too short."""
    at_shift = np.array([mean(expert.distance(face, int(shift))) for shift in SHIFTS_NS])
    if not np.isfinite(at_shift).any():
        return float("nan"), float("nan"), float("nan")
    best = int(np.nanargmin(at_shift))
    return float(at_shift[best]), float(np.nanmedian(at_shift) - at_shift[best]), float(SHIFTS_NS[best] / 1e6)
