"""MEAD (Wang et al., ECCV 2020): 48 to 60 actors, 8 emotions, 3 intensities, 7 cameras; sound in a tree of its own.

``M003/video/front/angry/level_3/001.mp4`` has its sound in ``M003/audio/angry/level_3/001.m4a``. Also understood are
the flat names under which others pass its clips on: ``M030_front_angry_level3_001.mp4``,
``M003_level_1_disgusted_015.mp4`` and ``M030_ang_3_004.mp4``, with anything before them.
"""

import re
from collections.abc import Sequence

from talkface.clip import Labels
from talkface.ingest.layouts.base import EMOTION_WORDS, SOUND_ENDINGS, emotion_of, with_ending

CAMERAS = ("front", "left_30", "left_60", "right_30", "right_60", "top", "down")
"""Where the camera stood, as the folders are called."""

_ACTOR = r"(?P<actor>[MW]\d{3})"
_CAMERA = f"(?P<camera>{'|'.join(CAMERAS)})"
_EMOTION = f"(?:{'|'.join(EMOTION_WORDS)})"
_TREE = re.compile(
    rf"(?:.*/)?{_ACTOR}/(?:[^/]+/)*video/{_CAMERA}/(?P<emotion>{_EMOTION})/level_(?P<level>[123])/[^/]+$"
)
_FLAT = re.compile(
    rf"(?:.*[/_])?{_ACTOR}_(?:{_CAMERA}_)?(?:(?P<before>{_EMOTION})_)?(?:level_?)?(?P<level>[123])_"
    rf"(?:(?P<after>{_EMOTION})_)?\d{{3}}(?=[._][^/]*$|$)"
)


class Layout:
    """Actor (``M003`` men, ``W009`` women) is the speaker; level is the intensity; English."""

    name = "mead"
    licence = "MEAD terms of use (non-commercial research)"
    side_file = ""
    hint = ""

    def __init__(self, side: bytes | None = None) -> None: ...

    def labels(self, path: str) -> Labels | None:
        """Speaker, emotion, intensity and camera."""
        match = _TREE.match(path) or _FLAT.match(path)
        if match is None:
            return None
        found = match.groupdict()
        emotion = found.get("emotion") or found.get("before") or found.get("after")
        if emotion is None:
            return None
        return Labels(
            speaker=found["actor"],
            emotion=emotion_of(emotion),
            intensity=int(found["level"]),
            camera=found["camera"],
            language="en",
        )

    def audio(self, path: str) -> Sequence[str]:
        """The parallel path in the ``audio`` tree, which knows no cameras; then beside the picture."""
        parallel = re.sub(rf"/video/(?:{'|'.join(CAMERAS)})/(?=[^/]+/level_)", "/audio/", path)
        mine = with_ending(parallel, (".m4a", *SOUND_ENDINGS)) if parallel != path else []
        return list(dict.fromkeys([*mine, *with_ending(path)]))
