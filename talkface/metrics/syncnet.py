"""Lip sync by SyncNet itself: LSE-D and LSE-C, as the papers report them.

Scores that the annotator `syncnet` measured on the pictures and the sound of a dataset's clips. `sync` needs neither
pictures nor SyncNet, but its expert's numbers compare only among themselves.
"""

from collections.abc import Mapping

from talkface.metrics.base import Comparison, Value, mean


class Metric:
    """What the clips of a dataset were found to have."""

    name = "syncnet"
    needs = ("lse_d", "lse_c")
    describes = True
    values: Mapping[str, Value] = {
        "lse_d": Value("", "lower", "SyncNet's mean distance at the best shift (LSE-D)"),
        "lse_c": Value("", "higher", "SyncNet's median over shifts less the smallest (LSE-C)"),
    }

    def compute(self, given: Comparison) -> dict[str, float]:
        """Mean over clips."""
        return {name: mean([face.scores[name] for face in given.generated]) for name in self.values}
