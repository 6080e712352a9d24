"""What the annotators are tested on where the real thing cannot be had: model files of the true format with random
weights, and a clip of a synthetic face.

To cover an annotator whose weights cannot be fetched freely, add a maker of its file to ``MAKERS``.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np

from talkface.clip import NS
from talkface.media import VideoWriter
from talkface.render.identity import Identity
from talkface.render.performance import perform
from talkface.render.raster import Camera
from talkface.render.rig import wall
from talkface.render.synthetic import head_of, pictures
from talkface.weights import REGISTRY, Models

SIZE = 512

MAKERS: dict[str, Callable[[Path], None]] = {}
"""Name in the registry to what writes such a file (or folder) with random weights."""


def stand_in_models(folder: Path, *names: str) -> Models:
    """Models that find the named entries' stand-ins in ``folder``, where they are made if they are not there yet."""
    registry = dict(REGISTRY)
    for name in names:
        registry[name] = replace(REGISTRY[name], sha256="", size=0)
        path = folder / REGISTRY[name].filename
        if not path.exists():
            MAKERS[name](path)
    return Models(folder, offline=True, registry=registry)


@cache
def synthetic_video(seed: int, frames: int) -> bytes:
    """H.264 of a synthetic face in the middle of 512 x 512 pixels, 25 frames a second."""
    pts_ns = np.arange(frames, dtype=np.int64) * (NS // 25)
    identity = Identity.from_seed(seed)
    acted = perform(pts_ns, identity, emotion="happy", intensity=2, seed=seed, seconds=frames / 25, motion="talk")
    camera = Camera(width=SIZE, height=SIZE)
    buffer = BytesIO()
    with VideoWriter(buffer, SIZE, SIZE) as video:
        shown = pictures([(head_of(identity), acted)], camera, wall(SIZE, SIZE, identity.wall))
        for rgb, at in zip(shown, pts_ns.tolist(), strict=True):
            video.write(rgb, at)
    return buffer.getvalue()
