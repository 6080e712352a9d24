"""The box goes around the mesh where there is one."""

import numpy as np

from talkface.annotate.base import FaceView
from talkface.annotate.box import Annotator, BoxConfig

PIXELS = np.zeros((100, 100, 3), np.uint8)
DETECTED = np.array([10, 20, 40, 60, 0.75], np.float32)


def row(view: FaceView) -> np.ndarray:
    annotator = Annotator(BoxConfig())
    value = annotator.frame(view)["box"]
    annotator.columns[0].check(value[None], frames=1)
    return value


def test_around_the_mesh() -> None:
    mesh = np.random.default_rng(0).uniform(30, 70, (478, 3)).astype(np.float32)
    mesh[5, :2], mesh[300, :2] = (25, 75), (80, 28)
    np.testing.assert_array_equal(row(FaceView(PIXELS, 0, DETECTED, mesh=mesh)), np.float32([25, 28, 80, 75, 0.75]))


def test_the_detectors_without_a_mesh() -> None:
    np.testing.assert_array_equal(row(FaceView(PIXELS, 0, DETECTED)), DETECTED)
