"""Log-mel spectrogram of the sound: 80 bands, 80 rows a second, in the bands of Wav2Lip and its descendants."""

from functools import cache

import numpy as np
import scipy.fft
from jaxtyping import Float, Float16, Int16

from talkface.annotate.base import AnnotatorConfig, ClipView, Result
from talkface.clip import ColumnSpec
from talkface.vocab import SAMPLE_RATE
from talkface.weights import Models

WINDOW = 800
HOP = 200
BANDS = 80
LOWEST_HZ, HIGHEST_HZ = 55.0, 7600.0
FLOOR = 1e-5


class MelConfig(AnnotatorConfig):
    """Nothing to set: one spectrogram for all."""


class Annotator:
    """Column ``mel``; a clip whose source has no sound gets NaN rows."""

    name = "mel"
    version = 1
    columns = (
        ColumnSpec(
            name="mel",
            dtype="float16",
            shape=(BANDS,),
            unit="natural log of magnitude",
            clock="sound",
            description="log-mel spectrogram, 55 to 7600 Hz; row i is centred at i / 80 s",
            rate=SAMPLE_RATE / HOP,
            first_seconds=0.0,
        ),
    )
    scores = ()
    needs = ()
    reads = ("flac",)
    weights = ()
    licence = "Apache-2.0"
    Config = MelConfig

    def __init__(self, config: MelConfig) -> None:
        self.config = config

    def open(self, models: Models) -> None:
        """Nothing to load."""

    def clip(self, view: ClipView) -> Result:
        """The clip's ``mel``."""
        if not view.has_sound:
            return Result(columns={"mel": np.full((n_rows(len(view.sound)), BANDS), np.nan, np.float16)})
        return Result(columns={"mel": log_mel(view.sound)})


def n_rows(n_samples: int) -> int:
    """Rows for so many samples: one for each i whose centre, sample 200 i, lies within the sound."""
    return -(-n_samples // HOP)


def log_mel(sound: Int16[np.ndarray, " samples"]) -> Float16[np.ndarray, "rows 80"]:
    """``ln(max(1e-5, M |X|))`` of 16 kHz sound in -1..1.

    Row i sees samples 200 i - 400 up to 200 i + 400 (zeros beyond the ends) under a periodic Hann window; ``|X|`` is
    the magnitude of its 800-point DFT and ``M`` the 80 triangles of `filters`. Computed in float64, rounded once.
    ``20 log10(e) mel - 20`` are the decibels of Wav2Lip's audio.py, but for its pre-emphasis.
    """
    padded = np.pad(sound.astype(np.float64) / 32768, (WINDOW // 2, WINDOW))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][: n_rows(len(sound))]
    magnitude = np.abs(scipy.fft.rfft(frames * _hann(), axis=1))
    return np.asarray(np.log(np.maximum(magnitude @ filters().T, FLOOR)), np.float16)


@cache
def filters() -> Float[np.ndarray, "80 401"]:
    """Triangles of equal area on Slaney's mel scale: each integrates to one over frequency in Hz.

    Slaney, Auditory Toolbox, 1998; the default of librosa.
    """
    edges = _mel_to_hz(np.linspace(_hz_to_mel(LOWEST_HZ), _hz_to_mel(HIGHEST_HZ), BANDS + 2))
    low, peak, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    hz = np.arange(WINDOW // 2 + 1) * (SAMPLE_RATE / WINDOW)
    triangles = np.minimum((hz - low) / (peak - low), (high - hz) / (high - peak)).clip(0)
    return np.asarray(triangles * 2 / (high - low))


@cache
def _hann() -> Float[np.ndarray, " 800"]:
    return np.asarray(np.hanning(WINDOW + 1)[:-1])


def _hz_to_mel(hz: float) -> float:
    """3 mel for 200 Hz up to 1 kHz, then 27 mel for each factor of 6.4."""
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * float(np.log(hz / 1000) / np.log(6.4))


def _mel_to_hz(mel: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))
