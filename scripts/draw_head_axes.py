"""Draw docs/head.png: the reference face, the camera's axes, and what each positive angle does.

python scripts/draw_head_axes.py
"""

from pathlib import Path

import cv2
import numpy as np
from scipy.spatial import Delaunay
from scipy.spatial.transform import Rotation

from talkface.annotate.head import reference_face

PANEL = 420
CM = 17
INK, SKIN = (60, 50, 45), np.array([190, 205, 225])
AXES = {"x": ((1, 0, 0), (60, 60, 220)), "y": ((0, 1, 0), (60, 160, 60)), "z": ((0, 0, 1), (210, 110, 40))}
PANELS = {
    "no rotation": ((0, 0, 0), ""),
    "yaw +30": ((30, 0, 0), "nose to image right"),
    "pitch +25": ((0, 25, 0), "looks up"),
    "roll +20": ((0, 0, 20), "top of head to image left"),
}


def pixel(point: np.ndarray) -> tuple[int, int]:
    """Orthographic, y up, in a panel."""
    return int(PANEL / 2 + CM * point[0]), int(PANEL / 2 - 12 - CM * point[1])


def face(canvas: np.ndarray, rotation: Rotation) -> None:
    """The reference face as shaded triangles, the far ones first."""
    points = reference_face()[0][:468]
    triangles = Delaunay(points[:, :2]).simplices
    turned = rotation.apply(points - points.mean(axis=0))
    corners = turned[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    light = np.abs(normals @ (0.3, 0.4, 0.87)) / np.maximum(np.linalg.norm(normals, axis=1), 1e-9)
    for i in np.argsort(corners[:, :, 2].mean(axis=1)):
        outline = np.array([pixel(p) for p in corners[i]], np.int32)
        colour = SKIN * (0.35 + 0.65 * light[i])
        cv2.fillConvexPoly(canvas, outline, colour.tolist(), cv2.LINE_AA)


def axes(canvas: np.ndarray, rotation: Rotation) -> None:
    """The head's own axes, from between the eyes; z comes towards the reader and is seen once the head turns."""
    start = rotation.apply([0, 0, 5.0])
    for name, (axis, colour) in AXES.items():
        end = start + rotation.apply(np.array(axis) * 7.5)
        if np.hypot(*(end - start)[:2]) < 0.5:
            cv2.circle(canvas, pixel(start), 7, colour, 2, cv2.LINE_AA)
            cv2.circle(canvas, pixel(start), 2, colour, -1, cv2.LINE_AA)
            write(canvas, name, (pixel(start)[0] - 24, pixel(start)[1] + 6), 0.6, colour)
            continue
        cv2.arrowedLine(canvas, pixel(start), pixel(end), colour, 3, cv2.LINE_AA, tipLength=0.12)
        write(canvas, name, (pixel(end)[0] + 6, pixel(end)[1] - 6), 0.6, colour)


def write(canvas: np.ndarray, text: str, at: tuple[int, int], size: float, colour: tuple = INK) -> None:
    """One line of text."""
    cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1 if size < 0.6 else 2, cv2.LINE_AA)


def panel(title: str, angles: tuple[float, float, float], meaning: str) -> np.ndarray:
    """One picture of the row."""
    yaw, pitch, roll = angles
    rotation = Rotation.from_euler("YXZ", (yaw, -pitch, roll), degrees=True)
    canvas = np.full((PANEL, PANEL, 3), 255, np.uint8)
    face(canvas, rotation)
    axes(canvas, rotation)
    write(canvas, title, (14, 26), 0.65)
    write(canvas, meaning, (14, PANEL - 14), 0.55)
    return canvas


if __name__ == "__main__":
    row = np.hstack([panel(title, *what) for title, what in PANELS.items()])
    cv2.imwrite(str(Path(__file__).parent.parent / "docs" / "head.png"), row, [cv2.IMWRITE_PNG_COMPRESSION, 9])
