"""States of a small speech encoder that comes with no model hub: Moonshine tiny, through onnxruntime.

Jeffries et al., Moonshine: Speech Recognition for Live Transcription and Voice Commands, 2024. Three convolutions
without padding (127 samples by 64, then 7 by 3 and 3 by 2) see 895 samples and step by 384, and six transformer blocks
see all of the sound. It was trained on English alone.
"""

from itertools import pairwise
from math import ceil
from typing import Any, Final

import numpy as np
from jaxtyping import Float16, Float32, Int16
from pydantic import Field

from talkface.annotate.base import AnnotatorConfig, ClipView, Result
from talkface.clip import ColumnSpec
from talkface.errors import WeightsError
from talkface.vocab import SAMPLE_RATE
from talkface.weights import Models

FIELD: Final = 895
HOP: Final = 384
WIDTH: Final = 288


class SpeechEncoderConfig(AnnotatorConfig):
    """Settings of the speech annotator."""

    chunk_seconds: float = Field(16, ge=5, description="longer sound is heard in equal chunks of at most this")
    overlap_seconds: float = Field(4, ge=1, description="sound that a chunk hears besides its own, on either side")


class Annotator:
    """Column ``speech``; a clip whose source has no sound gets NaN rows."""

    name = "speech"
    version = 1
    columns = (
        ColumnSpec(
            name="speech",
            dtype="float16",
            shape=(WIDTH,),
            unit="none",
            clock="sound",
            description="states of Moonshine tiny (English); row i sees 56 ms around 28 ms + 24 ms i",
            rate=SAMPLE_RATE / HOP,
            first_seconds=FIELD / 2 / SAMPLE_RATE,
        ),
    )
    scores = ()
    needs = ()
    reads = ("flac",)
    weights = (("moonshine_tiny_en",),)
    packages = ("onnxruntime",)
    licence = "MIT"
    Config = SpeechEncoderConfig

    def __init__(self, config: SpeechEncoderConfig) -> None:
        self.config = config

    def open(self, models: Models) -> None:
        """Raises WeightsError if the encoder cannot be had or is not one."""
        self._net = open_encoder(str(models.get("moonshine_tiny_en")))

    def clip(self, view: ClipView) -> Result:
        """The clip's ``speech``."""
        if not view.has_sound:
            return Result(columns={"speech": np.full((n_rows(len(view.sound)), WIDTH), np.nan, np.float16)})
        return Result(columns={"speech": self.states(view.sound)})

    def states(self, sound: Int16[np.ndarray, " samples"]) -> Float16[np.ndarray, "rows 288"]:
        """Of sound of any length, the rows of each chunk heard together with what overlaps it."""
        n = n_rows(len(sound))
        chunk, overlap = (
            round(s * SAMPLE_RATE / HOP) for s in (self.config.chunk_seconds, self.config.overlap_seconds)
        )
        bounds = np.linspace(0, n, ceil(n / chunk) + 1).astype(int).tolist()
        parts = [np.zeros((0, WIDTH), np.float32)]
        for start, end in pairwise(bounds):
            first, last = max(0, start - overlap), min(n, end + overlap)
            heard = self._heard(sound[HOP * first : HOP * (last - 1) + FIELD])
            parts.append(heard[start - first : end - first])
        return np.concatenate(parts).astype(np.float16)

    def _heard(self, sound: Int16[np.ndarray, " samples"]) -> Float32[np.ndarray, "rows 288"]:
        x = sound.astype(np.float32)[None] / 32768
        (states,) = self._net.run(None, {"input_values": x, "attention_mask": np.ones(x.shape, np.int64)})
        rows: np.ndarray = states[0]
        return rows


def n_rows(n_samples: int) -> int:
    """Rows of so many samples: those whose 895 samples lie within the sound."""
    return max(0, (n_samples - FIELD) // HOP + 1)


def open_encoder(path: str) -> Any:
    """The encoder on one thread, as every worker has one core. Raises WeightsError for a file that is none."""
    try:
        import onnxruntime  # noqa: PLC0415 (an optional dependency)
    except ImportError as error:
        raise WeightsError(f"speech needs onnxruntime. Run: pip install 'talkface[annotate]' ({error})") from error

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        net = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes are not public
        raise WeightsError(f"{path}: onnxruntime cannot open it ({str(error).splitlines()[0][:160]}).") from error
    names = {i.name for i in net.get_inputs()}
    if names != {"input_values", "attention_mask"} or net.get_outputs()[0].shape[-1] != WIDTH:
        raise WeightsError(f"{path}: no Moonshine encoder of width {WIDTH}: its inputs are {', '.join(sorted(names))}.")
    return net
