"""What each of ARKit's 52 shapes does to the skin at rest: displacement fields in centimetres.

Left is the person's left (+x). Gaze itself turns the eyeballs (see rig.py); here the lids follow it.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from jaxtyping import Float

from talkface.render.mesh import (
    EYE,
    EYE_LEVEL,
    HINGE,
    MOUTH_HALF_WIDTH,
    MOUTH_LEVEL,
    bump,
    eye_profile,
    lid_z,
    loft,
    mouth_profile,
    relief,
    skin,
    smooth,
)
from talkface.vocab import ARKIT

JAW_ANGLE = np.radians(21.0)
SEAL = "seal"
"""Internal shape: lips that stay together while the jaw drops."""
Field = Float[np.ndarray, "rows columns 3"]


@cache
def skin_shapes() -> dict[str, Field]:
    """Displacement of the skin's grid by shape name: the 52 and ``SEAL``."""
    fields = {name: function() for name, function in _makers().items()}
    front = smooth(-3.5, -1.5, skin().z)[..., None]
    return {name: (value * front).astype(np.float32) for name, value in fields.items()}


def _makers() -> dict[str, Callable[[], Field]]:
    makers: dict[str, Callable[[], Field]] = {
        "jawForward": lambda: _jaw_shift(0.0, 0.9),
        "jawLeft": lambda: _jaw_shift(1.0, 0.0),
        "jawRight": lambda: _jaw_shift(-1.0, 0.0),
        "jawOpen": lambda: jaw_turn(_points(), jaw_weight()),
        "mouthClose": _press_together,
        "mouthFunnel": _funnel,
        "mouthPucker": _pucker,
        "mouthLeft": lambda: _mouth_sideways(1),
        "mouthRight": lambda: _mouth_sideways(-1),
        "mouthRollLower": lambda: _roll(below=True),
        "mouthRollUpper": lambda: _roll(below=False),
        "mouthShrugLower": _shrug_lower,
        "mouthShrugUpper": _shrug_upper,
        "browInnerUp": _brow_inner_up,
        "cheekPuff": _cheek_puff,
        "tongueOut": _tongue_out,
        SEAL: _seal,
    }
    for word, side in (("Left", 1), ("Right", -1)):
        for stem, function in _SIDED.items():
            makers[stem + word] = lambda function=function, side=side: function(side)  # type: ignore[misc]
    assert set(makers) == {*ARKIT, SEAL}
    return makers


def _points() -> Field:
    s = skin()
    return np.stack([s.x, s.y, s.z], axis=-1)


def _vector(dx: np.ndarray | float = 0.0, dy: np.ndarray | float = 0.0, dz: np.ndarray | float = 0.0) -> Field:
    zero = np.zeros_like(skin().x)
    return np.stack([zero + dx, zero + dy, zero + dz], axis=-1)


def _slide(dx: np.ndarray, dy: np.ndarray, lift: np.ndarray | float = 0.0) -> Field:
    """Move along the face: z follows the plain head's curvature. ``lift`` is added outwards."""
    s = skin()
    x = s.x0 + dx
    half = 7.7
    curve = np.sqrt(np.clip(1 - (x / half) ** 2, 0.02, 1)) - np.sqrt(np.clip(1 - (s.x0 / half) ** 2, 0.02, 1))
    return _vector(dx, dy, 5.5 * curve + lift)


def _half(side: int, width: float = 0.7) -> np.ndarray:
    """1 on the named half of the face, 0 on the other, eased across the middle."""
    return smooth(-width, width, skin().x0 * side)


def _gap() -> np.ndarray:
    """Signed height above the line of the lips, in cm, on the shut face."""
    return skin().level - MOUTH_LEVEL


# jaw


def jaw_weight(sealed: bool = False) -> np.ndarray:
    """How far each point goes with the jaw, 0..1; ``sealed``: as if the lips did not part."""
    s = skin()
    glide = smooth(-2.2, -7.4, s.level) * smooth(-14.0, -10.0, s.level)
    if sealed:
        return glide
    part = mouth_profile(s.x0)
    reach = smooth(3.4, 0.0, np.abs(_gap()))
    lower = glide + (smooth(-14.0, -10.0, s.level) - glide) * part * np.maximum(reach, smooth(3.2, 1.5, np.abs(s.x0)))
    return np.where(s.above_mouth, glide * (1.0 - part * 0.93), lower)


def jaw_turn(points: np.ndarray, weight: np.ndarray | float) -> np.ndarray:
    """Displacement by the jaw's full opening about its hinge."""
    c, sn = np.cos(JAW_ANGLE), np.sin(JAW_ANGLE)
    y, z = points[..., 1] - HINGE[1], points[..., 2] - HINGE[2]
    turned = np.stack([0 * y, c * y - sn * z - y, sn * y + c * z - z], axis=-1)
    return np.asarray(turned * np.asarray(weight)[..., None])


def _jaw_shift(dx: float, dz: float) -> Field:
    s = skin()
    weight = smooth(-2.5, -6.5, s.level) * smooth(-13.0, -9.5, s.level) * smooth(6.6, 3.0, np.abs(s.x0))
    return _vector(dx * weight, 0.0, dz * weight)


def _seal() -> Field:
    return jaw_turn(_points(), jaw_weight(sealed=True)) - jaw_turn(_points(), jaw_weight())


def _press_together() -> Field:
    near = np.exp(-((_gap() / 0.7) ** 2)) * mouth_profile(skin().x0)
    return _vector(0.0, -0.12 * np.sign(_gap()) * near * (np.abs(_gap()) > 0.05), -0.16 * near)


# lips


def _lip(below: bool, size: float = 0.9) -> np.ndarray:
    """1 on one lip's edge, falling off away from it, 0 at the corners and on the other lip."""
    s = skin()
    mine = ~s.above_mouth if below else s.above_mouth
    return mine * np.exp(-((_gap() / size) ** 2)) * mouth_profile(s.x0)


def _around(size: tuple[float, float] = (2.6, 1.9)) -> np.ndarray:
    return bump(skin().x0, skin().y0, (0.0, MOUTH_LEVEL), size)


def _funnel() -> Field:
    s = skin()
    near = _around((2.8, 1.9))
    open_up, open_down = _lip(below=False, size=1.2), _lip(below=True, size=1.3)
    return _vector(-0.34 * s.x0 * near, 0.42 * open_up - 0.5 * open_down, 0.75 * _around((2.3, 1.5)))


def _pucker() -> Field:
    s = skin()
    near = _around((3.0, 2.0))
    squeeze = -0.12 * _gap() * _around((1.5, 1.2))
    return _vector(-0.5 * s.x0 * near, -squeeze, 0.95 * _around((2.0, 1.4)))


def _tongue_out() -> Field:
    near = bump(skin().x0, 0 * skin().x0, (0.0, 0.0), (1.5, 1.0))
    return _vector(0.0, (0.16 * _lip(below=False, size=1.2) - 0.55 * _lip(below=True, size=1.3)) * near, 0.0)


def _mouth_sideways(side: int) -> Field:
    near = _around((3.2, 2.2))
    return _slide(0.95 * side * near, 0.0 * near)


def _corner(side: int, size: tuple[float, float] = (1.6, 1.7)) -> np.ndarray:
    s = skin()
    return bump(s.x0 * side, s.y0, (MOUTH_HALF_WIDTH + 0.2, MOUTH_LEVEL), size) * _half(side)


def _smile(side: int) -> Field:
    s = skin()
    corner = _corner(side, (1.9, 1.6))
    cheek = bump(s.x0 * side, s.y0, (3.9, -1.4), (1.7, 1.5))
    lid = _lower_lid(side, 0.16)
    return _slide(0.8 * side * corner + 0.12 * side * cheek, 0.85 * corner + 0.4 * cheek, 0.45 * cheek) + lid


def _frown(side: int) -> Field:
    corner = _corner(side, (1.5, 1.5))
    chin = bump(skin().x0 * side, skin().y0, (0.8, -6.2), (1.4, 1.0))
    return _slide(0.12 * side * corner, -0.85 * corner + 0.15 * chin)


def _dimple(side: int) -> Field:
    corner = _corner(side, (1.3, 1.2))
    return _slide(0.5 * side * corner, 0.1 * corner, -0.4 * corner)


def _stretch(side: int) -> Field:
    corner = _corner(side, (1.9, 1.9))
    jaw = bump(skin().x0 * side, skin().y0, (2.6, -6.3), (1.8, 1.8))
    return _slide(0.85 * side * corner + 0.2 * side * jaw, -0.28 * corner - 0.25 * jaw)


def _roll(below: bool) -> Field:
    lip = _lip(below, 1.0)
    sign = 1.0 if below else -1.0
    shrink = -0.55 * _gap() * _lip(below, 1.1)
    return _vector(0.0, shrink + 0.05 * sign * lip, -0.75 * lip)


def _shrug_lower() -> Field:
    s = skin()
    chin = bump(s.x0, s.y0, (0.0, -6.6), (2.2, 2.0))
    lower, upper = _lip(below=True, size=1.6), _lip(below=False, size=0.9)
    return _vector(0.0, 0.5 * chin + 0.35 * lower + 0.42 * upper, 0.35 * chin + 0.35 * lower)


def _shrug_upper() -> Field:
    upper, lower = _lip(below=False, size=1.5), _lip(below=True, size=0.7)
    near = bump(skin().x0, skin().y0, (0.0, -3.4), (2.2, 1.0))
    return _vector(0.0, 0.38 * upper + 0.3 * near * skin().above_mouth + 0.38 * lower, 0.4 * near)


def _press(side: int) -> Field:
    s = skin()
    here = bump(s.x0 * side, s.y0, (1.3, MOUTH_LEVEL), (1.5, 0.9)) * _half(side)
    flat = -0.42 * _gap() * np.exp(-((_gap() / 0.9) ** 2)) * _half(side) * mouth_profile(s.x0)
    corner = _corner(side, (1.0, 0.9))
    return _slide(0.2 * side * corner, flat, -0.35 * here)


def _lower_down(side: int) -> Field:
    s = skin()
    lip = _lip(below=True, size=1.4) * bump(s.x0 * side, s.y0, (1.1, -5.0), (1.8, 9.0)) * _half(side)
    return _vector(0.1 * side * lip, -0.68 * lip, -0.05 * lip)


def _upper_up(side: int) -> Field:
    s = skin()
    lip = _lip(below=False, size=1.3) * bump(s.x0 * side, s.y0, (1.1, -4.0), (1.5, 9.0)) * _half(side)
    fold = bump(s.x0 * side, s.y0, (2.0, -2.2), (1.0, 1.0)) * s.above_mouth
    return _vector(0.0, 0.62 * lip + 0.25 * fold, 0.12 * lip + 0.15 * fold)


# eyes


def _lid(side: int, upper: float, lower: float) -> Field:
    """Move the lids' edges by ``upper`` and ``lower`` openings (1 shuts) over the eyeball."""
    s = skin()
    here = s.x0 * side > 0
    full = s.y0 - s.y
    reach = np.exp(-(((s.level - EYE_LEVEL) / 1.3) ** 2))
    meet = -0.26 * eye_profile(s.x0) * reach * (s.z > 0)
    d = np.where(s.above_eye, upper * (full + meet), lower * (full + meet)) * here
    _, _, plain = loft(s.level, s.theta)
    base = plain + relief(s.x0, s.y0, plain)
    ball = lid_z(s.x0, s.y + d, base) - lid_z(s.x0, s.y, base)
    return _vector(0.0, d, np.where(np.abs(s.level - EYE_LEVEL) < 1.9, ball * here, 0.0))


def _lower_lid(side: int, raised: float) -> Field:
    s = skin()
    below = ~s.above_eye & (s.x0 * side > 0)
    lift = bump(s.x0 * side, s.y0, (EYE[0], EYE_LEVEL - 0.2), (1.5, 0.9)) * below
    return _vector(0.0, raised * lift, 0.1 * raised * lift)


def _squint(side: int) -> Field:
    s = skin()
    pouch = bump(s.x0 * side, s.y0, (3.2, 1.2), (1.5, 0.6))
    return _lid(side, 0.26, 0.0) + _lower_lid(side, 0.3) + _vector(0.0, 0.12 * pouch, 0.16 * pouch)


def _wide(side: int) -> Field:
    return _lid(side, -0.32, -0.3)


def _blink(side: int) -> Field:
    return _lid(side, 1.0, 1.0)


def _look_down(side: int) -> Field:
    return _lid(side, 0.45, -0.25)


def _look_up(side: int) -> Field:
    return _lid(side, -0.16, 0.2)


def _look_in(side: int) -> Field:
    lid = bump(skin().x0 * side, skin().y0, (2.6, EYE_LEVEL), (0.8, 0.9)) * skin().above_eye
    return _vector(-0.03 * side * lid, 0.0, 0.03 * lid)


def _look_out(side: int) -> Field:
    lid = bump(skin().x0 * side, skin().y0, (3.8, EYE_LEVEL), (0.8, 0.9)) * skin().above_eye
    return _vector(0.03 * side * lid, 0.0, 0.03 * lid)


# brows, cheeks, nose


def _brow_down(side: int) -> Field:
    s = skin()
    inner = bump(s.x0 * side, s.y0, (1.5, 4.45), (1.4, 1.3)) * _half(side, 0.4)
    outer = bump(s.x0 * side, s.y0, (3.8, 4.55), (1.7, 1.3))
    return _slide(-0.3 * side * inner, -0.75 * inner - 0.4 * outer, 0.22 * inner)


def _brow_inner_up() -> Field:
    s = skin()
    inner = bump(np.abs(s.x0), s.y0, (1.3, 4.5), (1.5, 1.5))
    return _vector(0.0, 0.95 * inner, 0.05 * inner)


def _brow_outer_up(side: int) -> Field:
    s = skin()
    outer = bump(s.x0 * side, s.y0, (4.1, 4.6), (1.7, 1.5))
    return _slide(0.05 * side * outer, 0.95 * outer)


def _cheek_puff() -> Field:
    s = skin()
    cheek = bump(np.abs(s.x0), s.y0, (4.2, -4.0), (1.9, 2.2))
    return _vector(np.sign(s.x0) * 0.75 * cheek, 0.0, 0.9 * cheek + 0.25 * _around((2.0, 1.6)))


def _cheek_squint(side: int) -> Field:
    s = skin()
    cheek = bump(s.x0 * side, s.y0, (3.8, 0.4), (1.7, 1.2))
    return _vector(0.0, 0.5 * cheek, 0.4 * cheek) + _lower_lid(side, 0.2)


def _sneer(side: int) -> Field:
    s = skin()
    wing = bump(s.x0 * side, s.y0, (1.15, -1.4), (0.9, 1.1))
    bridge = bump(s.x0 * side, s.y0, (0.9, 1.6), (0.7, 1.2))
    lip = bump(s.x0 * side, s.y0, (1.7, -3.2), (1.1, 1.0)) * s.above_mouth
    brow = bump(s.x0 * side, s.y0, (1.2, 3.9), (0.9, 0.8))
    return (
        _vector(
            0.12 * side * wing,
            0.5 * wing + 0.22 * bridge + 0.32 * lip - 0.25 * brow,
            0.2 * wing + 0.2 * bridge + 0.1 * lip,
        )
        * _half(side, 0.4)[..., None]
    )


_SIDED: dict[str, Callable[[int], Field]] = {
    "eyeBlink": _blink,
    "eyeLookDown": _look_down,
    "eyeLookIn": _look_in,
    "eyeLookOut": _look_out,
    "eyeLookUp": _look_up,
    "eyeSquint": _squint,
    "eyeWide": _wide,
    "mouthSmile": _smile,
    "mouthFrown": _frown,
    "mouthDimple": _dimple,
    "mouthStretch": _stretch,
    "mouthPress": _press,
    "mouthLowerDown": _lower_down,
    "mouthUpperUp": _upper_up,
    "browDown": _brow_down,
    "browOuterUp": _brow_outer_up,
    "cheekSquint": _cheek_squint,
    "noseSneer": _sneer,
}
