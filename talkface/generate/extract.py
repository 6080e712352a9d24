"""From one file to what is known of the face in it: a portrait out of a picture, a small dataset out of a video."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from talkface.annotate.base import ClipView
from talkface.annotate.landmarks import FaceMesh
from talkface.clip import Clip, FrameTable, Probe, Source, Timeline
from talkface.config import Build, Cut, Ingest, Pack
from talkface.datasets.build.job import build
from talkface.datasets.reader import Dataset
from talkface.errors import SourceError
from talkface.ingest import job
from talkface.ingest.crop import Crops, Region, Spools
from talkface.ingest.faces import DETECTORS, Detector, Face, Tracker
from talkface.ingest.pipeline import face_rows, make_annotators
from talkface.ingest.scan import scan
from talkface.make_dataset import plan_of
from talkface.media import read_picture
from talkface.store import Folder
from talkface.train.protocols import Portrait
from talkface.weights import Models

ANNOTATORS = ("box", "landmarks", "arkit", "head")
EVER = 1e6
"""Seconds: a track is one clip however long it lasts."""


@contextmanager
def ingested(video: str, models: Models, *, keep_video: bool = True) -> Iterator[Dataset]:
    """The dataset of one video, each face's track one clip, in a folder that is removed at the end of the block.

    Raises SourceError where no face is found.
    """
    cut = Cut(min_seconds=0.2, max_seconds=EVER)
    pack = Pack(annotators=ANNOTATORS, cut=cut, unit_seconds=EVER, keep_video=keep_video)
    settings = Ingest(pack=pack, build=Build(thresholds={}, val=0, test=0))
    with TemporaryDirectory() as folder:
        result = job.ingest(scan([video]), Folder(folder), settings, models, workers=0)
        build(Folder(folder), plan_of(result, settings))
        dataset = Dataset(folder)
        if len(dataset) == 0:
            why = result.rejects[0]["reason"] if result.rejects else "no face found"
            raise SourceError(f"{video}: no valid face in it ({why}). Give a video that shows a face.", "no_face")
        yield dataset


def longest(dataset: Dataset) -> str:
    """Key of the clip that lasts longest."""
    return max(dataset.keys(), key=dataset.duration_ns)


def read_portrait(path: str, models: Models) -> Portrait:
    """The face in a picture file, found and cropped as an ingest does.

    Raises MediaError for what is no picture, SourceError where it does not show exactly one face.
    """
    pixels, pack = read_picture(path), Pack(annotators=ANNOTATORS, keep_video=False)
    faces = _faces(pixels, models, pack)
    if len(faces) != 1 or faces[0].mesh is None:
        found = f"{len(faces)} faces" if len(faces) > 1 else "no face"
        raise SourceError(
            f"{path}: {found} found. Give --picture a picture that shows one face, or crop it.", "no_face"
        )
    face = faces[0]
    region = Region(pack, face.box[:4], pixels)
    square = region.crop(region.covered([face.box[:4]]))
    spool = Spools().open(region.kept)
    spool.write(region.take(pixels))
    picture = next(iter(Crops(spool, 1, square, pack.video.size)))
    height, width = pixels.shape[:2]
    probe = Probe(container="picture", duration=0.0, width=width, height=height)
    source = Source(uri=path, name=path, sha256="", size=0, layout="plain", probe=probe)
    clip = Clip(
        key="portrait", source=source, start_ns=0, end_ns=1, track=0, shot=0, crop=region.matrix(square),
        crop_size=pack.video.size,
    )  # fmt: skip
    columns = _columns(pixels, face, clip, pack, models)
    zoom = float(np.sqrt(np.linalg.det(clip.crop[:, :2])))
    corners = clip.to_crop(columns["box"][:4].reshape(2, 2)).ravel()
    lm = np.column_stack([clip.to_crop(columns["lm"][:, :2]), columns["lm"][:, 2] * zoom])
    return Portrait(
        picture=picture, box=np.array([*corners, columns["box"][4]], np.float32), lm=lm.astype(np.float32),
        columns={name: columns[name] for name in ("arkit", "head")}, name=Path(path).name,
        sha256=hashlib.sha256(Path(path).read_bytes()).hexdigest(),
    )  # fmt: skip


def _faces(pixels: np.ndarray, models: Models, pack: Pack) -> Sequence[Face]:
    """The faces of a picture, by the detector and the mesh of an ingest."""
    cv2.setNumThreads(1)
    weight, path = models.choose(FaceMesh.weights)
    mesh = FaceMesh(path if weight.name == "face_landmarker" else None)
    detector, detector_path = models.choose(DETECTORS)
    return Tracker(Detector(detector.name, detector_path, pack.faces), mesh, pack.faces).push(pixels, 0, new_shot=True)


def _columns(pixels: np.ndarray, face: Face, clip: Clip, pack: Pack, models: Models) -> dict[str, np.ndarray]:
    """The frame's columns in source pixels, by the annotators of an ingest."""
    annotators = make_annotators(pack)
    for annotator in annotators:
        annotator.open(models)
    rows = face_rows(annotators, pixels, 0, face, 1)
    columns = {name: value[None] for name, value in rows.items()}
    for annotator in annotators:
        if hasattr(annotator, "clip"):
            table = FrameTable(Timeline(np.zeros(1, np.int64)), columns)
            view = ClipView(clip, table, np.zeros(0, np.int16), has_sound=False)
            columns |= dict(annotator.clip(view).columns)
    return {name: np.asarray(value)[0] for name, value in columns.items()}
