"""RAVDESS (Livingstone and Russo, PLoS ONE 2018): 24 actors, speech and song, as seven numbers with ``-`` between.

``Actor_01/01-01-05-02-01-01-01.mp4``: modality (01 picture and sound, 02 picture, 03 sound), channel (01 speech, 02
song), emotion, intensity (01 normal, 02 strong), statement, repetition, actor.
"""

import re
from collections.abc import Sequence

from talkface.clip import Labels
from talkface.ingest.layouts.base import emotion_of, with_ending

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
"""What 01 to 08 stand for."""

INTENSITY = {"01": 2, "02": 3}
"""Normal is MEAD's medium, strong its strong. Neutral and calm, which have no strength, are 1 as in MEAD."""

_NAME = re.compile(
    r"(?:.*/)?(?P<modality>0[123])-0[12]-(?P<emotion>0[1-8])-(?P<intensity>0[12])-0[12]-0[12]-(?P<actor>[0-2]\d)"
    r"(?:\.\w+)?$"
)


class Layout:
    """Calm counts as neutral. English."""

    name = "ravdess"
    licence = "CC-BY-NC-SA-4.0"
    side_file = ""
    hint = ""

    def __init__(self, side: bytes | None = None) -> None: ...

    def labels(self, path: str) -> Labels | None:
        """Speaker (``Actor_01``), emotion and intensity."""
        match = _NAME.match(path)
        if match is None:
            return None
        emotion = emotion_of(EMOTIONS[int(match["emotion"]) - 1])
        return Labels(
            speaker=f"Actor_{match['actor']}",
            emotion=emotion,
            intensity=1 if emotion == "neutral" else INTENSITY[match["intensity"]],
            language="en",
        )

    def audio(self, path: str) -> Sequence[str]:
        """The same performance as modality 03 (sound only), for pictures of modality 02."""
        folder, slash, name = path.rpartition("/")
        return with_ending(f"{folder}{slash}03{name[2:]}") if name.startswith("02-") else with_ending(path)
