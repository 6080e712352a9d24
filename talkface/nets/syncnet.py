"""SyncNet: five frames of a face and 0.2 s of sound, each to 1024 numbers that are near where they belong together.

Chung and Zisserman, Out of time: automated lip sync in the wild, ACCV workshops 2016. Layer sizes and parameter names
are those of the published ``syncnet_v2.model``; offset, confidence (LSE-C) and distance (LSE-D) as its authors' own
evaluation has them (joonson/syncnet_python; Prajwal et al., A lip sync expert is all you need, ACM MM 2020, 4.2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from talkface.errors import WeightsError
from talkface.nets.inference import device, fill, inference, read_checkpoint

FRAMES: Final = 5
"""Frames of a window."""
ROWS: Final = 4
"""Rows of MFCC a frame; a window of sound has five times as many."""
SAMPLES: Final = 640
"""Of sound a frame."""
SHIFT: Final = 15
"""Frames by which the sound is moved either way."""
EPSILON: Final = 1e-6
"""Added to each difference before the norm, as torch's pairwise distance does."""


class SyncNet(nn.Module):
    """Both halves."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_flat(1, 64, 3, padding=1),
            nn.MaxPool2d(1, 1),
            *_flat(64, 192, 3, padding=1),
            nn.MaxPool2d(3, (1, 2)),
            *_flat(192, 384, 3, padding=1),
            *_flat(384, 256, 3, padding=1),
            *_flat(256, 256, 3, padding=1),
            nn.MaxPool2d(3, 2),
            *_flat(256, 512, (5, 4)),
        )
        self.netfcaud = _head()
        self.netfclip = _head()
        self.netcnnlip = nn.Sequential(
            *_deep(3, 96, (5, 7, 7), stride=(1, 2, 2)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_deep(96, 256, (1, 5, 5), stride=(1, 2, 2), padding=(0, 1, 1)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), padding=(0, 1, 1)),
            *_deep(256, 256, (1, 3, 3), padding=(0, 1, 1)),
            *_deep(256, 256, (1, 3, 3), padding=(0, 1, 1)),
            *_deep(256, 256, (1, 3, 3), padding=(0, 1, 1)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_deep(256, 512, (1, 6, 6)),
        )

    def faces(self, x: Float[Tensor, "n 3 5 224 224"]) -> Float[Tensor, "n 1024"]:
        """Windows of pictures, BGR 0..255."""
        return self.netfclip(self.netcnnlip(x).flatten(1))

    def sounds(self, x: Float[Tensor, "n 1 13 20"]) -> Float[Tensor, "n 1024"]:
        """Windows of MFCC."""
        return self.netfcaud(self.netcnnaud(x).flatten(1))


def _flat(inputs: int, outputs: int, size: int | tuple[int, int], *, padding: int = 0) -> Sequence[nn.Module]:
    return nn.Conv2d(inputs, outputs, size, padding=padding), nn.BatchNorm2d(outputs), nn.ReLU()


def _deep(
    inputs: int,
    outputs: int,
    size: tuple[int, int, int],
    *,
    stride: tuple[int, int, int] = (1, 1, 1),
    padding: tuple[int, int, int] = (0, 0, 0),
) -> Sequence[nn.Module]:
    return nn.Conv3d(inputs, outputs, size, stride, padding), nn.BatchNorm3d(outputs), nn.ReLU()


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))


@dataclass(frozen=True)
class Agreement:
    """``offset`` in frames at 25 a second, positive where the sound is early, as the authors count it; ``confidence``
    (LSE-C) is the median of the mean distances less the least, ``distance`` (LSE-D) the least.
    """

    offset: int
    confidence: float
    distance: float


def load_syncnet(path: Path) -> SyncNet:
    """The network of ``syncnet_v2.model``. Raises WeightsError, with the difference, for a file that is not it."""
    state = read_checkpoint(path)
    if not isinstance(state, dict):
        raise WeightsError(f"{path}: not SyncNet's weights: expected names and tensors, got {type(state).__name__}.")
    net = SyncNet()
    fill(net, state, path, "SyncNet")
    return net.eval()


def n_windows(n_frames: int, n_samples: int) -> int:
    """As the authors have it: 5 less than the frames, or than the whole frames of sound if these are fewer."""
    return max(0, min(n_frames, n_samples // SAMPLES) - FRAMES)


def embeddings(
    net: SyncNet,
    faces: UInt8[np.ndarray, "frames 224 224 3"],
    cepstra: Float[np.ndarray, "rows 13"],
    *,
    windows: int,
    batch: int,
) -> tuple[Float[Tensor, "windows 1024"], Float[Tensor, "windows 1024"]]:
    """Of each window of five frames (RGB), and of the sound from its first frame on, as float32 on the CPU.

    ``cepstra`` are those of `talkface.speech.mfcc`, ``windows`` how many there are (`n_windows`).
    """
    on = device()
    net.to(on)
    pictures = torch.from_numpy(np.ascontiguousarray(faces[..., ::-1])).permute(3, 0, 1, 2)
    rows = torch.from_numpy(cepstra.astype(np.float32)).T
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    with inference():
        for start in range(0, windows, batch):
            at = range(start, min(windows, start + batch))
            seen = torch.stack([pictures[:, i : i + FRAMES] for i in at]).to(on).float()
            heard = torch.stack([rows[None, :, ROWS * i : ROWS * (i + FRAMES)] for i in at]).to(on)
            found[0].append(net.faces(seen).float().cpu())
            found[1].append(net.sounds(heard).float().cpu())
    return torch.cat(found[0]), torch.cat(found[1])


def agreement(
    faces: Float[Tensor, "windows 1024"], sounds: Float[Tensor, "windows 1024"], shift: int = SHIFT
) -> Agreement:
    """Mean distance at each shift of the sound, zeros where there is none, and where it is least.

    The median of the ``2 shift + 1`` means is the middle one.
    """
    padded = functional.pad(sounds, (0, 0, shift, shift))
    means = torch.stack(
        [(faces - padded[i : i + len(faces)] + EPSILON).norm(dim=1).mean() for i in range(2 * shift + 1)]
    )
    least = int(means.argmin())
    return Agreement(shift - least, float(means.median() - means[least]), float(means[least]))
