"""The mouth's blendshapes and the sound around each frame, as lip refinement sees them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped

from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError
from talkface.nets.lip import ROWS
from talkface.train.base import Facts
from talkface.train.inputs.audio_features import SoundFacts
from talkface.train.inputs.audio_rows import window_rows
from talkface.vocab import ARKIT, MOUTH

MOUTH_INDEX: Final = [ARKIT.index(name) for name in MOUTH]
STEPS: Final = {"ctc": 1.0, "w2v": 1.0, "speech": 0.5, "mel": 2.0}
"""Rows from one that is looked at to the next: 16 of them span 0.2 to 0.4 s."""

CHUNK: Final = 256
"""Windows that go through a network at once: a sound has as many as frames, each with all that is heard in it."""
SMALLEST: Final = 0.1
"""Added to a shape before its logarithm is taken: how far a shape goes differs from face to face by factors."""
STILLEST: Final = 0.02
"""Deviation, in logarithms, of a shape that hardly moves: its noise is not blown up."""


def sound_facts(dataset: Dataset, column: str, *, level: Literal["data", "own"] = "data") -> SoundFacts:
    """The sound's normalisation, with 16 rows around each frame."""
    offsets = tuple((np.arange(ROWS) - (ROWS - 1) / 2) * STEPS[column])
    return replace(SoundFacts.learn(dataset, column), offsets=offsets, level=level)


def mouth_facts(dataset: Dataset, *, clips: int = 1000) -> Facts:
    """Mean and deviation of the mouth's shapes, and which of them the data knows. Raises ConfigError for none."""
    rows = np.unique(np.linspace(0, len(dataset) - 1, min(clips, len(dataset))).astype(int)).tolist()
    values = np.concatenate([dataset.views([row], ["arkit"])[0]["arkit"][:, MOUTH_INDEX] for row in rows])
    known = [column[np.isfinite(column)] for column in values.T.astype(np.float64)]
    if not any(len(k) for k in known):
        raise ConfigError(f"{dataset.url}: no clip has a value of any mouth shape.")
    return {
        "names": list(MOUTH),
        "units": ["0..1"] * len(MOUTH),
        "mean": [float(k.mean()) if len(k) else 0.0 for k in known],
        "std": [max(float(k.std()), 0.01) if len(k) else 1.0 for k in known],
        "valid": [len(k) > 0 for k in known],
    }


def mouth_of(
    batch: dict[str, Any], facts: Facts
) -> tuple[Float[torch.Tensor, "*b n 27"], Bool[torch.Tensor, "*b n 27"]]:
    """The mouth's shapes (0 where nothing is known), and where something is."""
    values = batch["arkit"][..., MOUTH_INDEX]
    known = torch.isfinite(values) & torch.tensor(facts["valid"], device=values.device)
    return torch.where(known, values, 0), known


def lively(
    shapes: Float[torch.Tensor, "*b n 27"],
    about: tuple[Float[torch.Tensor, "*b m 27"], Bool[torch.Tensor, "*b m 27"]] | None,
) -> Float[torch.Tensor, "*b n 27"]:
    """Logarithms of the shapes, less their mean over a window and in its deviations: how a mouth moves, whatever face
    it is in. ``about`` is the window (values, and where they are known); the shapes themselves unless given."""
    values, known = about if about is not None else (shapes, torch.ones_like(shapes, dtype=torch.bool))
    logs, count = (values.clamp(min=0) + SMALLEST).log(), known.sum(-2, keepdim=True).clamp(min=1)
    mean = (logs * known).sum(-2, keepdim=True) / count
    variance = (((logs - mean) * known) ** 2).sum(-2, keepdim=True) / count
    return ((shapes.clamp(min=0) + SMALLEST).log() - mean) / (variance + STILLEST**2).sqrt()


def in_style(
    shapes: Float[np.ndarray, "n 27"],
    style: Float[np.ndarray, "m 27"],
    least: Float[np.ndarray, " 27"],
    told: Float[np.ndarray, " 27"],
) -> Float[np.ndarray, "n 27"]:
    """The shapes as the style's face makes them: where its mouth rests, and as far as it moves.

    A regression moves less than what it was fitted to. So the logarithms of the shapes get the style's mean and, as far
    as the sound tells a shape (``told``, 0..1), its deviation (Toda, Black and Tokuda 2007, for spectra), which is at
    least ``least``: a face that is still in the style still speaks.
    """
    logs, seen = (np.log(np.clip(v, 0, None).astype(np.float64) + SMALLEST) for v in (shapes, style))
    moved = (logs - logs.mean(0)) / np.sqrt(logs.var(0) + STILLEST**2)
    found = np.exp(seen.mean(0) + told * np.maximum(seen.std(0), least) * moved) - SMALLEST
    return found.clip(0, 1).astype(np.float32)


def sound_of(facts: SoundFacts, rows: np.ndarray, times_ns: np.ndarray, fps: float) -> Float[torch.Tensor, "1 n flat"]:
    """What a network sees of a whole sound's column around frames at steady times."""
    times = torch.from_numpy(np.asarray(times_ns, np.int64))[None]
    values = torch.from_numpy(np.asarray(rows, np.float32))
    cut = window_rows(values, facts.spec, int(times[0, 0]), times.shape[1], fps)
    return facts.of_window(cut[None], times)


def every_window(values: Shaped[torch.Tensor, "n ..."], frames: int) -> Shaped[torch.Tensor, "windows t ..."]:
    """All windows of so many frames in a row."""
    return values.unfold(0, frames, 1).movedim(-1, 1)


def of_chosen(
    net: Callable[[torch.Tensor], torch.Tensor],
    windows: Shaped[torch.Tensor, "windows t ..."],
    chosen: Bool[torch.Tensor, " windows"],
) -> Float[torch.Tensor, "some ..."]:
    """What a network makes of some windows, `CHUNK` of them at a time."""
    return torch.cat([net(windows[part]) for part in chosen.nonzero()[:, 0].split(CHUNK)])


def average_windows(windows: Float[torch.Tensor, "windows frames shapes"]) -> Float[torch.Tensor, "n shapes"]:
    """The opposite of `every_window`: each frame is the mean over the windows it is in."""
    count, frames, _ = windows.shape
    total = windows.new_zeros(count + frames - 1, windows.shape[2])
    times = windows.new_zeros(count + frames - 1, 1)
    for offset in range(frames):
        total[offset : offset + count] += windows[:, offset]
        times[offset : offset + count] += 1
    return total / times


def area_under_curve(positive: Sequence[float] | np.ndarray, negative: Sequence[float] | np.ndarray) -> float:
    """Share of pairs in which the positive is larger (ties count half): the area under the ROC curve. NaN for none."""
    above, below = np.asarray(positive, float), np.sort(np.asarray(negative, float))
    if len(above) == 0 or len(below) == 0:
        return float("nan")
    wins = np.searchsorted(below, above, side="left") + np.searchsorted(below, above, side="right")
    return float(wins.mean() / 2 / len(below))
