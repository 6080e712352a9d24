"""Faces to measure, made of arrays."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from talkface.metrics.base import Comparison, Face
from talkface.metrics.faces import pair_up
from talkface.motion import head_rows, steady_pts
from talkface.nets.vgg import Trunk
from talkface.vocab import ARKIT, SAMPLE_RATE
from talkface.weights import REGISTRY, Models

JAW = ARKIT.index("jawOpen")


def face(
    arkit: np.ndarray | None = None,
    *,
    key: str = "a",
    frames: int = 50,
    fps: float = 25.0,
    angles: np.ndarray | None = None,
    **more: object,
) -> Face:
    """A face at rest but for what is given; further columns by name in ``columns``."""
    arkit = np.zeros((frames, 52), np.float32) if arkit is None else arkit.astype(np.float32)
    n = len(arkit)
    head = head_rows(np.zeros((n, 3)) if angles is None else angles)
    columns = {"arkit": arkit, "head": head, **dict(more.pop("columns", {}))}
    return Face(key=key, pts_ns=steady_pts(n, fps), columns=columns, **more)


def moving(seed: int, frames: int = 50) -> np.ndarray:
    """Smooth blendshapes over time, between 0 and 1."""
    rng = np.random.default_rng(seed)
    t = np.arange(frames)[:, None] / 25
    rates, phases = rng.uniform(0.3, 3, (2, 1, 52)), rng.uniform(0, 6, (2, 1, 52))
    return 0.5 + 0.25 * (np.sin(2 * np.pi * rates * t + phases)).sum(axis=0)


def random_trunks(folder: Path) -> Models:
    """AlexNet in a file of the true form, with random weights: the hash alone is another."""
    torch.manual_seed(0)
    entry = replace(REGISTRY["alexnet"], sha256_head="")
    torch.save(Trunk("alexnet").state_dict(), folder / entry.file)
    return Models(folder, offline=True, registry={**REGISTRY, "alexnet": entry})


def versus(generated: Face, reference: Face) -> Comparison:
    return Comparison(generated=[generated], references=[reference], pairs=pair_up([generated], [reference]))


def speech(opening: np.ndarray, fps: float = 25.0) -> np.ndarray:
    """A buzz as loud as the mouth is open."""
    n = round(len(opening) / fps * SAMPLE_RATE)
    t = np.arange(n) / SAMPLE_RATE
    level = np.interp(t * fps, np.arange(len(opening)), opening)
    tone = np.sign(np.sin(2 * np.pi * 140 * t))
    return np.round(tone * 3000 * 10 ** (1.5 * (level - 1))).astype(np.int16)
