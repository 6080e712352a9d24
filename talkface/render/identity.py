"""Who the synthetic face is: proportions, colours, hair and voice."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Colour = tuple[int, int, int]
Hair = Literal["short", "long", "bald", "bun"]

_SKINS: tuple[Colour, ...] = ((240, 205, 182), (226, 182, 150), (198, 146, 110), (150, 102, 74), (112, 74, 54))
_HAIRS: tuple[Colour, ...] = ((42, 32, 30), (84, 54, 36), (136, 92, 52), (196, 158, 96), (120, 118, 120), (146, 66, 34))
_EYES: tuple[Colour, ...] = ((92, 62, 38), (66, 108, 150), (82, 118, 74), (110, 92, 52), (54, 40, 30))
_CLOTHES: tuple[Colour, ...] = ((58, 92, 128), (140, 60, 66), (66, 112, 96), (214, 196, 160), (88, 76, 120))
_WALLS: tuple[Colour, ...] = ((196, 206, 214), (214, 204, 190), (190, 208, 196), (206, 198, 212))


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Proportions are factors around 1, colours RGB 0..255.

    ``voice_hz`` is the mean pitch, ``tract`` scales the formants.
    """

    width: float = 1.0
    jaw: float = 1.0
    chin: float = 1.0
    nose: float = 1.0
    nose_width: float = 1.0
    lips: float = 1.0
    brow: float = 1.0
    skin: Colour = _SKINS[0]
    lip: Colour = (196, 108, 104)
    hair_colour: Colour = _HAIRS[1]
    eye: Colour = _EYES[0]
    clothes: Colour = _CLOTHES[0]
    wall: Colour = _WALLS[0]
    hair: Hair = "short"
    beard: float = 0.0
    voice_hz: float = 120.0
    tract: float = 1.0

    @classmethod
    def from_seed(cls, seed: int) -> "Identity":
        """A person drawn at random; the same seed gives the same person."""
        rng = np.random.default_rng([seed, 52])
        high = bool(rng.random() < 0.5)
        skin = _pick(rng, _SKINS)
        hairs: tuple[Hair, ...] = ("long", "bun") if high else ("short", "short", "bald")
        return cls(
            width=rng.uniform(0.96, 1.04),
            jaw=rng.uniform(0.9, 0.98) if high else rng.uniform(0.97, 1.06),
            chin=rng.uniform(0.96, 1.04),
            nose=rng.uniform(0.85, 1.12),
            nose_width=rng.uniform(0.88, 1.12),
            lips=rng.uniform(1.0, 1.2) if high else rng.uniform(0.8, 1.05),
            brow=rng.uniform(0.65, 0.9) if high else rng.uniform(1.0, 1.3),
            skin=skin,
            lip=_mix(skin, (196, 66, 78) if high else (176, 84, 80), 0.55 if high else 0.4),
            hair_colour=_pick(rng, _HAIRS),
            eye=_pick(rng, _EYES),
            clothes=_pick(rng, _CLOTHES),
            wall=_pick(rng, _WALLS),
            hair=hairs[int(rng.integers(len(hairs)))],
            beard=0.0 if high else float(rng.choice([0.0, 0.25, 0.5])),
            voice_hz=rng.uniform(175, 225) if high else rng.uniform(95, 135),
            tract=rng.uniform(1.1, 1.18) if high else rng.uniform(0.96, 1.04),
        )

    def varied(self, **changes: object) -> "Identity":
        """This person with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]


def _pick(rng: np.random.Generator, choices: tuple[Colour, ...]) -> Colour:
    return choices[int(rng.integers(len(choices)))]


def _mix(a: Colour, b: Colour, share: float) -> Colour:
    mixed = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return tuple(mixed)  # type: ignore[return-value]
