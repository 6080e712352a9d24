"""Clips of synthetic people with their ground truth, and the demo's input set."""

import wave
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Int16, Int64, UInt8
from scipy.spatial.transform import Rotation

from talkface.clip import NS
from talkface.media import VideoWriter
from talkface.render.identity import Identity
from talkface.render.label import label
from talkface.render.performance import Motion, Performance, perform
from talkface.render.raster import Camera
from talkface.render.rig import Canvas, Head, wall
from talkface.vocab import ARKIT, SAMPLE_RATE

TAGS = label("Made by toolkit synth.")
"""What every clip says of itself."""

PEOPLE = {
    "M003": Identity(jaw=1.03, brow=1.15, lips=0.85, lip=(200, 126, 116), voice_hz=112, eye=(70, 112, 150)),
    "W009": Identity.from_seed(2).varied(
        hair="long",
        skin=(168, 116, 84),
        lip=(168, 72, 76),
        hair_colour=(40, 28, 28),
        eye=(84, 54, 34),
        clothes=(196, 152, 70),
        beard=0.0,
        jaw=0.93,
        lips=1.15,
        brow=0.8,
        voice_hz=205,
        tract=1.15,
    ),
    "M012": Identity(
        hair="bald",
        beard=0.5,
        skin=(122, 82, 60),
        lip=(134, 78, 70),
        hair_colour=(34, 26, 24),
        eye=(54, 38, 28),
        clothes=(66, 112, 96),
        wall=(214, 204, 190),
        nose_width=1.12,
        jaw=1.05,
        voice_hz=98,
        tract=0.97,
    ),
    "W021": Identity(
        hair="bun",
        skin=(244, 212, 192),
        lip=(206, 88, 92),
        hair_colour=(150, 72, 38),
        eye=(84, 124, 78),
        clothes=(116, 84, 138),
        wall=(190, 208, 196),
        width=0.97,
        jaw=0.92,
        lips=1.1,
        brow=0.75,
        nose=0.9,
        voice_hz=215,
        tract=1.17,
    ),
}
"""The demo's cast, by MEAD-like speaker name."""


def steady(seconds: float, fps: float = 25.0) -> Int64[np.ndarray, " frames"]:
    """Timestamps in ns of a clip of constant rate that begins at 0."""
    return np.round(np.arange(round(seconds * fps)) * (NS / fps)).astype(np.int64)


@lru_cache(maxsize=8)
def head_of(identity: Identity) -> Head:
    """The head of a person; modelling and painting one takes half a second."""
    return Head(identity)


def make_clip(
    path: str | Path,
    *,
    identity: Identity,
    emotion: str = "neutral",
    intensity: int = 2,
    seed: int = 0,
    seconds: float = 4.0,
    fps: float = 25.0,
    size: tuple[int, int] = (512, 512),
    pts: Int64[np.ndarray, " frames"] | None = None,
    motion: Motion = "talk",
    background: UInt8[np.ndarray, "height width 3"] | None = None,
    sound: bool = True,
) -> Performance:
    """Write ``path`` (H.264, AAC unless ``sound`` is False) and beside it ``<name>.truth.npz``.

    ``pts`` (ns, rising, from 0) overrides ``fps``; ``size`` is width, height. Same arguments, same pixels and truth.
    """
    pts_ns = steady(seconds, fps) if pts is None else np.asarray(pts, np.int64)
    acted = perform(pts_ns, identity, emotion=emotion, intensity=intensity, seed=seed, seconds=seconds, motion=motion)
    camera = Camera(width=size[0], height=size[1])
    if background is None:
        background = wall(*size, identity.wall)
    cast = [(head_of(identity), acted)]
    _write(Path(path), cast, camera, background, acted.speech.sound if sound else None)
    save_truth(truth_path(path), cast, camera)
    return acted


def pictures(
    cast: Sequence[tuple[Head, Performance]], camera: Camera, background: UInt8[np.ndarray, "height width 3"]
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Frame by frame, RGB; the first of the cast is drawn first."""
    turned = [acted.rotation for _, acted in cast]
    for i in range(len(cast[0][1].pts_ns)):
        canvas = Canvas(camera, background)
        for (head, acted), rotation in zip(cast, turned, strict=True):
            head.draw(canvas, acted.arkit[i], rotation[i], acted.translation[i])
        yield canvas.picture()


def truth(head: Head, acted: Performance, camera: Camera) -> dict[str, np.ndarray]:
    """Ground truth of one person, a row a frame.

    ``mouth_open`` is in cm, ``blink`` the mean of both eyes, ``quaternion`` wxyz head to camera, ``box`` x0 y0 x1 y1 in
    pixels around upper forehead, ears and chin, ``phrases`` start and end of each spoken phrase in seconds.
    """
    rotation = acted.rotation
    blink = [ARKIT.index("eyeBlinkLeft"), ARKIT.index("eyeBlinkRight")]
    rows = list(zip(acted.arkit, rotation, acted.translation, strict=True))
    return {
        "pts_ns": acted.pts_ns,
        "arkit": acted.arkit.astype(np.float32),
        "mouth_open": np.array([head.mouth_open(a) for a in acted.arkit], np.float32),
        "blink": acted.arkit[:, blink].mean(axis=1).astype(np.float32),
        "yaw_degrees": acted.yaw_degrees,
        "pitch_degrees": acted.pitch_degrees,
        "roll_degrees": acted.roll_degrees,
        "rotation": rotation,
        "quaternion": Rotation.from_matrix(rotation).as_quat()[:, [3, 0, 1, 2]],
        "translation": acted.translation,
        "box": np.array([head.box(*row, camera) for row in rows], np.float32),
        "phrases": np.array(acted.speech.phrases, np.float64).reshape(-1, 2),
        "sample_rate": np.array(SAMPLE_RATE),
        "fov_degrees": np.array(camera.fov_degrees),
    }


def save_truth(path: Path, cast: Sequence[tuple[Head, Performance]], camera: Camera) -> None:
    """One array a name; with more than one person the names of the second begin with ``second_``, and so on."""
    arrays = {}
    for prefix, (head, acted) in zip(("", "second_", "third_"), cast, strict=False):
        arrays.update({prefix + name: value for name, value in truth(head, acted, camera).items()})
    np.savez(path, **arrays)


def truth_path(path: str | Path) -> Path:
    """Where a clip's truth lies."""
    return Path(path).with_suffix(".truth.npz")


def make_demo(folder: str | Path, *, seconds: float = 4.4) -> list[Path]:
    """Write the demo's input: a MEAD-like tree, a clip of two people who talk in turn, and a file that is no video.

    Speakers M003 and M012 have their sound in MEAD's ``audio`` tree, the others inside the video. Returns the
    paths of the videos, the impostor's last. Existing files of the same names are overwritten.
    """
    root = Path(folder)
    plan: tuple[tuple[str, str, int, Motion], ...] = (
        ("M003", "angry", 3, "shake"),
        ("M003", "neutral", 1, "look_around"),
        ("M003", "happy", 2, "nod"),
        ("W009", "happy", 3, "talk"),
        ("W009", "surprised", 2, "nod"),
        ("W009", "sad", 2, "still"),
        ("M012", "disgusted", 3, "sway"),
        ("M012", "contempt", 2, "talk"),
        ("W021", "fear", 3, "look_around"),
    )
    made = [_mead_clip(root, *row, seed=i, seconds=seconds) for i, row in enumerate(plan)]
    made.append(two_people(root / "interview" / "two_people.mp4", seconds=seconds))
    impostor = root / "M012" / "video" / "front" / "neutral" / "level_1" / "001.mp4"
    impostor.parent.mkdir(parents=True, exist_ok=True)
    impostor.write_text("This file is called .mp4, and it is no video.\n")
    return [*made, impostor]


def _mead_clip(
    root: Path, name: str, emotion: str, intensity: int, motion: Motion, *, seed: int, seconds: float
) -> Path:
    leaf = Path(emotion) / f"level_{intensity}" / "001"
    path = (root / name / "video" / "front" / leaf).with_suffix(".mp4")
    path.parent.mkdir(parents=True, exist_ok=True)
    apart = name.startswith("M")
    acted = make_clip(
        path,
        identity=PEOPLE[name],
        emotion=emotion,
        intensity=intensity,
        seed=seed,
        seconds=seconds,
        motion=motion,
        sound=not apart,
    )
    if apart:
        write_wav((root / name / "audio" / leaf).with_suffix(".wav"), acted.speech.sound)
    return path


def two_people(path: Path, *, seconds: float = 4.8, seed: int = 40) -> Path:
    """Two people side by side, turned to each other a little, who talk in turn; truth of both."""
    pts_ns = steady(seconds)
    half = seconds / 2
    cast = []
    for i, (name, turns, x, facing) in enumerate(
        (("W021", [(0.2, half - 0.1)], -15.0, 14.0), ("M003", [(half + 0.1, seconds - 0.2)], 15.0, -14.0))
    ):
        acted = perform(
            pts_ns,
            PEOPLE[name],
            emotion="happy" if i == 0 else "neutral",
            intensity=1,
            seed=seed + i,
            seconds=seconds,
            turns=turns,
            place=(x, 0.5, -46.0),
            facing_degrees=facing,
        )
        cast.append((head_of(PEOPLE[name]), acted))
    camera = Camera(width=832, height=480)
    path.parent.mkdir(parents=True, exist_ok=True)
    mixed = np.clip(sum(a.speech.sound.astype(np.int32) for _, a in cast), -32768, 32767).astype(np.int16)
    background = wall(camera.width, camera.height, PEOPLE["W021"].wall)
    _write(path, cast, camera, background, mixed)
    save_truth(truth_path(path), cast, camera)
    return path


def write_wav(path: Path, sound: Int16[np.ndarray, " samples"]) -> None:
    """16 kHz mono PCM."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(sound.astype("<i2").tobytes())


def _write(
    path: Path,
    cast: Sequence[tuple[Head, Performance]],
    camera: Camera,
    background: UInt8[np.ndarray, "height width 3"],
    sound: Int16[np.ndarray, " samples"] | None,
) -> None:
    with VideoWriter(path, camera.width, camera.height, sound=sound, tags=TAGS) as video:
        for rgb, pts_ns in zip(pictures(cast, camera, background), cast[0][1].pts_ns.tolist(), strict=True):
            video.write(rgb, pts_ns)
