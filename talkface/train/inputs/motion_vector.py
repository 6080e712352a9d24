"""The state that motion models work on: blendshapes and head pose as one normalised vector a frame."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64

from talkface.datasets.reader import Dataset
from talkface.motion import Motion, head_angles, head_rows
from talkface.train.base import Facts
from talkface.vocab import ARKIT

ROTATION: Final = ("yaw", "pitch", "roll")
TRANSLATION: Final = ("tx", "ty", "tz")
UNMOVED: Final = ("cheekPuff", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight", "tongueOut")
"""The six shapes that MediaPipe never moves: without them 46 shapes and the rotation make a state of 49."""

SMALLEST: Final = 0.01
"""Standard deviation that a channel is at least taken to have."""

CHUNK: Final = 64


@dataclass(frozen=True)
class MotionVector:
    """Names, units, mean, standard deviation and use of each channel.

    A channel is ``valid`` if the data has any value of it; others (tongueOut of MediaPipe) are 0 in every state, are
    masked in training and come out as NaN.
    """

    names: tuple[str, ...]
    mean: Float32[np.ndarray, " channels"]
    std: Float32[np.ndarray, " channels"]
    valid: Bool[np.ndarray, " channels"]

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def learn(cls, dataset: Dataset, names: Sequence[str], *, clips: int = 4000) -> Self:
        """From the frames of a dataset: all of its clips, or ``clips`` of them, evenly spaced."""
        count = np.zeros(len(names))
        total, square = np.zeros(len(names)), np.zeros(len(names))
        rows = np.unique(np.linspace(0, len(dataset) - 1, min(clips, len(dataset))).astype(int))
        for chunk in np.array_split(rows, -(-len(rows) // CHUNK)):
            for columns in dataset.views(chunk.tolist(), ["arkit", "head"]):
                values = channels_of(columns["arkit"], columns["head"], names).astype(np.float64)
                seen = np.isfinite(values)
                count += seen.sum(0)
                total += np.where(seen, values, 0).sum(0)
                square += (np.where(seen, values, 0) ** 2).sum(0)
        mean = total / np.maximum(count, 1)
        std = np.sqrt(np.maximum(square / np.maximum(count, 1) - mean**2, 0))
        return cls(tuple(names), mean.astype(np.float32), np.maximum(std, SMALLEST).astype(np.float32), count > 0)

    def facts(self) -> Facts:
        """As plain JSON."""
        return {
            "names": list(self.names),
            "units": [_unit(n) for n in self.names],
            "mean": [float(v) for v in self.mean],
            "std": [float(v) for v in self.std],
            "valid": [bool(v) for v in self.valid],
        }

    @classmethod
    def of(cls, facts: Facts) -> Self:
        """From what `facts` gave."""
        mean, std = (np.array(facts[k], np.float32) for k in ("mean", "std"))
        return cls(tuple(facts["names"]), mean, std, np.array(facts["valid"], bool))

    def normal(self, values: Float[torch.Tensor, "*batch channels"]) -> Float[torch.Tensor, "*batch channels"]:
        """Values in their units to the network's; NaN stays NaN."""
        mean, std = (torch.as_tensor(v, device=values.device) for v in (self.mean, self.std))
        return (values - mean) / std

    def of_batch(self, batch: dict[str, Any]) -> Float[torch.Tensor, "batch frames channels"]:
        """The normalised state of a batch of windows; NaN where something is missing."""
        head = batch["head"]
        parts = {"arkit": batch["arkit"], "rotation": angles_of(head[..., :4]), "translation": head[..., 4:7]}
        every = torch.cat([parts["arkit"], parts["rotation"], parts["translation"]], dim=-1)
        index = torch.tensor([_EVERY.index(n) for n in self.names], device=every.device)
        return self.normal(every[..., index])

    def of_arrays(self, arkit: np.ndarray, head: np.ndarray) -> Float[torch.Tensor, "frames channels"]:
        """The normalised state of whole columns (``head`` with 7 or 10 numbers a row)."""
        return self.normal(torch.from_numpy(channels_of(arkit, head, self.names)))

    def motion(
        self,
        state: Float[torch.Tensor, "frames channels"],
        pts_ns: Int64[np.ndarray, " frames"],
        fps: float,
        **about: Any,
    ) -> Motion:
        """Back to units: shapes within 0..1, NaN for what the model knows nothing of."""
        values = state.detach().cpu().numpy() * self.std + self.mean
        values[:, ~self.valid] = np.nan
        found = {name: values[:, i] for i, name in enumerate(self.names)}
        unknown = np.full(len(values), np.nan, np.float32)
        arkit = np.stack([found.get(n, unknown) for n in ARKIT], axis=1).clip(0, 1)
        pose = [np.stack([found.get(n, unknown) for n in part], axis=1) for part in (ROTATION, TRANSLATION)]
        return Motion(pts_ns=pts_ns, arkit=arkit.astype(np.float32), head=head_rows(*pose), fps=fps, provenance=about)


_EVERY: Final = (*ARKIT, *ROTATION, *TRANSLATION)


def channels_of(arkit: np.ndarray, head: np.ndarray, names: Sequence[str]) -> Float32[np.ndarray, "frames channels"]:
    """The channels in their units, from the columns ``arkit`` and ``head``."""
    every = np.concatenate([arkit, head_angles(head[:, :4]), head[:, 4:7]], axis=1)
    return every[:, [_EVERY.index(n) for n in names]].astype(np.float32)


def angles_of(quaternion: Float[torch.Tensor, "*batch 4"]) -> Float[torch.Tensor, "*batch 3"]:
    """Yaw, pitch and roll in rad, as `talkface.motion.head_angles` has them."""
    w, x, y, z = (quaternion / quaternion.norm(dim=-1, keepdim=True)).unbind(-1)
    yaw = torch.atan2(2 * (x * z + w * y), 1 - 2 * (x * x + y * y))
    pitch = torch.asin((2 * (y * z - w * x)).clamp(-1, 1))
    roll = torch.atan2(2 * (x * y + w * z), 1 - 2 * (x * x + z * z))
    return torch.stack([yaw, pitch, roll], dim=-1)


def _unit(name: str) -> str:
    return "0..1" if name in ARKIT else "rad" if name in ROTATION else "cm"
