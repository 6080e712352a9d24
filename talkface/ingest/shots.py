"""Shot boundaries in a stream of frames, by PySceneDetect's content detector."""

from typing import Final

import cv2
import numpy as np
from jaxtyping import UInt8
from scenedetect import ContentDetector, FrameTimecode

from talkface import config
from talkface.clip import NS

WIDTH: Final = 160
"""Pictures are compared at about this many pixels across."""


class ShotCutter:
    """Says, without delay, which frames start a shot. Only the order of frames matters, not their rate.

    ``shot`` is the number of the shot that the last frame belongs to, from 0. A change sooner than ``min_seconds``
    after the last one starts the same shot anew: a flash leaves two starts and one more shot, not two. Dissolves and
    slow fades are not found: PySceneDetect compares neighbouring frames.
    """

    def __init__(self, config: config.Shots) -> None:
        self._detector = ContentDetector(threshold=config.threshold, min_scene_len=0)
        self._min_ns = round(config.min_seconds * NS)
        self._frames = 0
        self._start_ns = 0
        self.shot = 0

    def push(self, rgb: UInt8[np.ndarray, "height width 3"], pts_ns: int) -> bool:
        """Whether this frame, the next in time, starts a shot; the first does."""
        # With no minimum length the detector counts frames only; any rate will do.
        cuts = self._detector.process_frame(FrameTimecode(self._frames, 25.0), _small(rgb))
        self._frames += 1
        if self._frames == 1:
            self._start_ns = pts_ns
            return True
        if not cuts:
            return False
        self.shot += pts_ns - self._start_ns >= self._min_ns
        self._start_ns = pts_ns
        return True


def _small(rgb: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "small_height small_width 3"]:
    step = max(1, rgb.shape[1] // (2 * WIDTH))
    thinned = rgb[::step, ::step]
    size = (WIDTH, max(1, round(WIDTH * rgb.shape[0] / rgb.shape[1])))
    small = cv2.resize(np.ascontiguousarray(thinned), size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
