"""Hidden states of wav2vec 2.0 or HuBERT: the sound features of EmoDiff, EMO and EMOdiffhead."""

import json
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from pydantic import Field, model_validator

from talkface.annotate._transformers import FIRST_SECONDS, RATE, SpeechConfig, n_rows, open_speech
from talkface.annotate.base import ClipView, Result
from talkface.clip import ColumnSpec
from talkface.errors import ConfigError
from talkface.weights import REGISTRY, Models
from talkface.weights.hub import HUB_NAME, from_hub

LARGEST: Final = float(np.finfo(np.float16).max)


class Wav2vecConfig(SpeechConfig):
    """Settings of the wav2vec annotator."""

    layers: Literal["last", "all"] | tuple[int, ...] = Field(
        "last", description="last, all, or a list: 0 is what the first block sees, i what block i gives"
    )
    width: int = Field(
        768, ge=1, description="numbers of a state: 1024 in large models; of a folder, what its config.json says"
    )
    depth: int = Field(
        12, ge=1, description="blocks of the model: 24 in large ones; of a folder, what its config.json says"
    )

    @model_validator(mode="before")
    @classmethod
    def _as_the_folder_says(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Not as a model in Hugging Face's cache says: columns shall not depend on what lies there."""
        model = given.get("model")
        return (size_of(model) if isinstance(model, str) and not HUB_NAME.fullmatch(model) else {}) | given

    @property
    def chosen(self) -> tuple[int, ...]:
        """Numbers of the layers."""
        if self.layers == "last":
            return (self.depth,)
        return tuple(range(self.depth + 1)) if self.layers == "all" else tuple(self.layers)


class Annotator:
    """Column ``w2v``: the last hidden state, or layers by states. A clip whose source has no sound gets NaN rows."""

    name = "wav2vec"
    version = 2
    columns: tuple[ColumnSpec, ...] = (
        ColumnSpec(
            name="w2v",
            dtype="float16",
            shape=(768,),
            unit="none",
            clock="sound",
            description="hidden states of wav2vec 2.0; row i sees 25 ms around 12.5 ms + 20 ms i",
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
    Config = Wav2vecConfig

    def __init__(self, config: Wav2vecConfig) -> None:
        self.config = config
        self.weights = ((config.model,),)
        self._require_size(**({"width": config.width, "depth": config.depth} | size_of(config.model)))
        if not config.chosen or not set(config.chosen) <= set(range(config.depth + 1)):
            raise ConfigError(
                f"annotate.wav2vec.layers: expected numbers from 0 to {config.depth}, got {config.layers}"
            )
        many = (len(config.chosen),) if config.layers != "last" else ()
        self.columns = tuple(_with_shape(spec, (*many, config.width)) for spec in self.columns)

    def open(self, models: Models) -> None:
        """Raises WeightsError if the model cannot be had, ConfigError if ``width`` or ``depth`` are not its own."""
        self._speech = open_speech(models.get(self.config.model), self.config)
        self._require_size(self._speech.width, self._speech.depth)

    def _require_size(self, width: int, depth: int) -> None:
        """Raise ConfigError unless the settings have the model's size."""
        told = (self.config.width, self.config.depth)
        if (width, depth) != told:
            raise ConfigError(
                f"annotate.wav2vec: {self.config.model} has width {width} and depth {depth}, the configuration "
                f"says {told[0]} and {told[1]}. Set width = {width} and depth = {depth}."
            )

    def clip(self, view: ClipView) -> Result:
        """The clip's ``w2v``."""
        (spec,) = self.columns
        if not view.has_sound:
            return Result(columns={"w2v": np.full((n_rows(len(view.sound)), *spec.shape), np.nan, np.float16)})
        states = self._speech.states(view.sound, self.config.chosen)
        rows = np.stack([states[i].numpy() for i in self.config.chosen], axis=1).reshape(-1, *spec.shape)
        return Result(columns={"w2v": rows.clip(-LARGEST, LARGEST).astype(np.float16)})


def size_of(model: str) -> dict[str, int]:
    """``width`` and ``depth`` by the config.json of a folder, or of what is in Hugging Face's cache; else neither."""
    if model in REGISTRY:
        return {}
    try:
        folder = from_hub(model, offline=True) if HUB_NAME.fullmatch(model) else Path(model)
        about = {} if folder is None else json.loads((folder / "config.json").read_text())
    except (ImportError, OSError, ValueError):
        return {}
    names = {"width": "hidden_size", "depth": "num_hidden_layers"}
    return {ours: about[theirs] for ours, theirs in names.items() if theirs in about}


def _with_shape(spec: ColumnSpec, shape: tuple[int, ...]) -> ColumnSpec:
    return ColumnSpec(**{**vars(spec), "shape": shape})
