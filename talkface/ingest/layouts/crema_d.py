"""CREMA-D (Cao et al., IEEE TAC 2014): 91 actors, as ``<actor>_<sentence>_<emotion>_<level>.flv``.

For example ``1001_DFA_ANG_XX.flv``.
"""

import re
from collections.abc import Sequence

from talkface.clip import Labels
from talkface.ingest.layouts.base import emotion_of, with_ending

LEVELS = {"LO": 1, "MD": 2, "HI": 3, "XX": None, "X": None}
"""Low, medium and high; XX (X in one misnamed file) is unspecified."""

_NAME = re.compile(
    r"(?:.*/)?(?P<actor>1\d{3})_[A-Z]{3}_(?P<emotion>ANG|DIS|FEA|HAP|NEU|SAD)_(?P<level>LO|MD|HI|XX?)(?:\.\w+)?$"
)


class Layout:
    """The actor is the speaker. Neutral, which has no strength, is 1 as in MEAD. English."""

    name = "crema_d"
    licence = "ODbL-1.0"
    side_file = ""
    hint = ""

    def __init__(self, side: bytes | None = None) -> None: ...

    def labels(self, path: str) -> Labels | None:
        """Speaker, emotion and, where it is known, intensity."""
        match = _NAME.match(path)
        if match is None:
            return None
        emotion = emotion_of(match["emotion"])
        intensity = 1 if emotion == "neutral" else LEVELS[match["level"]]
        return Labels(speaker=match["actor"], emotion=emotion, intensity=intensity, language="en")

    def audio(self, path: str) -> Sequence[str]:
        """The ``AudioWAV`` folder beside ``VideoFlash``; the videos themselves have sound."""
        parallel = with_ending(re.sub(r"(^|/)VideoFlash/", r"\1AudioWAV/", path), (".wav",))
        return list(dict.fromkeys([*parallel, *with_ending(path)]))
