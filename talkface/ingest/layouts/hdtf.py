"""HDTF (Zhang et al., CVPR 2021): addresses of politicians, as ``<set>_<name>_<clip>.mp4``.

The sets are ``RD`` (``RD_Radio1_000``), ``WDA`` (``WDA_KatieHill_000``) and ``WRA`` (``WRA_MarcoRubio_000``).
"""

import re
from collections.abc import Sequence

from talkface.clip import Labels
from talkface.ingest.layouts.base import with_ending

_NAME = re.compile(r"(?:.*[/_])?(?P<set>RD|WDA|WRA)_(?P<name>[A-Za-z0-9.'-]+?)(?P<video>\d*)_\d{1,3}(?:\.\w+)?$")


class Layout:
    """The name is the speaker, without the number of the video (``ChrisMurphy0`` and ``ChrisMurphy1`` are one person).

    Clips of the set ``RD`` are told apart by video (``Radio1``): their names do not say who speaks. English.
    """

    name = "hdtf"
    licence = "CC-BY-4.0"
    side_file = ""
    hint = ""

    def __init__(self, side: bytes | None = None) -> None: ...

    def labels(self, path: str) -> Labels | None:
        """Speaker."""
        match = _NAME.match(path)
        if match is None:
            return None
        video = match["video"] if match["set"] == "RD" else ""
        return Labels(speaker=match["name"] + video, language="en")

    def audio(self, path: str) -> Sequence[str]:
        """Beside the picture; the clips themselves have sound."""
        return with_ending(path)
