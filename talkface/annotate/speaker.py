"""Does this face speak, frame by frame: Light-ASD on the face and the sound, and whether its mouth moves."""

from typing import Final

import cv2
import numpy as np
from jaxtyping import Float, Int64, UInt8
from scipy.ndimage import uniform_filter1d

from talkface.annotate._face_squares import SIDE as SQUARE
from talkface.annotate._face_squares import follow, times_of
from talkface.annotate.base import AnnotatorConfig, ClipView, Result
from talkface.clip import NS, ColumnSpec, ScoreSpec, runs
from talkface.face_mesh import LEFT_CORNER, LOWER_LIP, RIGHT_CORNER, UPPER_LIP
from talkface.nets.light_asd import ROWS, SIDE, load_light_asd, log_odds
from talkface.speech.mfcc import mfcc
from talkface.weights import Models

SMOOTH = 5
"""Pictures over whose mean a decision is taken."""
MOTION_NS: Final = NS // 5
"""How far to either side of a frame lips are watched: together about a word."""


class SpeakerConfig(AnnotatorConfig):
    """Nothing to set: thresholds on the column belong to whoever reads it."""


class Annotator:
    """Column ``talk``, NaN in frames without a face and in clips without sound, and ``lip_motion``."""

    name = "speaker"
    version = 2
    columns = (
        ColumnSpec(
            name="talk",
            dtype="float32",
            shape=(),
            unit="log-odds",
            clock="frame",
            description="that this face speaks: above 0 it does",
        ),
        ColumnSpec(
            name="lip_motion",
            dtype="float32",
            shape=(),
            unit="distances of the outer eye corners",
            clock="frame",
            description="the lips' greatest distance less their least, from 0.2 s before to 0.2 s after",
        ),
    )
    scores = (
        ScoreSpec(name="speaking_share", unit="0..1", description="share of the frames with a face in which it speaks"),
    )
    needs = ("box", "lm")
    reads = ("mp4", "flac")
    weights = (("light_asd",),)
    licence = "Apache-2.0"
    on_gpu = True
    Config = SpeakerConfig

    def __init__(self, config: SpeakerConfig) -> None:
        self.config = config

    def open(self, models: Models) -> None:
        """Raises WeightsError if Light-ASD's file cannot be had or is not its."""
        self._net = load_light_asd(models.get("light_asd"))

    def clip(self, view: ClipView) -> Result:
        """The clip's ``talk`` and ``lip_motion``, and how much of it is speech."""
        talk = np.full(len(view.table.timeline), np.nan, np.float32)
        seen = np.isfinite(view.table.columns["box"][:, :4]).all(axis=1)
        faces = follow(view) if view.has_sound else None
        rows = mfcc(view.sound) if view.has_sound else np.zeros((0, 1))
        if faces is not None and len(rows) >= ROWS:
            odds = log_odds(self._net, middle(faces), rows)
            smooth = uniform_filter1d(odds, SMOOTH, mode="nearest")
            talk[seen] = np.interp(view.table.timeline.pts_ns[seen], times_of(view), smooth)
        share = float((talk[seen] > 0).mean()) if np.isfinite(talk).any() else float("nan")
        motion = lip_motion(view.table.columns["lm"], view.table.timeline.pts_ns)
        return Result(columns={"talk": talk, "lip_motion": motion}, scores={"speaking_share": share})


def middle(faces: UInt8[np.ndarray, "n 224 224 3"]) -> UInt8[np.ndarray, "n 112 112"]:
    """The middle half of each square, grey: what Light-ASD was shown."""
    low = (SQUARE - SIDE) // 2
    return np.stack([cv2.cvtColor(face[low : low + SIDE, low : low + SIDE], cv2.COLOR_RGB2GRAY) for face in faces])


def lip_motion(
    meshes: Float[np.ndarray, "frames 478 3"], pts_ns: Int64[np.ndarray, " frames"]
) -> Float[np.ndarray, " frames"]:
    """The lips' greatest distance less their least within `MOTION_NS` of each frame and within the clip.

    In distances of the eyes' outer corners. NaN where a frame has no mesh, or no other near it has one.
    """
    lips, eyes = (
        np.linalg.norm(meshes[:, one] - meshes[:, other], axis=1)
        for one, other in ((UPPER_LIP, LOWER_LIP), (RIGHT_CORNER, LEFT_CORNER))
    )
    apart = np.divide(lips, eyes, out=np.full(len(meshes), np.nan), where=eyes > 0)
    first, after = np.searchsorted(pts_ns, pts_ns - MOTION_NS), np.searchsorted(pts_ns, pts_ns + MOTION_NS, "right")
    motion = np.full(len(meshes), np.nan, np.float32)
    for i in np.flatnonzero(np.isfinite(apart)):
        around = apart[first[i] : after[i]]
        if np.isfinite(around).sum() > 1:
            motion[i] = np.nanmax(around) - np.nanmin(around)
    return motion


def spans(
    talk: Float[np.ndarray, " frames"],
    pts_ns: Int64[np.ndarray, " frames"],
    end_ns: int,
    *,
    min_seconds: float = 0.5,
    max_pause_seconds: float = 0.5,
) -> list[tuple[int, int]]:
    """When a face speaks: start and end in ns, as `Dataset.span` takes them.

    Pauses of up to ``max_pause_seconds`` are bridged, then what is shorter than ``min_seconds`` is dropped. A frame
    without a value is a pause. ``end_ns`` is the clip's end, until which its last frame stays.
    """
    speaks, times = np.nan_to_num(talk, nan=-1.0) > 0, np.append(pts_ns, end_ns).tolist()
    joined: list[tuple[int, int]] = []
    for start, end in ((times[first], times[after]) for first, after, speech in runs(speaks) if speech):
        if joined and start - joined[-1][1] <= max_pause_seconds * NS:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return [(start, end) for start, end in joined if end - start >= min_seconds * NS]
