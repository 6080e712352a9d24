"""Clips of a dataset with everything drawn in: one picture to see that annotations sit where they should."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from scipy.spatial.transform import Rotation

from talkface.datasets.reader import Dataset, Sample
from talkface.errors import DatasetError
from talkface.flame import Flame, projected
from talkface.media import ClipFrames
from talkface.render.overlay import (
    below,
    contact_sheet,
    curves,
    draw_axes,
    draw_box,
    draw_mesh,
    facing,
    write_word,
)
from talkface.vocab import ARKIT, FLAME

SHOWN = ("jawOpen", "eyeBlinkLeft", "mouthSmileLeft", "browInnerUp")
NOSE_TIP = 1
"""Point of the mesh at which the head's axes are drawn."""
FLAME_NEEDS = ("flame", "flame_shape", "lm68")
"""Columns that say where FLAME's vertices lie."""
_FLAME_COLOUR = (255, 170, 60)
_TILE = (400, 500)


def sheet(dataset: Dataset, path: Path, n_clips: int, flame: Flame | None = None) -> None:
    """Write a PNG of ``n_clips`` clips spread over the dataset, each at the frame where its mouth is widest open.

    With ``flame``, the dataset must have ``FLAME_NEEDS``: its vertices are drawn beside, on the same frame.
    Raises DatasetError for a dataset without pictures or clips.
    """
    keys = dataset.keys()
    if not keys or not dataset.info.has_video:
        raise DatasetError(f"{dataset.folder.url}: has no {'pictures' if keys else 'clips'} to draw.")
    chosen = [keys[i] for i in np.unique(np.linspace(0, len(keys) - 1, n_clips).round().astype(int))]
    tiles = [draw_clip(dataset.sample(key), flame) for key in chosen]
    tile = _TILE if flame is None else (2 * _TILE[0], _TILE[1])
    picture = contact_sheet(tiles, [_title(dataset.sample(k)) for k in chosen], columns=3, tile=tile)
    if not cv2.imwrite(str(path), picture[:, :, ::-1]):
        raise DatasetError(f"{path}: the picture could not be written there.")


def draw_clip(sample: Sample, flame: Flame | None = None) -> UInt8[np.ndarray, "height width 3"]:
    """One frame of a clip's crop with box, mesh and head axes, FLAME's head beside it, over the clip's curves."""
    arkit = sample["arkit.npy"]
    at = widest_open(arkit)
    crop = np.array(sample["json"]["crop"])
    plain = ClipFrames(sample["mp4"]).get([at])[0]
    frame = plain.copy()
    mesh = to_crop(sample["lm.npy"][at, :, :2], crop)
    draw_mesh(frame, mesh)
    draw_box(frame, to_crop(sample["box.npy"][at, :4].reshape(2, 2), crop).ravel())
    quaternion = sample["head.npy"][at, :4]
    if np.isfinite(quaternion).all():
        draw_axes(frame, Rotation.from_quat(quaternion[[1, 2, 3, 0]]).as_matrix(), mesh[NOSE_TIP], len(frame) / 5)
    shown = {name: arkit[:, ARKIT.index(name)] for name in SHOWN}
    if flame is not None:
        frame = np.concatenate([frame, with_flame(plain, sample, at, flame)], axis=1)
    return below(frame, curves(shown, size=(frame.shape[1], 128), now=at))


def with_flame(
    frame: UInt8[np.ndarray, "size size 3"], sample: Sample, at: int, flame: Flame
) -> UInt8[np.ndarray, "size size 3"]:
    """A frame of the crop with those vertices of FLAME's head that face the camera; alone where nothing is known."""
    rows, points = sample["flame.npy"][at : at + 1], sample["lm68.npy"][at : at + 1]
    vertices = flame.vertices(rows, sample["flame_shape.npy"])
    drawn = frame.copy()
    if np.isfinite(vertices).all() and np.isfinite(points).all():
        pixels = to_crop(projected(vertices, rows[:, FLAME["camera"]], points)[0], np.array(sample["json"]["crop"]))
        draw_mesh(drawn, facing(pixels, flame.faces.numpy()), _FLAME_COLOUR)
    write_word(drawn, "FLAME")
    return drawn


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
