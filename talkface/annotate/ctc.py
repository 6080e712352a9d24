"""Character posteriors by the CTC head of wav2vec 2.0: what stands in for DeepSpeech's logits (MagicTalk 3.3)."""

from collections.abc import Mapping
from string import ascii_lowercase
from typing import Final

import numpy as np
import torch
from jaxtyping import Float16

from talkface.annotate._transformers import FIRST_SECONDS, RATE, SpeechConfig, n_rows, open_speech
from talkface.annotate.base import ClipView, Result
from talkface.clip import ColumnSpec
from talkface.errors import WeightsError
from talkface.weights import Models

NAMES: Final = ("blank", "space", "apostrophe", *ascii_lowercase)
TOKENS: Final = ("<pad>", "|", "'", *ascii_lowercase)
"""What the model's vocabulary calls them, in capitals or not."""


class CtcConfig(SpeechConfig):
    """Settings of the ctc annotator: the model needs a CTC head for English characters."""


class Annotator:
    """Column ``ctc``; a clip whose source has no sound gets NaN rows."""

    name = "ctc"
    version = 2
    columns = (
        ColumnSpec(
            name="ctc",
            dtype="float16",
            shape=(len(NAMES),),
            unit="0..1",
            clock="sound",
            description="posteriors of 29 characters, each row's sum 1; row i sees 25 ms around 12.5 ms + 20 ms i",
            names=NAMES,
            rate=RATE,
            first_seconds=FIRST_SECONDS,
        ),
    )
    scores = ()
    needs = ()
    reads = ("flac",)
    weights: tuple[tuple[str, ...], ...] = (("wav2vec",),)
    packages = ("transformers",)
    licence = "Apache-2.0"
    on_gpu = True
    Config = CtcConfig

    def __init__(self, config: CtcConfig) -> None:
        self.config = config
        self.weights = ((config.model,),)

    def open(self, models: Models) -> None:
        """Raises WeightsError if the model cannot be had, or does not spell with these characters."""
        folder = models.get(self.config.model)
        self._speech = open_speech(folder, self.config)
        known = {token.lower(): i for token, i in self._speech.tokens().items()}
        if lacking := _lacking(known, has_head=self._speech.has_head):
            raise WeightsError(
                f"ctc: {folder}: has no {lacking}. Use a CTC model for English characters, or leave ctc out."
            )
        self._at = [known[token] for token in TOKENS]

    def clip(self, view: ClipView) -> Result:
        """The clip's ``ctc``."""
        if not view.has_sound:
            return Result(columns={"ctc": np.full((n_rows(len(view.sound)), len(NAMES)), np.nan, np.float16)})
        return Result(columns={"ctc": posteriors(self._speech.logits(view.sound)[:, self._at])})


def _lacking(known: Mapping[str, int], *, has_head: bool) -> str:
    """What a model with these characters lacks, or nothing."""
    parts = {"CTC head": has_head, "vocab.json": known}
    letters = (f"{token!r} in its vocab.json" for token in TOKENS if token not in known)
    return " and no ".join(part for part, there in parts.items() if not there) or next(letters, "")


def posteriors(logits: torch.Tensor) -> Float16[np.ndarray, "rows 29"]:
    """Softmax over the characters that are kept: other tokens have no share."""
    return logits.softmax(dim=1).numpy().astype(np.float16)
