"""How fast a head turns, and the buckets that EMO tells it by."""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import torch
from jaxtyping import Float

from talkface.datasets.loading.windows import Windows
from talkface.datasets.reader import Dataset
from talkface.train.base import Facts

QUANTILES: Final = (0.05, 0.95)
"""Of the training clips' speeds: the first and the last bucket's centre."""
LEAST: Final = 1e-3
"""Degrees a frame; no bucket has a smaller radius."""


def head_speed(head: Float[torch.Tensor, "batch frames pose"]) -> Float[torch.Tensor, "batch frames"]:
    """Degrees from each frame to the one before it, from the quaternions (the first four numbers); NaN where one of the
    two has none. The first frame has the second one's."""
    q = head[..., :4]
    apart = torch.minimum((q[:, 1:] - q[:, :-1]).norm(dim=-1), (q[:, 1:] + q[:, :-1]).norm(dim=-1))
    turned = torch.rad2deg(4 * torch.asin((apart / 2).clamp(max=1)))
    return torch.cat([turned[:, :1], turned], dim=1)


@dataclass(frozen=True)
class SpeedFacts:
    """Centres and radii (degrees a frame) of the buckets: even quantiles of what the training clips do, and half of
    the way to the next."""

    centres: tuple[float, ...]
    radii: tuple[float, ...]

    @classmethod
    def learn(cls, dataset: Dataset, fps: float, *, buckets: int = 9, clips: int = 500) -> Self:
        """From clips evenly spaced over a dataset, at a task's rate."""
        windows = Windows(length=25, fps=fps, columns=("head",), pad="short")
        keys = dataset.keys()
        some = np.unique(np.linspace(0, len(keys) - 1, min(clips, len(keys))).astype(int)).tolist()
        heads = [torch.from_numpy(w["head"])[None] for i in some for w in windows.of(dataset, keys[i])]
        speeds = torch.cat([head_speed(h)[:, 1:].flatten() for h in heads]).numpy()
        return cls.of_speeds(speeds[np.isfinite(speeds)], buckets)

    @classmethod
    def of_speeds(cls, speeds: Float[np.ndarray, " some"], buckets: int = 9) -> Self:
        """From speeds that are known; with none of them the buckets mean nothing, and do no harm."""
        speeds = speeds if len(speeds) else np.zeros(1)
        centres = np.quantile(speeds, np.linspace(*QUANTILES, buckets))
        gaps = np.maximum(np.diff(centres) / 2, LEAST)
        return cls(tuple(map(float, centres)), tuple(map(float, [*gaps, gaps[-1]])))

    def facts(self) -> Facts:
        """As plain JSON."""
        return {"centres": list(self.centres), "radii": list(self.radii)}

    @classmethod
    def of(cls, facts: Facts) -> Self:
        """From what `facts` gave."""
        return cls(tuple(facts["centres"]), tuple(facts["radii"]))
