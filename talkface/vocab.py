"""The words the data speaks: names, orders and slices that every part shares."""

from typing import Final

ARKIT: Final[tuple[str, ...]] = (
    "eyeBlinkLeft", "eyeLookDownLeft", "eyeLookInLeft", "eyeLookOutLeft", "eyeLookUpLeft", "eyeSquintLeft",
    "eyeWideLeft",
    "eyeBlinkRight", "eyeLookDownRight", "eyeLookInRight", "eyeLookOutRight", "eyeLookUpRight", "eyeSquintRight",
    "eyeWideRight",
    "jawForward", "jawLeft", "jawRight", "jawOpen",
    "mouthClose", "mouthFunnel", "mouthPucker", "mouthLeft", "mouthRight", "mouthSmileLeft", "mouthSmileRight",
    "mouthFrownLeft", "mouthFrownRight", "mouthDimpleLeft", "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthPressLeft", "mouthPressRight",
    "mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight", "tongueOut",
)  # fmt: skip
"""Apple's 52 blendshapes in the order of its documentation (ARFaceAnchor.BlendShapeLocation).

Live Link Face writes jawRight before jawLeft and mouthRight before mouthLeft: go by name, never by position.
"""

MOUTH: Final[tuple[str, ...]] = tuple(n for n in ARKIT if n.startswith(("jaw", "mouth")))
"""The 27 shapes of jaw (4) and mouth (23) that lip refinement owns (MagicTalk 3.3)."""

EMOTIONS: Final[tuple[str, ...]] = (
    "angry", "contempt", "disgusted", "fear", "happy", "neutral", "sad", "surprised",
)  # fmt: skip
"""MEAD's eight emotions: the one vocabulary that every layout maps to."""

INTENSITIES: Final[tuple[int, ...]] = (1, 2, 3)

FLAME: Final[dict[str, slice]] = {
    "expression": slice(0, 50),
    "pose": slice(50, 56),
    "global": slice(50, 53),
    "jaw": slice(53, 56),
    "camera": slice(56, 59),
}
"""Where a row of ``flame`` holds what: ``pose`` is ``global`` and ``jaw`` (EMOdiffhead 3.1)."""

VALID_FACE: Final = 1 << 0
VALID_ARKIT: Final = 1 << 1
VALID_HEAD: Final = 1 << 2
VALID_LANDMARKS: Final = 1 << 3
VALID_FLAME: Final = 1 << 4
"""Bits of ``valid.npy``: which annotations of a frame may be trusted."""

VALID_BITS: Final[dict[str, int]] = {
    "box": VALID_FACE,
    "arkit": VALID_ARKIT,
    "head": VALID_HEAD,
    "lm": VALID_LANDMARKS,
    "lm68": VALID_LANDMARKS,
    "flame": VALID_FLAME,
}
"""Column name to the validity bit that its finite rows set."""

SAMPLE_RATE: Final = 16_000
"""Sound is mono at this rate everywhere, in samples a second."""
