"""Clips for annotators: a table of columns, a crop, a video. Faces in pictures."""

from io import BytesIO
from pathlib import Path

import cv2
import numpy as np

from talkface import config
from talkface.annotate.base import ClipView
from talkface.annotate.landmarks import FaceMesh
from talkface.clip import NS, Clip, FrameTable, Source, Timeline
from talkface.ingest.faces import ROI_SCALE, Detector, square_around
from talkface.media import VideoWriter


def clip_view(
    frames: int,
    *,
    crop: np.ndarray | None = None,
    video: bytes = b"",
    sound: np.ndarray | None = None,
    **columns: np.ndarray,
) -> ClipView:
    """A clip of 25 frames a second with these frame columns; without ``sound`` its source has none."""
    source = Source(uri="a.mp4", name="a.mp4", sha256="0", size=1, layout="plain")
    matrix = np.eye(2, 3) if crop is None else crop
    end_ns = frames * NS // 25
    clip = Clip(key="a", source=source, start_ns=0, end_ns=end_ns, track=0, shot=0, crop=matrix, crop_size=512)
    timeline = Timeline(np.arange(frames, dtype=np.int64) * (NS // 25))
    samples = np.zeros(frames * 640, np.int16) if sound is None else sound
    return ClipView(clip, FrameTable(timeline, columns), samples, sound is not None, video)


def video_of(pictures: np.ndarray) -> bytes:
    """H.264 of RGB pictures, all but lossless."""
    buffer = BytesIO()
    with VideoWriter(buffer, pictures.shape[2], pictures.shape[1], crf=4) as video:
        for i, picture in enumerate(pictures):
            video.write(picture, i * NS // 25)
    return buffer.getvalue()


def mesh_in(picture: Path, models: Path) -> tuple[np.ndarray, tuple[int, int]]:
    """The mesh (478, 3) of the face in a picture file, and the picture's width and height."""
    pixels = np.ascontiguousarray(cv2.imread(str(picture))[..., ::-1])
    faces = Detector("yunet", models / "yunet_n_640_640.onnx", config.Faces()).detect(pixels)
    mesh = FaceMesh(models / "face_landmarker.task").detect(pixels, square_around(faces[0, :4], ROI_SCALE))
    assert mesh is not None, picture
    return mesh.points, (pixels.shape[1], pixels.shape[0])
