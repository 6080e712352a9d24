"""CelebV-HQ (Zhu et al., ECCV 2022): ``<video>_<clip>.mp4``, with emotions in ``celebvhq_info.json``."""

import json
import re
from collections.abc import Sequence
from typing import Any

from talkface.clip import Labels
from talkface.errors import ConfigError
from talkface.ingest.layouts.base import emotion_of, with_ending

_NAME = re.compile(r"(?:.*/)?(?P<clip>(?P<video>[\w-]{11})_\d+(?:_\d+)?)(?:\.\w+)?$")


class Layout:
    """The id of the video stands for the speaker: identities are not given, and a split must not divide a video.

    A clip whose emotion changes has none.
    """

    name = "celebv_hq"
    licence = "CelebV-HQ agreement (non-commercial research)"
    side_file = "celebvhq_info.json"
    hint = "celebv"

    def __init__(self, side: bytes | None = None) -> None:
        self._clips = _clips(side) if side is not None else {}

    def labels(self, path: str) -> Labels | None:
        """Speaker and, where the information file is at hand, emotion."""
        match = _NAME.match(path)
        return Labels(speaker=match["video"], emotion=self._emotion(match["clip"])) if match else None

    def audio(self, path: str) -> Sequence[str]:
        """Beside the picture; the clips themselves have sound."""
        return with_ending(path)

    def _emotion(self, clip: str) -> str | None:
        try:
            found = self._clips[clip]["attributes"]["emotion"]
            words = [found["labels"]] if not found["sep_flag"] else [part["emotion"] for part in found["labels"]]
        except (KeyError, TypeError):
            return None
        named = {emotion_of(str(word)) for word in words}
        return named.pop() if len(named) == 1 else None


def _clips(side: bytes) -> dict[str, Any]:
    try:
        clips = json.loads(side)["clips"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{Layout.side_file}: not the information file of CelebV-HQ ({error!r}).") from error
    return dict(clips)
