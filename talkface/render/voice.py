"""A formant voice: a pulse train and noise through moving resonators, and the mouth that goes with it.

One sequence of visemes drives both: the formants (Hz; Peterson & Barney 1952 for the vowels, rounded) and the mouth's
ARKit shapes, on one clock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int16
from scipy.ndimage import gaussian_filter1d
from scipy.signal import butter, lfilter, sosfilt

from talkface.render.identity import Identity
from talkface.vocab import ARKIT, SAMPLE_RATE

TICK = 200
"""Rate of the control curves (formants, loudness, mouth) a second."""
_BLOCK = SAMPLE_RATE // TICK
_BANDWIDTHS = (70.0, 100.0, 140.0, 200.0)


@dataclass(frozen=True, kw_only=True)
class Viseme:
    """A sound and its mouth: formants in Hz, loudness of voice and noise 0..1, the noise's band, length in seconds."""

    formants: tuple[float, float, float]
    voice: float = 1.0
    noise: float = 0.0
    band: int = 0
    seconds: float = 0.08
    mouth: Mapping[str, float] = field(default_factory=dict)


def _both(**shapes: float) -> dict[str, float]:
    """Shapes by name; a stem that has a left and a right shape names both."""
    named: dict[str, float] = {}
    for stem, value in shapes.items():
        names = (stem,) if stem in ARKIT else (stem + "Left", stem + "Right")
        named.update(dict.fromkeys(names, value))
    return named


VOWELS: Mapping[str, Viseme] = {
    "a": Viseme(
        formants=(740, 1180, 2550), seconds=0.15, mouth=_both(jawOpen=0.62, mouthLowerDown=0.25, mouthUpperUp=0.12)
    ),
    "e": Viseme(
        formants=(540, 1850, 2550),
        seconds=0.12,
        mouth=_both(jawOpen=0.38, mouthStretch=0.3, mouthLowerDown=0.3, mouthUpperUp=0.12),
    ),
    "i": Viseme(
        formants=(300, 2250, 2950),
        seconds=0.12,
        mouth=_both(jawOpen=0.18, mouthStretch=0.35, mouthSmile=0.15, mouthLowerDown=0.35, mouthUpperUp=0.1),
    ),
    "o": Viseme(formants=(500, 900, 2450), seconds=0.14, mouth=_both(jawOpen=0.4, mouthFunnel=0.55, mouthPucker=0.3)),
    "u": Viseme(formants=(330, 870, 2300), seconds=0.12, mouth=_both(jawOpen=0.2, mouthPucker=0.75, mouthFunnel=0.25)),
    "er": Viseme(formants=(500, 1400, 1900), seconds=0.1, mouth=_both(jawOpen=0.28, mouthFunnel=0.2)),
}
"""What a syllable is built around."""

CONSONANTS: Mapping[str, Viseme] = {
    "m": Viseme(
        formants=(270, 1000, 2200),
        voice=0.3,
        seconds=0.075,
        mouth=_both(mouthPress=0.4, mouthRollLower=0.3, mouthRollUpper=0.25),
    ),
    "p": Viseme(
        formants=(350, 900, 2200),
        voice=0.0,
        noise=0.12,
        band=1,
        seconds=0.08,
        mouth=_both(mouthPress=0.5, mouthRollLower=0.35, mouthRollUpper=0.3),
    ),
    "f": Viseme(
        formants=(350, 1200, 2400),
        voice=0.0,
        noise=0.14,
        band=2,
        seconds=0.09,
        mouth=_both(jawOpen=0.06, mouthRollLower=0.6, mouthUpperUp=0.25),
    ),
    "s": Viseme(
        formants=(350, 1700, 2600),
        voice=0.0,
        noise=0.3,
        band=3,
        seconds=0.095,
        mouth=_both(jawOpen=0.08, mouthStretch=0.3, mouthLowerDown=0.35, mouthUpperUp=0.15),
    ),
    "sh": Viseme(
        formants=(350, 1700, 2400),
        voice=0.0,
        noise=0.28,
        band=4,
        seconds=0.095,
        mouth=_both(jawOpen=0.12, mouthFunnel=0.65, mouthPucker=0.25),
    ),
    "d": Viseme(
        formants=(350, 1650, 2650),
        voice=0.4,
        noise=0.08,
        band=4,
        seconds=0.06,
        mouth=_both(jawOpen=0.2, mouthLowerDown=0.2),
    ),
    "l": Viseme(formants=(380, 1300, 2700), voice=0.65, seconds=0.07, mouth=_both(jawOpen=0.26, mouthLowerDown=0.2)),
    "n": Viseme(formants=(290, 1500, 2500), voice=0.45, seconds=0.07, mouth=_both(jawOpen=0.18, mouthLowerDown=0.15)),
    "w": Viseme(formants=(320, 720, 2200), voice=0.6, seconds=0.07, mouth=_both(jawOpen=0.14, mouthPucker=0.75)),
    "k": Viseme(formants=(350, 1900, 2300), voice=0.0, noise=0.1, band=4, seconds=0.07, mouth=_both(jawOpen=0.22)),
    "th": Viseme(
        formants=(350, 1400, 2500),
        voice=0.3,
        noise=0.08,
        band=2,
        seconds=0.07,
        mouth=_both(jawOpen=0.18, tongueOut=0.12, mouthLowerDown=0.15),
    ),
}
"""What stands before (and at times after) a syllable's vowel."""

_SILENCE = Viseme(formants=(500, 1500, 2500), voice=0.0)
_BANDS = ((300, 7000), (300, 3500), (1200, 7000), (4200, 7600), (1900, 5200))


@dataclass(frozen=True)
class Speech:
    """Sound (16 kHz, mono), the mouth on the same clock, and when each phrase is spoken (seconds)."""

    sound: Int16[np.ndarray, " samples"]
    mouth_curves: Float[np.ndarray, "ticks 52"]
    loudness_curve: Float[np.ndarray, " ticks"]
    phrases: tuple[tuple[float, float], ...]

    def mouth(self, seconds: Float[np.ndarray, " times"]) -> Float[np.ndarray, "times 52"]:
        """ARKit shapes of the talking mouth at any times."""
        clock = np.arange(len(self.mouth_curves)) / TICK
        columns = [np.interp(seconds, clock, c) if c.any() else np.zeros(len(seconds)) for c in self.mouth_curves.T]
        return np.stack(columns, axis=1)

    def loudness(self, seconds: Float[np.ndarray, " times"]) -> Float[np.ndarray, " times"]:
        """Loudness of the voice, 0..1, at any times."""
        return np.interp(seconds, np.arange(len(self.loudness_curve)) / TICK, self.loudness_curve)


def speak(
    seconds: float,
    identity: Identity,
    rng: np.random.Generator,
    *,
    turns: Sequence[tuple[float, float]] | None = None,
    pitch: float = 1.0,
    rate: float = 1.0,
    effort: float = 1.0,
) -> Speech:
    """Nonsense speech of this person; phrases fill ``turns`` (seconds), pauses lie between.

    ``pitch``, ``rate`` and ``effort`` are factors: how high, how fast, how loud and wide the mouth.
    """
    n_ticks = int(np.ceil(seconds * TICK)) + 1
    spoken = [p for turn in turns or [(0.25, seconds - 0.25)] for p in _phrases(turn, rng, rate)]
    sequence = [(start, viseme) for phrase in spoken for start, viseme in phrase]
    phrases = tuple((p[0][0], p[-1][0]) for p in spoken)
    curves = _curves(sequence, n_ticks, effort)
    f0 = _melody(n_ticks, phrases, identity.voice_hz * pitch, rng)
    sound = _synthesise(curves, f0, identity.tract, rng)[: round(seconds * SAMPLE_RATE)]
    scaled = np.round(np.clip(sound * 0.32 * min(effort, 1.4), -0.98, 0.98) * 32767).astype(np.int16)
    return Speech(scaled, curves["mouth"], np.clip(curves["voice"] + curves["noise"], 0, 1), phrases)


Timed = list[tuple[float, Viseme]]
"""Start of each viseme in seconds; the last is the silence after a phrase."""


def _phrases(turn: tuple[float, float], rng: np.random.Generator, rate: float) -> list[Timed]:
    """Phrases of 0.9 to 2.2 s and pauses of 0.3 to 0.6 s, until the turn is over."""
    phrases, now = [], turn[0]
    while turn[1] - now > 0.5:
        end = min(now + rng.uniform(0.9, 2.2), turn[1])
        phrase = _phrase(now, end, rng, rate)
        phrases.append(phrase)
        now = phrase[-1][0] + rng.uniform(0.3, 0.6)
    return phrases


def _phrase(start: float, end: float, rng: np.random.Generator, rate: float) -> Timed:
    timed, now = [], start
    while now < end - 0.3:
        for viseme in _syllable(rng):
            timed.append((now, viseme))
            now += viseme.seconds * rng.uniform(0.85, 1.25) / rate
    return [*timed, (now, _SILENCE)]


def _syllable(rng: np.random.Generator) -> list[Viseme]:
    consonants, vowels = list(CONSONANTS.values()), list(VOWELS.values())
    weights = np.array([3, 2, 2, 1.5, 1.5, 1.5])
    sounds = [vowels[int(rng.choice(len(vowels), p=weights / weights.sum()))]]
    if rng.random() < 0.85:
        sounds.insert(0, consonants[int(rng.integers(len(consonants)))])
    if rng.random() < 0.25:
        sounds.append(consonants[int(rng.integers(len(consonants)))])
    return sounds


def _curves(sequence: Timed, n_ticks: int, effort: float) -> dict[str, np.ndarray]:
    """Stepwise targets at ``TICK`` a second, smoothed as the organs are slow: mouth most, loudness least."""
    voice, noise = np.zeros(n_ticks), np.zeros((n_ticks, len(_BANDS)))
    formants = np.tile(np.array(_SILENCE.formants), (n_ticks, 1))
    mouth = np.zeros((n_ticks, len(ARKIT)))
    index = {name: i for i, name in enumerate(ARKIT)}
    for (start, viseme), (end, _) in pairwise(sequence):
        if viseme is _SILENCE:
            continue
        at = slice(round(start * TICK), round(end * TICK))
        voice[at], formants[at] = viseme.voice, viseme.formants
        noise[at, viseme.band] = viseme.noise
        for name, value in viseme.mouth.items():
            mouth[at, index[name]] = value * (effort if name == "jawOpen" else 1.0)
    return {
        "voice": gaussian_filter1d(voice, 2.2),
        "noise_bands": gaussian_filter1d(noise, 1.6, axis=0),
        "noise": gaussian_filter1d(noise.sum(axis=1), 1.6),
        "formants": gaussian_filter1d(formants, 3.0, axis=0),
        "mouth": np.clip(gaussian_filter1d(mouth, 5.5, axis=0) * 1.12, 0, 1),
    }


def _melody(
    n_ticks: int, phrases: Sequence[tuple[float, float]], hertz: float, rng: np.random.Generator
) -> Float[np.ndarray, " ticks"]:
    """Pitch in Hz: each phrase begins high and falls; syllable-sized bends and jitter on top."""
    t = np.arange(n_ticks) / TICK
    tune = np.ones(n_ticks)
    for start, end in phrases:
        inside = (t >= start) & (t <= end)
        tune[inside] = 1.14 - 0.26 * (t[inside] - start) / max(end - start, 0.1)
    bend = gaussian_filter1d(rng.normal(size=n_ticks), 22)
    jitter = rng.normal(size=n_ticks)
    return hertz * gaussian_filter1d(tune, 6) * (1 + 0.09 * bend / max(bend.std(), 1e-6) + 0.006 * jitter)


def _synthesise(
    curves: Mapping[str, np.ndarray], f0: Float[np.ndarray, " ticks"], tract: float, rng: np.random.Generator
) -> Float[np.ndarray, " samples"]:
    n = len(f0) * _BLOCK
    at = np.arange(n) / _BLOCK
    clock = np.arange(len(f0))
    loud = np.interp(at, clock, curves["voice"])
    breath = rng.normal(size=n) * 0.02
    voiced = _resonate(_pulses(np.interp(at, clock, f0)) * loud + breath * loud, curves["formants"] * tract)
    voiced /= max(float(np.abs(voiced).max()), 1e-6)
    hiss = np.zeros(n)
    for band, (low, high) in enumerate(_BANDS):
        if curves["noise_bands"][:, band].any():
            sos = butter(2, (low, high), "bandpass", fs=SAMPLE_RATE, output="sos")
            hiss += sosfilt(sos, rng.normal(size=n)) * np.interp(at, clock, curves["noise_bands"][:, band])
    return voiced * 1.9 + 0.55 * hiss


def _pulses(f0: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " samples"]:
    """Flow through the glottis, differentiated (Rosenberg 1971): open 60 % of a cycle, a sharp end."""
    phase = np.cumsum(f0 / SAMPLE_RATE) % 1.0
    rise, fall = 0.42, 0.18
    opening = 0.5 * (1 - np.cos(np.pi * phase / rise))
    closing = np.cos(np.pi / 2 * (phase - rise) / fall)
    flow = np.where(phase < rise, opening, np.where(phase < rise + fall, closing, 0.0))
    return np.diff(flow, prepend=flow[0])


def _resonate(source: np.ndarray, formants: Float[np.ndarray, "ticks 3"]) -> np.ndarray:
    """Cascade of two-pole resonators (Klatt 1980), their frequencies held for a block of 5 ms."""
    high = np.full((len(formants), 1), 3500.0)
    for k, track in enumerate(np.concatenate([formants, high], axis=1).T):
        radius = np.exp(-np.pi * _BANDWIDTHS[k] / SAMPLE_RATE)
        angle = 2 * np.pi * np.minimum(track, 7000) / SAMPLE_RATE
        state, parts = np.zeros(2), []
        for i, block in enumerate(source.reshape(len(track), _BLOCK)):
            back = [1.0, -2 * radius * np.cos(angle[i]), radius**2]
            part, state = lfilter([sum(back)], back, block, zi=state)
            parts.append(part)
        source = np.concatenate(parts)
    return source
