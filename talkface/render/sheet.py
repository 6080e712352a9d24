"""Clips of a dataset with everything drawn in: one picture to see that annotations sit where they should."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from scipy.spatial.transform import Rotation

from talkface.datasets.reader import Dataset, Sample
from talkface.errors import DatasetError
from talkface.media import ClipFrames
from talkface.render.overlay import below, contact_sheet, curves, draw_axes, draw_box, draw_mesh
from talkface.vocab import ARKIT

SHOWN = ("jawOpen", "eyeBlinkLeft", "mouthSmileLeft", "browInnerUp")
NOSE_TIP = 1
"""Point of the mesh at which the head's axes are drawn."""


def sheet(dataset: Dataset, path: Path, n_clips: int) -> None:
    """Write a PNG of ``n_clips`` clips spread over the dataset, each at the frame where its mouth is widest open.

    Raises DatasetError for a dataset without pictures or clips.
    """
    keys = dataset.keys()
    if not keys or not dataset.info.has_video:
        raise DatasetError(f"{dataset.folder.url}: has no {'pictures' if keys else 'clips'} to draw.")
    chosen = [keys[i] for i in np.unique(np.linspace(0, len(keys) - 1, n_clips).round().astype(int))]
    tiles = [draw_clip(dataset.sample(key)) for key in chosen]
    picture = contact_sheet(tiles, [_title(dataset.sample(k)) for k in chosen], columns=3, tile=(400, 500))
    if not cv2.imwrite(str(path), picture[:, :, ::-1]):
        raise DatasetError(f"{path}: the picture could not be written there.")


def draw_clip(sample: Sample) -> UInt8[np.ndarray, "height width 3"]:
    """One frame of a clip's crop with box, mesh and head axes, over the clip's curves."""
    arkit = sample["arkit.npy"]
    at = widest_open(arkit)
    crop = np.array(sample["json"]["crop"])
    frame = ClipFrames(sample["mp4"]).get([at])[0].copy()
    mesh = to_crop(sample["lm.npy"][at, :, :2], crop)
    draw_mesh(frame, mesh)
    draw_box(frame, to_crop(sample["box.npy"][at, :4].reshape(2, 2), crop).ravel())
    quaternion = sample["head.npy"][at, :4]
    if np.isfinite(quaternion).all():
        draw_axes(frame, Rotation.from_quat(quaternion[[1, 2, 3, 0]]).as_matrix(), mesh[NOSE_TIP], len(frame) / 5)
    shown = {name: arkit[:, ARKIT.index(name)] for name in SHOWN}
    return below(frame, curves(shown, size=(len(frame), 128), now=at))


def widest_open(arkit: Float[np.ndarray, "frames 52"]) -> int:
    """The frame in which the mouth is widest open; 0 where nothing is known."""
    jaw = arkit[:, ARKIT.index("jawOpen")]
    return int(np.nanargmax(jaw)) if np.isfinite(jaw).any() else 0


def to_crop(points: Float[np.ndarray, "points 2"], crop: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "points 2"]:
    """Source pixels to crop pixels."""
    return points @ crop[:, :2].T + crop[:, 2]


def _title(sample: Sample) -> str:
    labels = sample["json"]["labels"]
    words: Sequence[str] = [labels["speaker"], labels["emotion"], str(labels["intensity"] or "")]
    return " ".join(w for w in words if w) or sample["__key__"][:48]
