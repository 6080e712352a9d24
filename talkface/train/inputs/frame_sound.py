"""A frame's sound as EMO hears it: rows before, at and after it, of one layer of a speech model or of many."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64

from talkface.annotate.base import producer
from talkface.clip import ColumnSpec
from talkface.datasets.format.schema import column_from, spec_dict
from talkface.datasets.loading.windows import Windows
from talkface.datasets.reader import Dataset
from talkface.train.base import Facts
from talkface.train.inputs.audio_rows import rows_around, window_rows


@dataclass(frozen=True)
class FrameSound:
    """A column on the sound's clock, the rows (from a frame's time) that a frame is given, and their normalisation.

    ``layers`` are those of a column of many (wav2vec's, of which 0 is the embedding); None where it has one. Facts are
    in the form of `SoundFacts`, so that the same sound is made into columns in the same way.
    """

    spec: ColumnSpec
    offsets: tuple[float, ...]
    layers: tuple[int, ...] | None
    mean: Float32[np.ndarray, " features"]
    std: Float32[np.ndarray, " features"]
    annotator: str
    settings: dict[str, Any]

    @property
    def width(self) -> int:
        """Numbers a frame."""
        return len(self.offsets) * len(self.mean)

    @classmethod
    def learn(cls, dataset: Dataset, column: str, fps: float, *, m: int, rows: int = 1, clips: int = 1000) -> Self:
        """``m`` frames to either side, ``rows`` a frame; mean and deviation of clips evenly spaced over a dataset."""
        spec, name = dataset.spec(column), producer(column)
        layers = tuple(range(1, spec.shape[0])) if len(spec.shape) == 2 else None
        reach = (m * rows + rows // 2) if rows > 1 else m
        offsets = tuple(k / rows / fps * spec.rate for k in range(-reach, reach + 1))
        mean, std = moments(_values(dataset, column, layers, clips))
        record = dataset.annotators.get(name)
        return cls(spec, offsets, layers, mean, std, name, dict(record.config) if record else {})

    def facts(self) -> Facts:
        """As plain JSON."""
        numbers = {k: [round(float(v), 6) for v in getattr(self, k)] for k in ("mean", "std")}
        layers = None if self.layers is None else list(self.layers)
        made = {"annotator": self.annotator, "settings": self.settings, "level": "data"}
        return {"column": spec_dict(self.spec), **numbers, "offsets": list(self.offsets), "layers": layers, **made}

    @classmethod
    def of(cls, facts: Facts) -> Self:
        """From what `facts` gave."""
        mean, std = (np.array(facts[k], np.float32) for k in ("mean", "std"))
        layers = None if facts["layers"] is None else tuple(facts["layers"])
        offsets = tuple(facts["offsets"])
        return cls(column_from(facts["column"]), offsets, layers, mean, std, facts["annotator"], facts["settings"])

    def of_window(
        self, rows: Float[torch.Tensor, "batch rows *shape"], times_ns: Int64[torch.Tensor, "batch frames"],
        margin: float,
    ) -> Float[torch.Tensor, "batch frames width"]:  # fmt: skip
        """Of a batch of windows that came with ``margin`` seconds of sound to either side; NaN where any is missing."""
        chosen = (rows if self.layers is None else rows[:, :, list(self.layers)]).float().flatten(2)
        mean, std = (torch.as_tensor(v, device=rows.device) for v in (self.mean, self.std))
        near = rows_around(
            (chosen - mean) / std, self.spec.rate, self.spec.first_seconds, times_ns, self.offsets, margin=margin
        )
        return near.flatten(2)

    def of_sound(
        self, rows: np.ndarray, times_ns: Int64[torch.Tensor, " frames"], windows: Windows, device: torch.device
    ) -> Float[torch.Tensor, "1 frames width"]:
        """Of some frames of a whole sound, whose column is ``rows``."""
        cut = window_rows(
            torch.from_numpy(rows.astype(np.float32)), self.spec, int(times_ns[0]), len(times_ns), windows.fps,
            windows.sound_margin,
        )  # fmt: skip
        return self.of_window(cut[None].to(device), times_ns[None].to(device), windows.sound_margin)


def moments(parts: Iterator[np.ndarray]) -> tuple[Float32[np.ndarray, " f"], Float32[np.ndarray, " f"]]:
    """Mean and deviation of rows that come in parts."""
    count, total, square = 0, np.zeros(1), np.zeros(1)
    for values in parts:
        count, total, square = count + len(values), total + values.sum(0), square + (values**2).sum(0)
    mean = total / max(count, 1)
    return mean.astype(np.float32), np.sqrt(np.maximum(square / max(count, 1) - mean**2, 1e-6)).astype(np.float32)


def _values(dataset: Dataset, column: str, layers: tuple[int, ...] | None, clips: int) -> Iterator[np.ndarray]:
    """Rows (count, features) that are known, clip by clip; an empty part first, which says how many features."""
    size = int(np.prod(dataset.spec(column).shape)) if layers is None else len(layers) * dataset.spec(column).shape[1]
    yield np.zeros((0, size))
    for row in np.unique(np.linspace(0, len(dataset) - 1, min(clips, len(dataset))).astype(int)).tolist():
        values = dataset.views([row], [column])[0][column].astype(np.float64)
        values = (values if layers is None else values[:, list(layers)]).reshape(len(values), -1)
        yield values[np.isfinite(values).all(axis=1)]
