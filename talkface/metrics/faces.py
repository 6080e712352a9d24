"""Faces to measure, from motion files and datasets, and which of them belong together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from talkface.datasets.export import motion_of
from talkface.datasets.open import open_dataset
from talkface.datasets.reader import Dataset
from talkface.datasets.resample import resample
from talkface.errors import ConfigError
from talkface.media import ClipFrames, VideoReader, decode_flac, read_sound
from talkface.metrics.base import Face
from talkface.motion import Motion
from talkface.vocab import ARKIT

Rig = Callable[[np.ndarray, np.ndarray], Mapping[str, np.ndarray]]
"""From columns ``arkit`` and ``head`` to ``lips`` and ``rig68``."""
MORE = ("flame", "lm68", "identity")
"""Columns besides blendshapes and head that a dataset may have."""
SCORES = ("lse_d", "lse_c")
"""Scores of a dataset's clips that are measures themselves."""
MOTIONS = (".npz", ".csv")
VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".flv")
"""What a folder is searched for; a file that is named may have any other suffix."""
CROP = 256
"""Pixels of the crop in which real landmarks are measured, as in the papers."""


def of_motion(motion: Motion, key: str) -> Face:
    """Motion as a face without sound."""
    columns = {"arkit": motion.arkit, "head": motion.head}
    return Face(key=key, pts_ns=motion.pts_ns, columns=columns, provenance=motion.provenance)


def on_rig(face: Face, rig: Rig) -> Face:
    """A face with ``lips`` and ``rig68``: the built-in head moved by it; one without blendshapes as it is."""
    if "arkit" not in face.columns or "head" not in face.columns:
        return face
    return replace(face, columns={**face.columns, **rig(face.columns["arkit"], face.columns["head"])})


def of_clip(dataset: Dataset, key: str) -> Face:
    """A clip of a dataset with landmarks in the crop, sound, pictures, identity and scores, as far as it has them."""
    specs = {s.name for s in dataset.specs()}
    moves = {"arkit", "head"} <= specs
    plain = Face(key=key, pts_ns=dataset.arrays(key, ["pts"])["pts"], columns={})
    face = of_motion(motion_of(dataset, key), key) if moves else plain
    there = specs & set(MORE)
    columns = dict(dataset.arrays(key, sorted(there)))
    about = dataset.sample(key, ["json"])["json"]
    if "lm68" in columns:
        crop = np.array(about["crop"])
        columns["lm68"] = (columns["lm68"] @ crop[:, :2].T + crop[:, 2]) * (CROP / about["crop_size"])
    identity = columns.pop("identity", None)
    heard = about["scores"].get("has_sound", 1.0) != 0.0
    return replace(
        face,
        columns={**face.columns, **columns},
        identity=identity if identity is not None and np.isfinite(identity).all() else None,
        scores=_scores(dataset, key),
        lacking={name: why for name in (*MORE, *SCORES) if (why := dataset.stale(name))},
        sound=decode_flac(dataset.member(key, "flac")) if heard else None,
        labels=about["labels"],
        pictures=(lambda: iter(ClipFrames(dataset.member(key, "mp4")))) if dataset.info.has_video else None,
    )


def of_video(path: str | Path) -> Face:
    """A video file as a face of which pictures and sound are known. Raises MediaError for what is no video."""
    uri = str(path)
    with VideoReader(uri) as frames:
        pts = np.array([frame.pts_ns for frame in frames], np.int64)
        end = int(pts[-1]) + frames.frame_duration_ns if len(pts) else 0
    sound = read_sound(uri, 0, end)
    return Face(
        key=Path(path).stem, pts_ns=pts, columns={}, provenance={"video": Path(path).name},
        sound=sound.samples if sound.present else None, pictures=lambda: (frame.rgb for frame in VideoReader(uri)),
    )  # fmt: skip


def _scores(dataset: Dataset, key: str) -> Mapping[str, float]:
    row = dataset.clips.slice(dataset.row(key), 1)
    found = {name: row.column(name)[0].as_py() for name in SCORES if name in row.column_names}
    return {name: value for name, value in found.items() if value is not None and np.isfinite(value)}


TRUTH = ".truth.npz"
"""Ending of what is known of a synthetic video, which lies beside it."""


def read_faces(where: str) -> list[Face]:
    """Faces in a motion file or video, a folder of either, or a dataset: the clips that its ``selection.json`` shows.

    Raises ConfigError where there is none of these.
    """
    path = Path(where)
    if path.is_file():
        return [_of_file(path)]
    if path.is_dir() and not (path / "dataset.json").is_file():
        kinds = (*MOTIONS, *VIDEOS)
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in kinds and not p.name.endswith(TRUTH))
        if not files:
            raise ConfigError(f"{where}: no motion file (.npz, .csv), no video and no dataset in it.")
        return [_of_file(p) for p in files]
    dataset = open_dataset(where)
    return [of_clip(dataset, key) for key in dataset.keys()]  # noqa: SIM118


def _of_file(path: Path) -> Face:
    return of_motion(Motion.load(path), path.stem) if path.suffix.lower() in MOTIONS else of_video(path)


def pair_up(generated: Sequence[Face], references: Sequence[Face]) -> list[tuple[Face, Face]]:
    """Generated faces and the references they stand for, on the generated faces' clocks.

    One and one belong together. Otherwise a face belongs to the reference whose key it has, or with which its name or
    its provenance's ``clip`` begins. A generated face without sound takes its reference's.
    """
    pairs = []
    for face in generated:
        own = _reference_of(face, references, alone=len(generated) == len(references) == 1)
        if own is not None:
            heard = replace(face, sound=own.sound if face.sound is None else face.sound)
            pairs.append((heard, at_times(own, face.pts_ns)))
    return pairs


def _reference_of(face: Face, references: Sequence[Face], *, alone: bool) -> Face | None:
    if alone:
        return references[0]
    names = (face.key, str(face.provenance.get("clip", "")))
    fitting = [r for r in references if any(n.startswith(r.key) for n in names)]
    return max(fitting, key=lambda r: len(r.key), default=None)


def at_times(face: Face, pts_ns: Int64[np.ndarray, " frames"]) -> Face:
    """A face at other times; outside its own clock it is missing. Pictures are left as they are."""
    if np.array_equal(face.pts_ns, pts_ns):
        return face
    columns = {n: resample(v, face.pts_ns, pts_ns) for n, v in face.columns.items() if n != "head"}
    if "head" in face.columns:
        head = face.columns["head"]
        turn = resample(head[:, :4], face.pts_ns, pts_ns, "slerp")
        columns["head"] = np.concatenate([turn, resample(head[:, 4:], face.pts_ns, pts_ns)], axis=1)
    return replace(face, pts_ns=pts_ns, columns=columns, picture_pts_ns=face.times_of_pictures())


def known_shapes(*tables: np.ndarray) -> np.ndarray:
    """Which of the 52 shapes hold any number in all tables: MediaPipe knows no tongueOut."""
    known = np.ones(len(ARKIT), bool)
    for table in tables:
        known &= np.isfinite(table).any(axis=0)
    return known
