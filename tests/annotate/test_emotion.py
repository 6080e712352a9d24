"""The emotion column: a label is a certainty, no label is no value."""

import numpy as np
import pytest

from talkface.annotate.base import ClipView
from talkface.annotate.emotion import Annotator, EmotionConfig
from talkface.clip import Clip, FrameTable, Labels, Source, Timeline
from talkface.vocab import EMOTIONS


def view(emotion: str | None) -> ClipView:
    source = Source(uri="a.mp4", name="a.mp4", sha256="0", size=1, layout="plain", labels=Labels(emotion=emotion))
    clip = Clip(key="a", source=source, start_ns=5, end_ns=9, track=0, shot=0, crop=np.eye(2, 3), crop_size=512)
    return ClipView(clip, FrameTable(Timeline(np.arange(3)), {}), np.zeros(0, np.int16), has_sound=False)


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_label(emotion: str) -> None:
    columns = Annotator(EmotionConfig()).clip(view(emotion)).columns
    assert columns["emo"].tolist() == [[float(name == emotion) for name in Annotator.columns[0].names]]
    assert columns["emo_pts"].tolist() == [0]


def test_no_label_is_nan() -> None:
    columns = Annotator(EmotionConfig()).clip(view(None)).columns
    assert np.isnan(columns["emo"]).all()
    for spec in Annotator.columns:
        spec.check(columns[spec.name], frames=3)
