"""The emotion that a source was recorded for, from its list or its dataset's layout."""

import numpy as np

from talkface.annotate.base import AnnotatorConfig, ClipView, Result, Rows
from talkface.clip import ColumnSpec, Labels
from talkface.vocab import EMOTIONS
from talkface.weights import Models


class EmotionConfig(AnnotatorConfig):
    """Nothing to set: a label is taken as it is."""


class Annotator:
    """Columns ``emo`` and ``emo_pts``: one row that holds for the whole clip.

    The label is a certainty: 1 for its class, 0 for the others. Without a label the row is NaN.
    """

    name = "emotion"
    version = 1
    columns = (
        ColumnSpec(
            name="emo",
            dtype="float32",
            shape=(1, len(EMOTIONS)),
            unit="probability",
            clock="clip",
            description="emotion of the clip by class; one row, NaN where it is not known",
            names=EMOTIONS,
        ),
        ColumnSpec(
            name="emo_pts",
            dtype="int64",
            shape=(1,),
            unit="ns",
            clock="clip",
            description="time from which a row of emo holds",
        ),
    )
    scores = ()
    needs = ()
    reads = ()
    weights = ()
    licence = "Apache-2.0"
    Config = EmotionConfig

    def __init__(self, config: EmotionConfig) -> None:
        self.config = config

    def open(self, models: Models) -> None:
        """Nothing to load."""

    def clip(self, view: ClipView) -> Result:
        """The clip's ``emo`` and ``emo_pts``."""
        return Result(columns=self.labelled(view.clip.source.labels))

    def labelled(self, labels: Labels) -> Rows:
        """``emo`` and ``emo_pts`` of every clip of a source."""
        row = np.full((1, len(EMOTIONS)), np.nan, np.float32)
        if labels.emotion is not None:
            row[0] = [name == labels.emotion for name in EMOTIONS]
        return {"emo": row, "emo_pts": np.zeros(1, np.int64)}
