"""Where somebody speaks, and how loud: silero-vad, levels, and silence."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import scipy.fft
from jaxtyping import Bool, Float, Float32, Int16
from numpy.lib.stride_tricks import sliding_window_view
from pydantic import Field
from scipy.special import expit

from talkface.annotate.base import AnnotatorConfig, ClipView, Result
from talkface.clip import ScoreSpec, samples_to_ns
from talkface.vocab import SAMPLE_RATE
from talkface.weights import Models
from talkface.weights.torchscript import read_torchscript

WINDOW = 512
CONTEXT = 64
BLOCK = 512
HYSTERESIS = 0.15
"""So much below the threshold speech ends."""
QUIETEST_DB = 20 * float(np.log10(1 / 32768))
"""Level of one step of 16-bit sound in dBFS: nothing quieter is told apart."""

Spans = list[tuple[int, int]]
"""Start and end in ns, rising, not touching."""


class VoiceConfig(AnnotatorConfig):
    """When a sound counts as speech."""

    threshold: float = Field(0.5, gt=0, lt=1, description="probability of speech from which a window is speech")
    min_speech_seconds: float = Field(0.25, ge=0, description="shorter speech is ignored")
    min_silence_seconds: float = Field(0.1, ge=0, description="shorter silence does not end speech")
    pad_seconds: float = Field(0.03, ge=0, description="added before and after each stretch of speech")


_GATES = np.r_[0:256, 384:512, 256:384]
"""Rows of the LSTM's weights: input, forget and output gate, then what may be remembered."""


class Voice:
    """The 16 kHz network of silero-vad over a whole sound at once, and its stretches of speech.

    ``weights`` is the package's TorchScript file. The network runs in NumPy, all windows of a block in one batch, in
    a tenth of the time of the package (which goes window by window, and whose import of torch alone takes longer than
    the sound of most sources), and agrees with it within 1e-5.
    """

    def __init__(self, weights: Path, config: VoiceConfig | None = None) -> None:
        self.config = config or VoiceConfig()
        self._weights = {k.removeprefix("_model."): v for k, v in read_torchscript(weights).items()}

    def probabilities(self, sound: Int16[np.ndarray, " samples"]) -> Float32[np.ndarray, " windows"]:
        """Probability of speech in each window of 512 samples (32 ms); the last is filled up with zeros."""
        n_windows = -(-len(sound) // WINDOW)
        if n_windows == 0:
            return np.zeros(0, np.float32)
        padded = np.pad(sound.astype(np.float32) / 32768, (CONTEXT, n_windows * WINDOW - len(sound)))
        windows = sliding_window_view(padded, CONTEXT + WINDOW)[::WINDOW]
        states = self._remembered(self._features(windows[i : i + BLOCK]) for i in range(0, n_windows, BLOCK))
        logits = np.maximum(states, 0) @ self._weights["decoder.decoder.2.weight"][0, :, 0]
        logits += self._weights["decoder.decoder.2.bias"]
        return np.asarray(expit(logits), np.float32)

    def _features(self, windows: Float32[np.ndarray, "windows 576"]) -> Float32[np.ndarray, "windows 128"]:
        """Magnitudes of four short-time spectra a window, then four convolutions over them, down to one."""
        padded = np.pad(windows, ((0, 0), (0, CONTEXT)), mode="reflect")
        parts = sliding_window_view(padded, 256, axis=1)[:, ::128].reshape(-1, 256)
        spectra = parts @ self._weights["stft.forward_basis_buffer"][:, 0].T
        x = np.sqrt(spectra[:, :129] ** 2 + spectra[:, 129:] ** 2).reshape(len(windows), -1, 129)
        for layer, stride in enumerate((1, 2, 2, 1)):
            name = f"encoder.{layer}.reparam_conv"
            x = _conv(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"], stride)
        return x[:, 0]

    def _remembered(self, blocks: Iterator[Float32[np.ndarray, "_ 128"]]) -> Float32[np.ndarray, "windows 128"]:
        """States of the LSTM cell after each window."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        from_input, from_state, bias_a, bias_b = (self._weights[f"decoder.rnn.{name}"][_GATES] for name in names)
        back = np.ascontiguousarray(from_state.T)
        state, cell, states = np.zeros(128, np.float32), np.zeros(128, np.float32), []
        for block in blocks:
            for driven in block @ from_input.T + (bias_a + bias_b):
                gates = driven + state @ back
                into, forget, out = expit(gates[:384]).reshape(3, 128)
                cell = forget * cell + into * np.tanh(gates[384:])
                state = out * np.tanh(cell)
                states.append(state)
        return np.stack(states)

    def speech_spans(self, sound: Int16[np.ndarray, " samples"]) -> Spans:
        """Stretches of speech, by the rules of silero-vad's own ``get_speech_timestamps``."""
        return [(samples_to_ns(a), samples_to_ns(b)) for a, b in self._speech(sound)]

    def pauses(self, sound: Int16[np.ndarray, " samples"]) -> Spans:
        """What lies between the stretches of speech, and before the first and after the last; all of a sound
        without speech."""
        edges = [0, *(t for span in self.speech_spans(sound) for t in span), samples_to_ns(len(sound))]
        return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]

    def _speech(self, sound: Int16[np.ndarray, " samples"]) -> Iterator[tuple[int, int]]:
        """Start and end in samples."""
        config = self.config
        least = config.min_speech_seconds * SAMPLE_RATE
        found = [(a, b) for a, b in self._stretches(self.probabilities(sound), len(sound)) if b - a > least]
        pad = int(config.pad_seconds * SAMPLE_RATE)
        starts, ends = [a for a, _ in found], [b for _, b in found]
        # Between two stretches each takes its padding, or half of what there is.
        rooms = [2 * pad, *(a - b for a, b in zip(starts[1:], ends, strict=False)), 2 * pad]
        for start, end, before, after in zip(starts, ends, rooms, rooms[1:], strict=False):
            yield max(0, start - min(pad, before // 2)), min(len(sound), end + min(pad, after // 2))

    def _stretches(self, probabilities: Float32[np.ndarray, " windows"], length: int) -> Iterator[tuple[int, int]]:
        """From the first window that is likely speech to the first of a long enough row of unlikely ones."""
        config = self.config
        start = quiet = None
        for at, p in zip(range(0, length, WINDOW), probabilities, strict=True):
            if p >= config.threshold:
                start, quiet = at if start is None else start, None
            elif start is not None and p < max(config.threshold - HYSTERESIS, 0.01):
                quiet = at if quiet is None else quiet
                if at - quiet >= config.min_silence_seconds * SAMPLE_RATE:
                    yield start, quiet
                    start = quiet = None
        if start is not None:
            yield start, length

    def is_speech(self, sound: Int16[np.ndarray, " samples"]) -> Bool[np.ndarray, " samples"]:
        """For each sample whether it lies in a stretch of speech."""
        mask = np.zeros(len(sound), bool)
        for start, end in self._speech(sound):
            mask[start:end] = True
        return mask


class Annotator:
    """Scores of the clip's sound; all but ``has_sound`` are NaN where its source has none."""

    name = "voice"
    version = 2
    columns = ()
    scores = (
        ScoreSpec(name="has_sound", unit="0 or 1", description="whether the source has a sound stream"),
        ScoreSpec(name="speech_share", unit="0..1", description="share of the time in which somebody speaks"),
        ScoreSpec(
            name="loudness_lufs",
            unit="LUFS",
            description="integrated loudness (ITU-R BS.1770); NaN for under 0.4 s or nothing above -70",
        ),
        ScoreSpec(name="speech_db", unit="dBFS", description="RMS level of the speech; NaN where there is none"),
        ScoreSpec(
            name="snr_db",
            unit="dB",
            description="RMS level of the speech less that of the rest; NaN for under 0.1 s of either",
        ),
        ScoreSpec(name="silence_share", unit="0..1", description="share of digital silence, in blocks of 10 ms"),
    )
    needs = ()
    reads = ("flac",)
    weights = (("silero_vad",),)
    licence = "MIT"
    Config = VoiceConfig

    def __init__(self, config: VoiceConfig) -> None:
        self.config = config

    def open(self, models: Models) -> None:
        """Load silero-vad's weights from its package."""
        self._voice = Voice(models.get("silero_vad"), self.config)

    def clip(self, view: ClipView) -> Result:
        """The clip's scores."""
        if not view.has_sound or len(view.sound) == 0:
            missing = {score.name: float("nan") for score in self.scores}
            return Result(scores={**missing, "has_sound": float(view.has_sound)})
        speech = self._voice.is_speech(view.sound)
        return Result(
            scores={
                "has_sound": 1.0,
                "speech_share": float(speech.mean()),
                "loudness_lufs": loudness_lufs(view.sound),
                "speech_db": level_db(view.sound[speech]),
                "snr_db": snr_db(view.sound, speech),
                "silence_share": silence_share(view.sound),
            }
        )


def _conv(
    x: Float32[np.ndarray, "windows time channels"],
    weight: Float32[np.ndarray, "out channels 3"],
    bias: Float32[np.ndarray, " out"],
    stride: int,
) -> Float32[np.ndarray, "windows strided out"]:
    """Convolution over time with zeros beyond the ends, then ReLU."""
    padded = np.pad(x, ((0, 0), (1, 1), (0, 0)))
    steps = range(0, x.shape[1], stride)
    flat = np.stack([padded[:, i : i + 3].reshape(len(x), -1) for i in steps], axis=1).reshape(len(x) * len(steps), -1)
    out = flat @ weight.transpose(2, 1, 0).reshape(-1, len(weight)) + bias
    return np.asarray(np.maximum(out, 0).reshape(len(x), len(steps), -1))


def level_db(sound: Int16[np.ndarray, " samples"]) -> float:
    """RMS level in dBFS, where a square wave of full scale has 0; at least that of one 16-bit step (-90.3).

    NaN for no samples.
    """
    if len(sound) == 0:
        return float("nan")
    rms = float(np.sqrt(np.mean((sound.astype(np.float64) / 32768) ** 2)))
    return max(QUIETEST_DB, 20 * float(np.log10(rms))) if rms > 0 else QUIETEST_DB


def snr_db(sound: Int16[np.ndarray, " samples"], speech: Bool[np.ndarray, " samples"]) -> float:
    """Level of the speech less level of the rest, in dB; NaN where either is under 0.1 s."""
    if min(speech.sum(), (~speech).sum()) < SAMPLE_RATE // 10:
        return float("nan")
    return level_db(sound[speech]) - level_db(sound[~speech])


def silence_share(sound: Int16[np.ndarray, " samples"]) -> float:
    """Share of 10 ms blocks in which no sample is further from zero than one 16-bit step; NaN for no samples."""
    if len(sound) == 0:
        return float("nan")
    starts = np.arange(0, len(sound), SAMPLE_RATE // 100)
    loudest = np.maximum.reduceat(np.abs(sound.astype(np.int32)), starts)
    return float((loudest <= 1).mean())


def loudness_lufs(sound: Int16[np.ndarray, " samples"]) -> float:
    """Integrated loudness of mono sound (ITU-R BS.1770-4): K-weighted, gated at -70 LUFS and then at 10 LU below the
    mean of what is left; blocks of 0.4 s every 0.1 s.

    NaN for sound under 0.4 s, or with no block above -70.
    """
    block, step = 4 * SAMPLE_RATE // 10, SAMPLE_RATE // 10
    if len(sound) < block:
        return float("nan")
    energy = np.cumsum(np.concatenate([[0.0], _k_weighted(sound / 32768.0) ** 2]))
    power = (energy[block:] - energy[:-block])[::step] / block
    audible = power[power > 10 ** ((-70 + 0.691) / 10)]
    if len(audible) == 0:
        return float("nan")
    return -0.691 + 10 * float(np.log10(audible[audible > audible.mean() / 10].mean()))


def _k_weighted(sound: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " samples"]:
    """Sound through BS.1770's filters, as a product of spectra: after 4096 samples nothing is left of their memory."""
    n = scipy.fft.next_fast_len(len(sound) + 4096, real=True)
    delays = np.exp(-2j * np.pi * np.outer(np.arange(3), np.arange(n // 2 + 1)) / n)
    sections = _k_weighting()
    response = ((sections[:, :3] @ delays) / (sections[:, 3:] @ delays)).prod(axis=0)
    return np.asarray(scipy.fft.irfft(scipy.fft.rfft(sound, n) * response, n)[: len(sound)])


@cache
def _k_weighting() -> Float[np.ndarray, "2 6"]:
    """BS.1770's shelf and high pass as second-order sections at 16 kHz.

    The standard tabulates them for 48 kHz; frequency, gain and Q behind that table, as found by De Man (Evaluation of
    implementations of the EBU R128 loudness measurement, AES 145, 2018).
    """
    shelf_hz, shelf_db, shelf_q = 1681.974450955533, 3.999843853973347, 0.7071752369554196
    pass_hz, pass_q = 38.13547087602444, 0.5003270373238773
    k, gain = np.tan(np.pi * shelf_hz / SAMPLE_RATE), 10 ** (shelf_db / 20)
    mid = gain**0.4996667741545416
    shelf = [
        gain + mid * k / shelf_q + k * k, 2 * (k * k - gain), gain - mid * k / shelf_q + k * k,
        1 + k / shelf_q + k * k, 2 * (k * k - 1), 1 - k / shelf_q + k * k,
    ]  # fmt: skip
    k = np.tan(np.pi * pass_hz / SAMPLE_RATE)
    high_pass = [1.0, -2.0, 1.0, 1 + k / pass_q + k * k, 2 * (k * k - 1), 1 - k / pass_q + k * k]
    return np.array([np.array(shelf) / shelf[3], [*high_pass[:3], *(v / high_pass[3] for v in high_pass[3:])]])
