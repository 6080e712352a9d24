"""68 points by face-alignment's network (FAN), in the square that our face box says: no second face detector.

Bulat, Tzimiropoulos, How far are we from solving the 2D & 3D face alignment problem?, ICCV 2017, and the package
``face-alignment``: the square is 200 / 195 of the box's width and height together, its centre 0.12 of the height above
the box's; of each heat-map the highest cell counts, moved a quarter of a cell towards its higher neighbours.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from pydantic import Field
from torch import Tensor, nn

from talkface.annotate.base import AnnotatorConfig, ClipView, Result
from talkface.clip import ColumnSpec, ScoreSpec
from talkface.errors import WeightsError
from talkface.face_mesh import MIRROR68
from talkface.nets.inference import AUTO, PictureNet, Precision, batches, fill, read_checkpoint
from talkface.weights import Models

SIDE: Final = 256
CELLS: Final = 64
"""Sides of the network's input in pixels and of its heat-maps in cells."""
SCALE: Final = 200 / 195
RISE: Final = 0.12


class FanConfig(AnnotatorConfig):
    """Settings of the fan annotator."""

    flip: bool = Field(
        True, description="look at the mirrored picture too and average: twice the time, steadier points"
    )
    precision: Precision = Field(
        "float32",
        description="bfloat16: about twice as fast on a CPU that has it, clear points within half a cell; " + AUTO,
    )
    batch: int = Field(8, ge=1, description="pictures that go through the network at once")


class Annotator:
    """Column ``fan``: NaN in frames without a box."""

    name = "fan"
    version = 1
    columns = (
        ColumnSpec(
            name="fan",
            dtype="float32",
            shape=(68, 2),
            unit="px",
            clock="frame",
            description="68 points in iBUG's order in source pixels, as FAN finds them (the jaw is the outline seen)",
        ),
    )
    scores = (
        ScoreSpec(
            name="fan_confidence",
            unit="ratio",
            description="median over the frames of the 68 heat-maps' mean height at the points; near 1 is certain",
        ),
    )
    needs = ("box",)
    reads = ("mp4",)
    weights = (("fan",),)
    packages = ("face_alignment",)
    licence = "Apache-2.0"
    on_gpu = True
    Config = FanConfig

    def __init__(self, config: FanConfig) -> None:
        self.config = config

    def open(self, models: Models) -> None:
        """Raises WeightsError if the network's file cannot be had or is not FAN's."""
        self._net = PictureNet(Heatmaps(load_fan(models.get("fan")), flip=self.config.flip), self.config.precision)

    def clip(self, view: ClipView) -> Result:
        """The clip's ``fan``."""
        boxes = view.table.columns["box"][:, :4].astype(np.float64)
        seen = np.isfinite(boxes).all(axis=1)
        points = np.full((len(boxes), 68, 2), np.nan, np.float32)
        confidence = np.nan
        if seen.any():
            pictures = batches(squares(view, boxes, seen), self.config.batch)
            found = [peaks(self._net(np.stack(batch)).numpy()) for batch in pictures]
            cells, heights = (np.concatenate(part) for part in zip(*found, strict=True))
            points[seen] = to_source(cells, boxes[seen])
            confidence = float(np.median(heights.mean(axis=1)))
        return Result(columns={"fan": points}, scores={"fan_confidence": confidence})


class Heatmaps(nn.Module):
    """The network's last 68 heat-maps; with ``flip``, their mean with those of the mirrored picture, mirrored back."""

    def __init__(self, net: nn.Module, *, flip: bool) -> None:
        super().__init__()
        self.net, self.flip = net, flip
        self.register_buffer("other_side", torch.from_numpy(MIRROR68))

    def forward(self, x: Float[Tensor, "n 3 256 256"]) -> Float[Tensor, "n 68 64 64"]:
        """Heat-maps of each picture."""
        maps = self.net(x)[-1]
        return (maps + self.net(x.flip(3))[-1][:, self.other_side].flip(3)) / 2 if self.flip else maps


def load_fan(path: Path) -> nn.Module:
    """FAN with the weights of ``path``, as many stacks as it holds. Raises WeightsError, with the difference, for a
    file that is not FAN's."""
    try:
        from face_alignment.models import FAN  # noqa: PLC0415 (an optional dependency)
    except ImportError as error:
        raise WeightsError(f"fan needs face-alignment. Run: pip install 'talkface[annotate]' ({error})") from error
    state: Any = read_checkpoint(path)
    if not isinstance(state, dict):
        raise WeightsError(f"{path}: not FAN's weights: expected tensors by name, found {type(state).__name__}.")
    stacks = sum(f"l{i}.weight" in state for i in range(len(state)))
    net = FAN(max(stacks, 1))
    fill(net, state, path, f"FAN with {max(stacks, 1)} stacks")
    return net


def box_square(box: Float[np.ndarray, " 4"]) -> tuple[Float[np.ndarray, " 2"], float]:
    """Centre and side of the square around a box x0 y0 x1 y1 that the network sees, in the box's pixels."""
    width, height = box[2:] - box[:2]
    centre = (box[:2] + box[2:]) / 2
    return centre - (0, RISE * height), float(SCALE * (width + height))


def squares(
    view: ClipView, boxes: Float[np.ndarray, "frames 4"], seen: Bool[np.ndarray, " frames"]
) -> Iterator[UInt8[np.ndarray, "256 256 3"]]:
    """What the network sees of the frames with a box, black outside the crop."""
    corners = view.clip.to_crop(boxes.reshape(-1, 2, 2)).reshape(-1, 4)
    for picture, box, is_seen in zip(view.pictures(), corners, seen, strict=True):
        if is_seen:
            yield cut_square(picture, box)


def cut_square(
    picture: UInt8[np.ndarray, "height width 3"], box: Float[np.ndarray, " 4"]
) -> UInt8[np.ndarray, "256 256 3"]:
    """The network's input of a picture in whose pixels the box is: bilinear samples."""
    centre, side = box_square(box)
    zoom = SIDE / side
    shift = (side / 2 - centre + 0.5) * zoom - 0.5  # OpenCV counts from the centre of the first pixel
    matrix = np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]]])
    return np.asarray(cv2.warpAffine(picture, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR))


def peaks(maps: Float[np.ndarray, "n 68 64 64"]) -> tuple[Float[np.ndarray, "n 68 2"], Float[np.ndarray, "n 68"]]:
    """Where each heat-map is highest, x and y in cells from its corner, and how high."""
    n, k = maps.shape[:2]
    best = maps.reshape(n, k, -1).argmax(axis=2)
    y, x = np.divmod(best, CELLS)
    frame, point = np.ogrid[:n, :k]
    framed = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    across = framed[frame, point, y + 1, x + 2] - framed[frame, point, y + 1, x]
    down = framed[frame, point, y + 2, x + 1] - framed[frame, point, y, x + 1]
    inside = (x > 0) & (x < CELLS - 1) & (y > 0) & (y < CELLS - 1)
    moved = np.sign(np.stack([across, down], axis=-1)) * 0.25 * inside[..., None]
    return np.stack([x, y], axis=-1) + 0.5 + moved, maps[frame, point, y, x]


def to_source(cells: Float[np.ndarray, "n 68 2"], boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 68 2"]:
    """Cells of the heat-maps to the pixels of the boxes."""
    placed = [box_square(box) for box in boxes]
    centres, sides = np.array([c for c, _ in placed]), np.array([s for _, s in placed])
    return centres[:, None] + (cells / CELLS - 0.5) * sides[:, None, None]
