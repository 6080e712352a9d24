"""Which of the mesh's 478 points is what."""

from typing import Final

import numpy as np

IBUG68: Final = np.array([
    234, 93, 132, 58, 172, 136, 149, 176, 152, 400, 378, 365, 397, 288, 361, 323, 454,  # jaw, image left to right
    46, 53, 52, 65, 55, 285, 295, 282, 283, 276,  # brows, image left to right
    168, 197, 5, 4, 240, 97, 2, 326, 460,  # bridge of the nose downwards, then its base
    33, 160, 158, 133, 153, 144,  # the person's right eye, from its outer corner over the upper lid
    362, 385, 387, 263, 373, 380,  # the person's left eye, from its inner corner over the upper lid
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,  # outer lips, from image left over the upper lip
    78, 82, 13, 312, 308, 317, 14, 87,  # inner lips, the same way
])  # fmt: skip
"""Mesh point nearest to each of iBUG's 68 points.

Measured: the point with the least mean distance to ``pt3d_68`` on eight AFLW2000 pictures, mirrored points taken
together; corners of eyes and mouth and the lips' border are the mesh's own where the distances tie. The mean distance
is 0.03 of the face's size (0.06 along the jaw, which is the head's, not the outline that is seen).
"""

RIGHT_CORNER, LEFT_CORNER = 33, 263
"""The outer corners of the person's eyes."""

UPPER_LIP, LOWER_LIP = 13, 14
"""The middle of the inner edge of each lip."""

MIRROR68: Final = np.array([
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
])  # fmt: skip
"""iBUG's point on the other side of the face: what each of the 68 becomes in a mirrored picture."""

BLENDSHAPE_POINTS: Final[tuple[int, ...]] = (
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70, 78, 80,
    81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149, 150, 152, 153,
    154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191, 195, 197, 234, 246, 249,
    251, 263, 267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312, 314,
    317, 318, 321, 323, 324, 332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382,
    384, 385, 386, 387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466, 468, 469, 470, 471, 472, 473,
    474, 475, 476, 477,
)  # fmt: skip
"""The 146 points, in this order, that MediaPipe's blendshape network looks at."""
