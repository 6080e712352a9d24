"""Colours: the skin's texture with brows, lashes, lips and hair, and the textures of eyes, teeth and tongue."""

from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from talkface.render.identity import Colour, Identity
from talkface.render.mesh import (
    CELL,
    EYE,
    EYE_HALF_WIDTH,
    EYE_LEVEL,
    MOUTH_HALF_WIDTH,
    MOUTH_LEVEL,
    bump,
    eye_profile,
    hair_cover,
    skin,
    smooth,
)

Texture = Float[np.ndarray, "height width 3"]
EYE_TEXELS = 192


def atlas(who: Identity) -> tuple[UInt8[np.ndarray, "height width 3"], Mapping[str, tuple[int, int]]]:
    """All textures of a person in one picture, and where each begins (x, y)."""
    sheets = {"skin": paint_skin(who), **_parts(who)}
    width = sheets["skin"].shape[1]
    places, x, y, tall = {}, 0, 0, 0
    for name, sheet in sheets.items():
        if x + sheet.shape[1] > width:
            x, y, tall = 0, y + tall, 0
        places[name] = (x, y)
        x, tall = x + sheet.shape[1], max(tall, sheet.shape[0])
    whole = np.zeros((y + tall, width, 3), np.float32)
    for name, sheet in sheets.items():
        x, y = places[name]
        whole[y : y + sheet.shape[0], x : x + sheet.shape[1]] = sheet
    return np.clip(whole + 0.5, 0, 255).astype(np.uint8), places


def _parts(who: Identity) -> dict[str, Texture]:
    eye = _paint_eye(who.eye)
    gum = np.array([150, 62, 66], np.float32)
    teeth = _paint_teeth()
    flesh = np.array(who.skin, np.float32)
    return {
        "eye_left": eye,
        "eye_right": eye,
        "glint_left": _fill((8, 8), np.array([255, 255, 255])),
        "glint_right": _fill((8, 8), np.array([255, 255, 255])),
        "cavity": _fill((64, 64), gum * 0.36),
        "teeth_upper": teeth,
        "teeth_lower": teeth[::-1] * 0.9,
        "tongue": _fill((64, 64), np.array([206, 104, 106])),
        "ear_left": _paint_ear(flesh),
        "ear_right": _paint_ear(flesh),
        "curtain": _strands((128, 256), who.hair_colour),
        "bun": _strands((96, 96), who.hair_colour),
    }


def _fill(shape: tuple[int, ...], colour: np.ndarray) -> Texture:
    return np.broadcast_to(np.asarray(colour, np.float32), (*shape, 3)).copy()


def over(below: Texture, colour: Colour | np.ndarray, cover: np.ndarray) -> Texture:
    """Lay a colour over a texture; ``cover`` 0..1 says where."""
    return below + (np.asarray(colour, np.float32) - below) * cover[..., None].astype(np.float32)


def _paint_eye(iris: Colour) -> Texture:
    middle = EYE_TEXELS / 2
    y, x = np.mgrid[:EYE_TEXELS, :EYE_TEXELS] + 0.5 - middle
    angle = np.hypot(x, y) / (middle - 2) * 100
    turn = np.arctan2(y, x)
    eye = _fill((EYE_TEXELS, EYE_TEXELS), np.array([250, 248, 245]))
    eye = over(eye, (232, 190, 180), 0.55 * smooth(40, 95, angle))
    base = np.array(iris, np.float32)
    rays = 0.5 + 0.5 * np.sin(turn * 23 + 2 * np.sin(turn * 5))
    eye = over(eye, base, smooth(31.0, 28.5, angle))
    eye = over(eye, np.clip(base * 1.55 + 20, 0, 255), smooth(24, 13, angle) * (0.35 + 0.4 * rays))
    eye = over(eye, base * 0.35, smooth(25.0, 29.0, angle) * smooth(31.5, 29.5, angle))
    return over(eye, (14, 12, 14), smooth(14.0, 12.0, angle))


def _paint_teeth() -> Texture:
    v, u = np.mgrid[:32, :96] / np.array([32, 96]).reshape(2, 1, 1)
    teeth = over(_fill((32, 96), np.array([246, 242, 232])), (160, 70, 74), smooth(0.32, 0.18, v))
    gaps = np.abs((u * 10 + 0.5) % 1.0 - 0.5)
    teeth = over(teeth, (176, 160, 150), 0.6 * smooth(0.07, 0.02, gaps) * smooth(0.2, 0.4, v))
    return over(teeth, (90, 50, 50), 0.7 * smooth(0.6, 1.0, np.abs(u - 0.5) * 2))


def _paint_ear(flesh: np.ndarray) -> Texture:
    y, x = np.mgrid[:64, :64] - 32.0
    reach = np.hypot(x, y) / 28
    ear = over(_fill((64, 64), flesh), flesh * (0.97, 0.82, 0.8), smooth(0.9, 0.5, reach))
    return over(ear, flesh * (0.6, 0.42, 0.4), smooth(0.38, 0.15, reach))


def _strands(shape: tuple[int, int], colour: Colour) -> Texture:
    """Hair combed downwards: streaks of lighter and darker columns."""
    rng = np.random.default_rng(7)
    streaks = cv2.GaussianBlur(rng.normal(size=(1, shape[1])).astype(np.float32), (0, 0), 1.6)
    wave = np.repeat(streaks / streaks.std(), shape[0], axis=0)
    return np.clip(_fill(shape, np.array(colour)) * (1 + 0.13 * wave[..., None]), 0, 255)


def _chart() -> dict[str, np.ndarray]:
    """The skin's rest coordinates at every texel."""
    s = skin()
    rows, cols = s.x.shape
    u, v = np.meshgrid(
        np.arange((cols - 1) * CELL + 1, dtype=np.float32) / CELL,
        np.arange((rows - 1) * CELL + 1, dtype=np.float32) / CELL,
    )
    fields = {"x": s.x0, "y": s.y0, "z": s.z, "theta": s.theta, "level": s.level}
    return {name: cv2.remap(value.astype(np.float32), u, v, cv2.INTER_LINEAR) for name, value in fields.items()}


def paint_skin(who: Identity) -> Texture:
    """Texture of the skin's grid, ``CELL`` texels a cell."""
    c = _chart()
    flesh = np.array(who.skin, np.float32)
    skin_ = _fill(c["x"].shape[:2], flesh)
    skin_ = _complexion(skin_, c, flesh)
    skin_ = _beard(skin_, c, who)
    skin_ = _lips(skin_, c, who)
    skin_ = _eyes(skin_, c, who)
    skin_ = _brows(skin_, c, who)
    return _hair(skin_, c, who)


def _complexion(sheet: Texture, c: dict[str, np.ndarray], flesh: np.ndarray) -> Texture:
    x, y = np.abs(c["x"]), c["y"]
    front = smooth(-2.0, 0.5, c["z"])
    blush = flesh * (1.0, 0.78, 0.76)
    dark = flesh * (0.72, 0.58, 0.55)
    sheet = over(sheet, blush, 0.42 * front * bump(x, y, (4.2, -1.0), (1.9, 1.4)))
    sheet = over(sheet, blush, 0.35 * front * bump(x, y, (0.0, -0.8), (1.1, 0.9)))
    sheet = over(sheet, blush, 0.3 * front * bump(x, y, (0.0, -8.2), (1.4, 0.8)))
    sheet = over(sheet, dark, 0.35 * front * bump(x, y, (1.7, 2.8), (0.7, 0.9)))
    sheet = over(sheet, dark, 0.4 * front * bump(x, y, (0.0, -6.3), (1.3, 0.3)))
    fold = x - np.interp(y, [-4.6, -3.2, -1.4], [3.25, 2.7, 1.75])
    sheet = over(sheet, dark, 0.28 * front * np.exp(-((fold / 0.16) ** 2)) * bump(0 * y, y, (0, -2.9), (1, 1.1)))
    sheet = over(sheet, dark, 0.45 * front * bump(x, y, (1.66, -1.45), (0.12, 0.45)))
    sheet = over(sheet, dark, 0.3 * front * bump(x, y, (0.0, -2.0), (1.2, 0.22)))
    hole = ((x - 0.62) / 0.36) ** 2 + ((y + 1.7) / 0.17) ** 2
    return over(sheet, flesh * (0.34, 0.22, 0.2), front * smooth(1.15, 0.6, hole))


def _beard(sheet: Texture, c: dict[str, np.ndarray], who: Identity) -> Texture:
    if not who.beard:
        return sheet
    level, side = c["level"], np.degrees(np.abs(c["theta"]))
    edge = np.interp(side, [0, 22, 40, 60, 75, 90], [-2.6, -2.9, -5.3, -4.2, -0.5, 2.0])
    cover = smooth(0.1, -0.8, level - edge) * smooth(-10.6, -9.4, level) * smooth(88, 76, side)
    return over(sheet, np.array(who.hair_colour) * 0.9 + 8, who.beard * cover)


def _lips(sheet: Texture, c: dict[str, np.ndarray], who: Identity) -> Texture:
    gap, x = c["level"] - MOUTH_LEVEL, c["x"]
    share = np.clip(1 - (x / (MOUTH_HALF_WIDTH + 0.08)) ** 2, 0, 1)
    bow = 1 - 0.2 * np.exp(-((x / 0.3) ** 2)) + 0.06 * bump(np.abs(x), 0 * x, (0.6, 0), (0.4, 1))
    top, bottom = 0.84 * who.lips * share**0.75 * bow, 1.02 * who.lips * share**0.6
    front = c["z"] > 0
    cover = smooth(0.07, -0.07, gap - top) * smooth(-0.09, 0.09, gap + bottom) * front * smooth(0.0, 0.06, share)
    lip = np.array(who.lip, np.float32)
    sheet = over(sheet, lip, cover)
    sheet = over(sheet, lip * 0.82, cover * (gap > 0) * 0.5)
    sheet = over(sheet, np.clip(lip * 1.25 + 14, 0, 255), cover * 0.6 * bump(x, gap, (0, -0.5), (1.0, 0.2)))
    seam = np.exp(-((gap / 0.085) ** 2)) * smooth(0.0, 0.12, 1 - (x / (MOUTH_HALF_WIDTH + 0.25)) ** 2) * front
    return over(sheet, lip * (0.42, 0.3, 0.32), seam)


def _eyes(sheet: Texture, c: dict[str, np.ndarray], who: Identity) -> Texture:
    d, x = c["level"] - EYE_LEVEL, np.abs(c["x"])
    flesh = np.array(who.skin, np.float32)
    front = c["z"] > 0
    span = eye_profile(c["x"])
    wing = smooth(EYE[0] + EYE_HALF_WIDTH + 0.28, EYE[0] + EYE_HALF_WIDTH - 0.3, x)
    along = smooth(0.0, 0.25, span) * wing * front
    crease = np.exp(-(((d - 0.62) / 0.09) ** 2)) * smooth(0.0, 0.4, span) * front
    sheet = over(sheet, flesh * (0.85, 0.72, 0.7), 0.55 * smooth(0.75, 0.3, d) * smooth(-0.02, 0.02, d) * along)
    sheet = over(sheet, flesh * (0.55, 0.4, 0.36), 0.7 * crease)
    lash = (26, 18, 18)
    sheet = over(sheet, lash, smooth(0.2, 0.12, d) * smooth(-0.015, 0.0, d) * along * 0.95)
    under = smooth(-0.13, -0.07, d) * smooth(0.015, 0.0, d) * along
    return over(sheet, flesh * (0.62, 0.42, 0.4), 0.75 * under)


def _brows(sheet: Texture, c: dict[str, np.ndarray], who: Identity) -> Texture:
    x, y = np.abs(c["x"]), c["y"]
    middle = np.interp(x, [0.9, 2.0, 3.4, 4.3, 5.0], [4.3, 4.5, 4.68, 4.52, 4.15])
    thick = who.brow * np.interp(x, [0.9, 1.3, 2.6, 3.8, 5.0], [0.16, 0.27, 0.3, 0.22, 0.05])
    cover = smooth(1.15, 0.7, np.abs(y - middle) / thick) * smooth(0.85, 1.2, x) * smooth(5.0, 4.7, x) * (c["z"] > 0)
    return over(sheet, np.array(who.hair_colour) * 0.66, 0.88 * cover)


def _hair(sheet: Texture, c: dict[str, np.ndarray], who: Identity) -> Texture:
    if who.hair == "bald":
        return over(sheet, np.array(who.hair_colour), 0.05 * hair_cover(c["theta"], c["level"]))
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(1, 720)).astype(np.float32)
    noise = np.repeat(cv2.GaussianBlur(noise, (0, 0), 1.2), 4, axis=0)
    across = np.degrees(c["theta"]) * 2 + 360 + 6 * np.sin(c["level"] * 0.9)
    wave = cv2.remap(noise, across.astype(np.float32), np.ones_like(across, np.float32), cv2.INTER_LINEAR)
    colour = np.clip(np.array(who.hair_colour, np.float32) * (1 + 0.28 * wave[..., None]), 0, 255)
    ragged = hair_cover(c["theta"], c["level"] + 0.25 * wave)
    shadow = hair_cover(c["theta"], c["level"] + 0.55) * (c["level"] > -4)
    sheet = over(sheet, np.array(who.skin) * (0.66, 0.54, 0.5), 0.4 * shadow)
    return sheet + (colour - sheet) * ragged[..., None].astype(np.float32)
