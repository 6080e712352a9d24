"""VoxCeleb2 (Chung et al., Interspeech 2018): ``mp4/id00012/21Uxsk56VDQ/00001.mp4``, sound in ``aac/.../00001.m4a``."""

import re
from collections.abc import Sequence

from talkface.clip import Labels
from talkface.ingest.layouts.base import SOUND_ENDINGS, with_ending

_PATH = re.compile(r"(?:.*/)?(?P<speaker>id\d{5})/[\w-]{11}/\d{5}(?:\.\w+)?$")


class Layout:
    """The celebrity's number is the speaker. Many languages, which the paths do not tell."""

    name = "voxceleb2"
    licence = "CC-BY-4.0"
    side_file = ""
    hint = ""

    def __init__(self, side: bytes | None = None) -> None: ...

    def labels(self, path: str) -> Labels | None:
        """Speaker."""
        match = _PATH.match(path)
        return Labels(speaker=match["speaker"]) if match else None

    def audio(self, path: str) -> Sequence[str]:
        """The parallel path in the ``aac`` tree; then beside the picture."""
        parallel = re.sub(r"(^|/)mp4/(?=id\d{5}/)", r"\1aac/", path)
        mine = with_ending(parallel, (".m4a", *SOUND_ENDINGS)) if parallel != path else []
        return list(dict.fromkeys([*mine, *with_ending(path)]))
