"""A frame's sound as EMO hears it: rows before, at and after it, of one layer of a speech model or of its blocks."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int64

from talkface.datasets.loading.windows import Windows
from talkface.datasets.reader import Dataset
from talkface.train.inputs.audio_features import SoundFacts
from talkface.train.inputs.audio_rows import window_rows


def frame_sound(dataset: Dataset, column: str, windows: Windows, *, m: int, rows: int = 1) -> SoundFacts:
    """The rows of ``m`` frames to either side of a frame, ``rows`` a frame, and their normalisation."""
    reach = (m * rows + rows // 2) if rows > 1 else m
    rate = dataset.spec(column).rate or 0.0
    offsets = tuple(k / rows / windows.fps * rate for k in range(-reach, reach + 1))
    return SoundFacts.learn(dataset, column, offsets=offsets, margin=windows.sound_margin)


def width(sound: SoundFacts) -> int:
    """Numbers of a frame: of a column of layers those of the blocks, without what the first block sees."""
    layers = sound.mean.shape[:-1]
    return len(sound.offsets) * sound.mean.shape[-1] * (layers[0] - 1 if layers else 1)


def heard(
    sound: SoundFacts, rows: Float[torch.Tensor, "batch rows ..."], times_ns: Int64[torch.Tensor, "batch frames"]
) -> Float[torch.Tensor, "batch frames width"]:
    """Of a batch of windows with their margins; NaN where any is missing."""
    near = sound.around(rows.float(), times_ns)
    return (near[..., 1:, :] if sound.mean.ndim == 2 else near).flatten(2)


def heard_of(
    sound: SoundFacts, rows: np.ndarray, first: int, windows: Windows, frames: int, device: torch.device
) -> Float[torch.Tensor, "1 frames width"]:
    """Of the ``frames`` frames from frame ``first`` on of a whole sound, whose column is ``rows``."""
    times = torch.from_numpy(replace(windows, length=frames).times_ns(first))
    values = torch.from_numpy(rows.astype(np.float32))
    cut = window_rows(values, sound.spec, int(times[0]), frames, windows.fps, windows.sound_margin)
    return heard(sound, cut[None].to(device), times[None].to(device))
