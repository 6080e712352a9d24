"""Any folder of videos: the paths say nothing."""

from collections.abc import Sequence

from talkface.clip import Labels
from talkface.ingest.layouts.base import with_ending


class Layout:
    """No labels. A silent video's sound may lie beside it under the same name (``a.mp4`` with ``a.wav``)."""

    name = "plain"
    licence = "unknown"
    side_file = ""
    hint = ""

    def __init__(self, side: bytes | None = None) -> None: ...

    def labels(self, path: str) -> Labels | None:
        """Unknown, for any path."""
        return Labels()

    def audio(self, path: str) -> Sequence[str]:
        """The same name with the endings of sound files."""
        return with_ending(path)
