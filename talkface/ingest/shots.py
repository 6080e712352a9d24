"""Shot boundaries in a stream of frames, by PySceneDetect's content detector."""

from typing import Final

import cv2
import numpy as np
from jaxtyping import UInt8
from scenedetect import ContentDetector, FrameTimecode

from talkface import config
from talkface.clip import NS

SIDE: Final = 120
"""Pictures are compared at this length of their longer side, or at up to twice that."""
HOLE_NS: Final = NS
"""A longer hole between two frames ends a shot, whatever they show."""


class ShotCutter:
    """Says, without delay, which frames start a shot. Of times, only holes matter: the frame rate may vary.

    A flash starts a shot twice, when it comes and when it goes. A fade through black starts one where it is black. A
    dissolve of more than a few frames is not found, for neighbouring frames are compared: a track goes on through it as
    far as its face does.
    """

    def __init__(self, config: config.Shots) -> None:
        self._detector = ContentDetector(threshold=config.threshold, min_scene_len=0)
        self._frames = 0
        self._last_ns = 0

    def push(self, rgb: UInt8[np.ndarray, "height width 3"], pts_ns: int) -> bool:
        """Whether this frame, the next in time, starts a shot; the first does."""
        # Without a minimum length the detector only counts frames: any rate will do.
        cuts = self._detector.process_frame(FrameTimecode(self._frames, 25.0), _small(rgb))
        starts = bool(cuts) or self._frames == 0 or pts_ns - self._last_ns > HOLE_NS
        self._frames, self._last_ns = self._frames + 1, pts_ns
        return starts


def _small(rgb: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "small_height small_width 3"]:
    step = max(1, max(rgb.shape[:2]) // (2 * SIDE))
    thinned = np.ascontiguousarray(rgb[::step, ::step])
    size = (max(1, thinned.shape[1] // 2), max(1, thinned.shape[0] // 2))
    return np.asarray(cv2.cvtColor(cv2.resize(thinned, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR))
