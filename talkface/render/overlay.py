"""Annotations drawn onto pictures: box, mesh, head axes, curves, and pictures side by side."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from talkface.clip import runs

Picture = UInt8[np.ndarray, "_height _width 3"]
COLOURS = ((235, 94, 52), (38, 132, 196), (60, 158, 92), (170, 84, 176), (214, 158, 34), (90, 90, 90))
"""Colours of curves, in turn (RGB)."""
_AXES = ((222, 66, 56), (64, 160, 72), (48, 104, 214))
_INK, _PAPER = (40, 44, 52), (250, 250, 248)
_SHIFT = 4
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def _fixed(points: np.ndarray) -> np.ndarray:
    return np.round((np.asarray(points) - 0.5) * (1 << _SHIFT)).astype(np.int32)


def draw_box(rgb: Picture, box: Float[np.ndarray, " 4"], colour: tuple[int, int, int] = (255, 214, 64)) -> None:
    """Outline x0 y0 x1 y1 (pixels) in place; nothing is drawn for NaN."""
    if np.isfinite(box).all():
        a, b = _fixed(box.reshape(2, 2)).tolist()
        cv2.rectangle(rgb, a, b, colour, max(1, rgb.shape[0] // 320), cv2.LINE_AA, _SHIFT)


def draw_mesh(
    rgb: Picture, points: Float[np.ndarray, "points axes"], colour: tuple[int, int, int] = (96, 240, 196)
) -> None:
    """Dots at x, y (pixels) in place; points that are NaN are left out."""
    seen = np.isfinite(points[:, :2]).all(axis=1)
    radius = 4 + rgb.shape[0] * (1 << _SHIFT) // 640
    for x, y in _fixed(points[seen, :2]).tolist():
        cv2.circle(rgb, (x, y), radius, colour, -1, cv2.LINE_AA, _SHIFT)


def facing(
    points: Float[np.ndarray, "points 2"], triangles: Int[np.ndarray, "triangles 3"]
) -> Float[np.ndarray, "facing 2"]:
    """The points (pixels) of a mesh on triangles that face the viewer: those that run counterclockwise as seen."""
    a, b, c = (points[triangles[:, i]] for i in range(3))
    (x1, y1), (x2, y2) = (b - a).T, (c - a).T
    return points[np.unique(triangles[x1 * y2 - y1 * x2 < 0])]


def write_word(rgb: Picture, word: str) -> None:
    """A word in place, in the lower left corner, dark on a light ground."""
    scale = rgb.shape[0] / 640
    (width, height), base = cv2.getTextSize(word, _FONT, scale, 1)
    top = rgb.shape[0] - height - 2 * base
    rgb[top:, : width + 2 * base] = _PAPER
    cv2.putText(rgb, word, (base, rgb.shape[0] - base), _FONT, scale, _INK, 1, cv2.LINE_AA)


def draw_axes(
    rgb: Picture, rotation: Float[np.ndarray, "3 3"], at: Sequence[float] | np.ndarray, length: float
) -> None:
    """The head's axes in place, without perspective: red to the person's left, green up, blue out of the face.

    ``rotation`` maps head to camera (x right, y up, z to the camera), ``at`` and ``length`` are in pixels.
    """
    if not np.isfinite(rotation).all():
        return
    start = np.asarray(at, float)[:2]
    nearest_last = np.argsort(rotation[2])
    for axis in nearest_last:
        end = start + length * rotation[:2, axis] * (1, -1)
        a, b = _fixed(np.stack([start, end])).tolist()
        cv2.line(rgb, a, b, _AXES[axis], max(2, rgb.shape[0] // 200), cv2.LINE_AA, _SHIFT)


def curves(
    rows: Mapping[str, Float[np.ndarray, " frames"]],
    *,
    size: tuple[int, int] = (512, 120),
    now: int | None = None,
    limits: tuple[float, float] = (0.0, 1.0),
) -> Picture:
    """A strip (width, height) of curves over all frames with their names; ``now`` marks a frame. NaN leaves gaps."""
    width, height = size
    strip = np.full((height, width, 3), _PAPER, np.uint8)
    top, bottom, left, right = 22.0, height - 8.0, 8.0, width - 8.0
    cv2.line(strip, (int(left), int(bottom)), (int(right), int(bottom)), (208, 208, 206), 1)
    written = int(left)
    for (name, values), colour in zip(rows.items(), COLOURS * 9, strict=False):
        x = np.linspace(left, right, len(values))
        share = np.clip((np.asarray(values, float) - limits[0]) / (limits[1] - limits[0]), -0.05, 1.05)
        for part in _unbroken(np.stack([x, bottom - share * (bottom - top)], axis=1)):
            cv2.polylines(strip, [_fixed(part)], False, colour, 1, cv2.LINE_AA, _SHIFT)
        cv2.putText(strip, name, (written, 14), _FONT, 0.4, colour, 1, cv2.LINE_AA)
        written += cv2.getTextSize(name, _FONT, 0.4, 1)[0][0] + 12
    if now is not None and rows:
        column = int(left + (right - left) * now / max(len(next(iter(rows.values()))) - 1, 1))
        cv2.line(strip, (column, int(top)), (column, int(bottom)), _INK, 1)
    return strip


def _unbroken(points: Float[np.ndarray, "frames 2"]) -> list[np.ndarray]:
    """Runs of finite points."""
    found = runs(np.isfinite(points).all(axis=1))
    return [points[start:end] for start, end, is_finite in found if is_finite and end - start > 1]


def below(top: Picture, strip: Picture) -> Picture:
    """One picture above another; the lower one is stretched to the same width."""
    if strip.shape[1] != top.shape[1]:
        strip = cv2.resize(strip, (top.shape[1], strip.shape[0]), interpolation=cv2.INTER_AREA)
    return np.concatenate([top, strip])


def contact_sheet(
    frames: Sequence[Picture], titles: Sequence[str], *, columns: int = 4, tile: tuple[int, int] = (320, 320)
) -> Picture:
    """Pictures in a grid with their titles beneath; each is fitted into ``tile`` (width, height), never stretched."""
    if len(frames) != len(titles) or not frames:
        raise ValueError(f"expected as many titles as frames, and at least one; got {len(titles)} and {len(frames)}")
    cells = [_cell(frame, title, tile) for frame, title in zip(frames, titles, strict=True)]
    columns = min(columns, len(cells))
    blank = np.full_like(cells[0], _PAPER)
    cells += [blank] * (-len(cells) % columns)
    rows = [np.concatenate(cells[i : i + columns], axis=1) for i in range(0, len(cells), columns)]
    return np.concatenate(rows)


def _cell(frame: Picture, title: str, tile: tuple[int, int]) -> Picture:
    margin, line = 8, 24
    cell = np.full((tile[1] + line + margin, tile[0] + 2 * margin, 3), _PAPER, np.uint8)
    scale = min(tile[0] / frame.shape[1], tile[1] / frame.shape[0])
    width, height = max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale))
    small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    x, y = margin + (tile[0] - width) // 2, margin + (tile[1] - height) // 2
    cell[y : y + height, x : x + width] = small
    cv2.putText(cell, title, (margin, tile[1] + margin + 16), _FONT, 0.45, _INK, 1, cv2.LINE_AA)
    return cell
