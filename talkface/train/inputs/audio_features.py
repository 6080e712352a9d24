"""Sound features as a network sees them: rows around each frame, normalised, with a flag for what is missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import numpy as np
import torch
from jaxtyping import Float, Float32, Int16, Int64

from talkface.annotate.base import ClipView, make_annotator, producer
from talkface.clip import Clip, ColumnSpec, FrameTable, Source, Timeline, samples_to_ns
from talkface.datasets.format.schema import column_from, spec_dict
from talkface.datasets.loading.windows import Windows
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError
from talkface.train.base import Facts
from talkface.train.inputs.audio_rows import own_level, rows_around, window_rows
from talkface.train.protocols import Speech
from talkface.vocab import SAMPLE_RATE
from talkface.weights import Models

SILENCE_AFTER: Final = 4.0
"""Seconds of silence that follow a sound, so that its last window has all of its rows."""

OFFSETS: Final = {"mel": (-3, -2, -1, 0, 1, 2, 3), "w2v": (0,), "ctc": (-1, 0, 1), "speech": (-2, -1, 0, 1, 2)}
"""Rows around a frame that a network sees: at 80 rows a second a frame of 25 spans 3.2 of them."""


@dataclass(frozen=True)
class SoundFacts:
    """A column on the sound's clock, its normalisation, the rows around a frame that are used, and the annotator that
    makes it with its settings.

    A row is a vector, or has two axes (wav2vec's layers); mean and deviation have its shape.
    """

    spec: ColumnSpec
    mean: Float32[np.ndarray, "..."]
    std: Float32[np.ndarray, "..."]
    offsets: tuple[float, ...]
    annotator: str
    settings: dict[str, Any]
    level: Literal["data", "own"] = "data"
    """Whose mean and deviation rows are put in: those of the data, or of the window's or sound's own rows."""
    margin: float = 0.0
    """`Windows.sound_margin` in seconds of the windows that rows come from."""

    @property
    def width(self) -> int:
        """Numbers a frame: the rows one after the other, and the flag."""
        return len(self.offsets) * self.mean.size + 1

    @classmethod
    def learn(
        cls,
        dataset: Dataset,
        column: str,
        *,
        clips: int = 1000,
        offsets: Sequence[float] | None = None,
        margin: float = 0.0,
    ) -> Self:
        """From all clips of a dataset, or ``clips`` of them, evenly spaced.

        ``offsets`` are in rows of the column (None: `OFFSETS`); ``margin`` is the windows' ``sound_margin``. Raises
        ConfigError for a column that is not on the sound's clock, or has more than two axes a row.
        """
        spec = dataset.spec(column)
        if spec.clock != "sound" or not 1 <= len(spec.shape) <= 2:
            raise ConfigError(
                f"{dataset.url}: {column} has shape {spec.shape} a row on the clock of the {spec.clock}; rows on the "
                "sound's clock are needed, each a vector or layers of vectors."
            )
        count, total, square = 0, np.zeros(spec.shape), np.zeros(spec.shape)
        for row in np.unique(np.linspace(0, len(dataset) - 1, min(clips, len(dataset))).astype(int)).tolist():
            values = dataset.views([row], [column])[0][column].astype(np.float64)
            values = values[np.isfinite(values).reshape(len(values), -1).all(axis=1)]
            count, total, square = count + len(values), total + values.sum(0), square + (values**2).sum(0)
        mean = total / max(count, 1)
        std = np.sqrt(np.maximum(square / max(count, 1) - mean**2, 1e-6))
        around = OFFSETS[column] if offsets is None else tuple(offsets)
        made = _maker(dataset, column)
        return cls(spec, mean.astype(np.float32), std.astype(np.float32), around, *made, margin=margin)

    def facts(self) -> Facts:
        """As plain JSON."""
        numbers = {k: np.asarray(getattr(self, k), np.float64).tolist() for k in ("mean", "std", "offsets")}
        made = {"annotator": self.annotator, "settings": self.settings, "level": self.level, "margin": self.margin}
        return {"column": spec_dict(self.spec), **numbers, **made}

    @classmethod
    def of(cls, facts: Facts) -> Self:
        """From what `facts` gave."""
        mean, std = (np.array(facts[k], np.float32) for k in ("mean", "std"))
        return cls(
            column_from(facts["column"]), mean, std, tuple(facts["offsets"]), facts["annotator"], facts["settings"],
            facts.get("level", "data"), facts.get("margin", 0.0),
        )  # fmt: skip

    def of_window(
        self,
        rows: Float[torch.Tensor, "batch rows ..."],
        times_ns: Int64[torch.Tensor, "batch frames"],
        late_ns: Int64[torch.Tensor, " batch"] | None = None,
    ) -> Float[torch.Tensor, "batch frames width"]:
        """What the network sees of a batch of windows: missing rows are 0, and the flag is 1 where none is missing.

        The sound of each window is taken ``late_ns`` later."""
        flat = self.around(rows, times_ns, late_ns).flatten(2)
        there = torch.isfinite(flat).all(-1, keepdim=True)
        return torch.cat([flat.nan_to_num(0.0), there.to(flat)], dim=-1)

    def around(
        self,
        rows: Float[torch.Tensor, "batch rows ..."],
        times_ns: Int64[torch.Tensor, "batch frames"],
        late_ns: Int64[torch.Tensor, " batch"] | None = None,
    ) -> Float[torch.Tensor, "batch frames offsets ..."]:
        """The normalised rows around each frame, in their own shape (layers, features); missing ones are NaN."""
        mean, std = (torch.as_tensor(v, device=rows.device) for v in (self.mean, self.std))
        level = own_level(rows) if self.level == "own" else (rows - mean) / std
        spec = self.spec
        return rows_around(level, spec.rate, spec.first_seconds, times_ns, self.offsets, late_ns, self.margin)

    def of_sound(
        self, rows: np.ndarray, first: int, windows: Windows, device: torch.device
    ) -> Float[torch.Tensor, "1 frames width"]:
        """What the network sees of the window that starts with frame ``first`` of a whole sound's column."""
        times = torch.from_numpy(windows.times_ns(first))[None]
        values = torch.from_numpy(rows.astype(np.float32))
        cut = window_rows(values, self.spec, int(times[0, 0]), windows.length, windows.fps, self.margin)
        return self.of_window(cut[None].to(device), times.to(device))


def _maker(dataset: Dataset, column: str) -> tuple[str, dict[str, Any]]:
    """The annotator of a column, and the settings it had."""
    name = producer(column)
    record = dataset.annotators.get(name)
    return name, dict(record.config) if record else {}


def speech_of(samples: Int16[np.ndarray, " samples"], wanted: Sequence[SoundFacts], models: Models) -> Speech:
    """Sound with the columns that models were trained on, made by the same annotators with the same settings."""
    after = np.zeros(round(SILENCE_AFTER * SAMPLE_RATE), np.int16)
    padded = np.concatenate([samples, after])
    columns = {w.spec.name: _annotate(padded, w, models) for w in wanted}
    return Speech(samples, columns)


def _annotate(samples: Int16[np.ndarray, " samples"], wanted: SoundFacts, models: Models) -> np.ndarray:
    annotator: Any = make_annotator(wanted.annotator, wanted.settings)
    annotator.open(models)
    nowhere = Source(uri="", name="", sha256="", size=0, layout="plain")
    clip = Clip(
        key="speech", source=nowhere, start_ns=0, end_ns=samples_to_ns(len(samples)), track=0, shot=0,
        crop=np.eye(2, 3), crop_size=1,
    )  # fmt: skip
    view = ClipView(clip, FrameTable(Timeline(np.zeros(0, np.int64)), {}), samples, has_sound=True)
    made: np.ndarray = annotator.clip(view).columns[wanted.spec.name]
    return made
