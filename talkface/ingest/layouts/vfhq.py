"""VFHQ (Xie et al., CVPRW 2022): high-quality faces without sound.

Names are ``Clip+<video>+P<person>+C<clip>+F<from>-<to>.mp4``.
"""

import re
from collections.abc import Sequence

from talkface.clip import Labels

_NAME = re.compile(r"(?:.*/)?Clip\+(?P<video>[\w-]{11})\+P(?P<person>\d+)\+C\d+\+F\d+-\d+[^/]*$")


class Layout:
    """The video's id and the number of the person in it make the speaker (``G0DGRma_p48-P0``)."""

    name = "vfhq"
    licence = "unknown"
    side_file = ""
    hint = ""

    def __init__(self, side: bytes | None = None) -> None: ...

    def labels(self, path: str) -> Labels | None:
        """Speaker."""
        match = _NAME.match(path)
        return Labels(speaker=f"{match['video']}-P{match['person']}") if match else None

    def audio(self, path: str) -> Sequence[str]:
        """Nowhere: the dataset has no sound."""
        return ()
