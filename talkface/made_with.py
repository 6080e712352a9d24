"""What, besides code and settings, decides what annotators give: versions of libraries, and what they compute on."""

import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from talkface.annotate.base import Annotator

LIBRARIES: Final = (
    "ai-edge-litert", "av", "face-alignment", "mediapipe", "numpy", "opencv-contrib-python-headless", "scenedetect",
    "scipy", "silero-vad", "torch", "transformers",
)  # fmt: skip
"""Other versions do not make a pack worthless, so its index says which they were."""


def made_with(annotators: Iterable[Annotator]) -> dict[str, str]:
    """Versions of the libraries that are installed here, and as ``device`` what these open annotators compute on: the
    GPU's name where one of them uses it, else ``cpu``."""
    on_gpu = any(getattr(annotator, "on_gpu", False) for annotator in annotators)
    cuda = sys.modules["torch"].cuda if on_gpu else None
    return {**_versions(), "device": cuda.get_device_name() if cuda and cuda.is_available() else "cpu"}


@cache
def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
