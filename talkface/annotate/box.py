"""The face's box: tight around its mesh where there is one, the detector's otherwise."""

import numpy as np

from talkface.annotate.base import AnnotatorConfig, FaceView, Rows
from talkface.annotate.landmarks import mesh_box
from talkface.clip import ColumnSpec
from talkface.weights import Models


class BoxConfig(AnnotatorConfig):
    """Nothing to set: faces are found by the tracker."""


class Annotator:
    """Where the face is in the source's picture."""

    name = "box"
    version = 1
    columns = (
        ColumnSpec(
            name="box",
            dtype="float32",
            shape=(5,),
            unit="px, px, px, px, 0..1",
            clock="frame",
            description="x0 y0 x1 y1 around the face in source pixels (forehead to chin, without hair and ears), and "
            "the score that the detector last gave it",
            names=("x0", "y0", "x1", "y1", "score"),
        ),
    )
    scores = ()
    needs = ()
    reads = ()
    weights = ()
    licence = "Apache-2.0"
    Config = BoxConfig

    def __init__(self, config: BoxConfig) -> None:
        self.config = config

    def open(self, models: Models) -> None:
        """Nothing to load."""

    def frame(self, view: FaceView) -> Rows:
        """``box`` of any face."""
        box = view.box[:4] if view.mesh is None else mesh_box(view.mesh)
        return {"box": np.array([*box, view.box[4]], np.float32)}
