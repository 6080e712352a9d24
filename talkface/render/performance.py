"""What a synthetic person does over time: expression, blinks, gaze, speech and head motion, as functions of time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int64

from talkface.clip import NS
from talkface.render.identity import Identity
from talkface.render.rig import PIVOT, rotation_matrix
from talkface.render.voice import Speech, speak
from talkface.vocab import ARKIT, EMOTIONS, INTENSITIES, MOUTH

Motion = Literal["still", "talk", "nod", "shake", "look_around", "sway"]
MOTIONS: tuple[Motion, ...] = get_args(Motion)
DISTANCE = 40.0
"""Usual distance of the head from the camera, in cm."""
_INDEX = {name: i for i, name in enumerate(ARKIT)}
_MOUTH = np.array([_INDEX[name] for name in MOUTH])
_STRENGTH = dict(zip(INTENSITIES, (0.45, 0.72, 1.0), strict=True))

EXPRESSIONS: Mapping[str, Mapping[str, float]] = {
    "neutral": {},
    "angry": {
        "browDown": 0.95,
        "eyeSquint": 0.4,
        "noseSneer": 0.45,
        "mouthPress": 0.35,
        "mouthFrown": 0.4,
        "jawForward": 0.25,
    },
    "contempt": {
        "mouthSmileLeft": 0.6,
        "mouthDimpleLeft": 0.6,
        "cheekSquintLeft": 0.3,
        "browDownLeft": 0.3,
        "browOuterUpRight": 0.55,
        "eyeSquint": 0.3,
        "mouthLeft": 0.2,
    },
    "disgusted": {
        "noseSneer": 0.95,
        "mouthUpperUp": 0.5,
        "browDown": 0.55,
        "eyeSquint": 0.45,
        "cheekSquint": 0.4,
        "mouthFrown": 0.4,
        "mouthShrugLower": 0.3,
    },
    "fear": {
        "eyeWide": 0.85,
        "browInnerUp": 0.9,
        "browOuterUp": 0.4,
        "mouthStretch": 0.6,
        "jawOpen": 0.1,
        "mouthLowerDown": 0.15,
    },
    "happy": {"mouthSmile": 0.85, "cheekSquint": 0.6, "eyeSquint": 0.35, "mouthUpperUp": 0.2, "browOuterUp": 0.15},
    "sad": {"browInnerUp": 0.9, "mouthFrown": 0.7, "mouthShrugLower": 0.35, "eyeSquint": 0.15, "eyeLookDown": 0.2},
    "surprised": {"eyeWide": 0.9, "browInnerUp": 0.8, "browOuterUp": 0.85, "jawOpen": 0.22, "mouthFunnel": 0.15},
}
"""Full expression by emotion; a stem without Left or Right names both sides."""

_VOICES: Mapping[str, tuple[float, float, float]] = {
    "angry": (1.12, 1.1, 1.3),
    "contempt": (0.94, 0.92, 0.95),
    "disgusted": (0.95, 0.95, 1.0),
    "fear": (1.22, 1.18, 0.95),
    "happy": (1.15, 1.06, 1.15),
    "neutral": (1.0, 1.0, 1.0),
    "sad": (0.9, 0.85, 0.8),
    "surprised": (1.25, 1.05, 1.2),
}
"""Pitch, rate and effort of the voice at full intensity."""


@dataclass(frozen=True)
class Performance:
    """Ground truth of a clip, a row a frame; ``rotation`` maps head to camera, ``translation`` is in cm.

    Angles are in degrees, signs as in ``rig.rotation_matrix``.
    """

    pts_ns: Int64[np.ndarray, " frames"]
    arkit: Float[np.ndarray, "frames 52"]
    yaw_degrees: Float[np.ndarray, " frames"]
    pitch_degrees: Float[np.ndarray, " frames"]
    roll_degrees: Float[np.ndarray, " frames"]
    translation: Float[np.ndarray, "frames 3"]
    speech: Speech

    @property
    def rotation(self) -> Float[np.ndarray, "frames 3 3"]:
        """Head to camera."""
        angles = zip(self.yaw_degrees, self.pitch_degrees, self.roll_degrees, strict=True)
        return np.stack([rotation_matrix(*a) for a in angles])


def perform(
    pts_ns: Int64[np.ndarray, " frames"],
    identity: Identity,
    *,
    emotion: str = "neutral",
    intensity: int = 2,
    seed: int = 0,
    seconds: float | None = None,
    motion: Motion = "talk",
    turns: Sequence[tuple[float, float]] | None = None,
    place: Sequence[float] = (0.0, 0.5, -DISTANCE),
    facing_degrees: float = 0.0,
) -> Performance:
    """Act for the frames at ``pts_ns``; the same arguments give the same performance.

    ``turns`` limits speech to spans in seconds, ``place`` is where the resting head stands, ``facing_degrees`` the yaw
    about which it moves. ``seconds`` is the length of the sound (default: to the last frame).
    """
    if emotion not in EMOTIONS or intensity not in INTENSITIES:
        raise ValueError(f"expected one of {EMOTIONS} and {INTENSITIES}, got {emotion!r} and {intensity!r}")
    rng = np.random.default_rng([seed, EMOTIONS.index(emotion), intensity])
    t = pts_ns / NS
    seconds = float(t[-1]) + 0.04 if seconds is None else seconds
    strength = _STRENGTH[intensity]
    pitch, rate, effort = (1 + (v - 1) * strength for v in _VOICES[emotion])
    speech = speak(seconds, identity, rng, turns=turns, pitch=pitch, rate=rate, effort=effort)
    angles = _head_angles(t, motion, speech, rng) + np.array([facing_degrees, -3.0, 0.0])
    arkit = _face(t, strength * _pose(EXPRESSIONS[emotion]), speech, rng)
    blink = blinks(t, seconds, rng)
    for side in ("Left", "Right"):
        arkit[:, _INDEX["eyeBlink" + side]] = blink
    _hold_gaze(arkit, angles, facing_degrees)
    drift = np.stack([0.5 * _wander(t, rng, 0.2), 0.25 * _wander(t, rng, 0.25), 0.8 * _wander(t, rng, 0.15)], axis=1)
    seat = np.stack([PIVOT - rotation_matrix(*a) @ PIVOT for a in angles])
    yaw, pitch_, roll = angles.T
    return Performance(pts_ns, arkit, yaw, pitch_, roll, np.asarray(place) + drift + seat, speech)


def _wander(t: np.ndarray, rng: np.random.Generator, hertz: float) -> Float[np.ndarray, " frames"]:
    """Smooth noise of about unit size around 0: a few sines near and below a frequency."""
    rates = hertz * np.array([0.37, 0.71, 1.0, 1.63])
    phases = rng.uniform(0, 2 * np.pi, 4)
    return np.asarray((np.sin(2 * np.pi * np.outer(t, rates) + phases) * (0.5, 0.5, 0.4, 0.2)).sum(axis=1))


def _head_angles(
    t: np.ndarray, motion: Motion, speech: Speech, rng: np.random.Generator
) -> Float[np.ndarray, "frames 3"]:
    """Yaw, pitch, roll in degrees."""
    calm = 0.25 if motion == "still" else 1.0
    yaw = 5.0 * calm * _wander(t, rng, 0.3)
    pitch = 3.0 * calm * _wander(t, rng, 0.35)
    roll = 3.0 * calm * _wander(t, rng, 0.25)
    swing = rng.uniform(0, 2 * np.pi)
    if motion == "talk":
        stress = np.mean([speech.loudness(t + offset) for offset in np.linspace(-0.1, 0.1, 5)], axis=0)
        pitch -= 4.0 * (stress - 0.3)
    elif motion == "nod":
        pitch += 8.0 * np.sin(2 * np.pi * 1.1 * t + swing) * (0.4 + 0.6 * np.sin(np.pi * 0.35 * t) ** 2)
    elif motion == "shake":
        yaw += 14.0 * np.sin(2 * np.pi * 0.9 * t + swing) * (0.4 + 0.6 * np.sin(np.pi * 0.3 * t) ** 2)
    elif motion == "look_around":
        yaw += 22.0 * np.sin(2 * np.pi * 0.22 * t + swing)
        pitch += 8.0 * np.sin(2 * np.pi * 0.31 * t + swing)
    elif motion == "sway":
        roll += 12.0 * np.sin(2 * np.pi * 0.4 * t + swing)
    return np.stack([yaw, pitch, roll], axis=1)


def _face(
    t: np.ndarray, pose: Float[np.ndarray, " 52"], speech: Speech, rng: np.random.Generator
) -> Float[np.ndarray, "frames 52"]:
    held = np.clip(0.85 + 0.15 * _wander(t, rng, 0.4), 0, 1) * np.clip(0.35 + t / 0.6, 0, 1)
    expression = held[:, None] * pose
    talking = speech.mouth(t)
    loud = np.clip(speech.loudness(t) * 1.5, 0, 1)[:, None]
    expression[:, _MOUTH] *= 1 - 0.35 * loud
    arkit = expression + talking
    lift = np.clip(_wander(t, rng, 0.5) - 0.4, 0, 1) * 0.35
    arkit[:, _INDEX["browInnerUp"]] += lift
    for side in ("Left", "Right"):
        arkit[:, _INDEX["browOuterUp" + side]] += 0.8 * lift
    return np.clip(arkit, 0, 1)


def _pose(shapes: Mapping[str, float]) -> Float[np.ndarray, " 52"]:
    pose = np.zeros(len(ARKIT))
    for stem, value in shapes.items():
        for name in (stem, stem + "Left", stem + "Right"):
            if name in _INDEX:
                pose[_INDEX[name]] = value
    return pose


def blinks(t: np.ndarray, seconds: float, rng: np.random.Generator) -> Float[np.ndarray, " frames"]:
    """Lids shut in 90 ms, stay 50 ms, open in 150 ms; the next blink follows after 1.2 to 3.5 s."""
    closed = np.zeros(len(t))
    now = rng.uniform(0.4, 1.5)
    while now < seconds:
        since = t - now
        closed = np.maximum(closed, np.interp(since, [0, 0.09, 0.14, 0.29], [0, 1, 1, 0], left=0, right=0))
        now += rng.uniform(1.2, 3.5)
    return closed


def _hold_gaze(arkit: np.ndarray, angles: Float[np.ndarray, "frames 3"], facing_degrees: float) -> None:
    """Keep the eyes on the camera (or on where the person faces) while the head turns, in place."""
    side = -0.75 * (angles[:, 0] - facing_degrees) / 30.0
    up = -0.6 * angles[:, 1] / 24.0
    left, right = np.clip(side, 0, 0.8), np.clip(-side, 0, 0.8)
    for names, value in (
        (("eyeLookOutLeft", "eyeLookInRight"), left),
        (("eyeLookInLeft", "eyeLookOutRight"), right),
        (("eyeLookUpLeft", "eyeLookUpRight"), np.clip(up, 0, 0.7)),
        (("eyeLookDownLeft", "eyeLookDownRight"), np.clip(-up, 0, 0.7)),
    ):
        for name in names:
            arkit[:, _INDEX[name]] = np.clip(arkit[:, _INDEX[name]] + value, 0, 1)
