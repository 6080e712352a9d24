"""wav2vec 2.0 and HuBERT by transformers: hidden states and character posteriors of 16 kHz sound of any length.

Baevski et al., wav2vec 2.0, NeurIPS 2020; Hsu et al., HuBERT, 2021. Seven convolutions without padding see 400 samples
and step by 320, so row i sees samples 320 i up to 320 i + 400: it is centred at 12.5 ms + 20 ms i, and n samples give
floor((n - 400) / 320) + 1 rows. Mean and variance of the samples, and those of the first convolution's group norm, are
of the whole sound whatever its length.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from math import ceil, prod
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

import numpy as np
import torch
from jaxtyping import Float, Int16
from pydantic import Field
from torch import Tensor, nn

from talkface.annotate.base import AnnotatorConfig
from talkface.errors import WeightsError
from talkface.nets.inference import AUTO, Precision, device, inference
from talkface.vocab import SAMPLE_RATE

FIELD: Final = 400
HOP: Final = 320
RATE: Final = SAMPLE_RATE / HOP
FIRST_SECONDS: Final = FIELD / 2 / SAMPLE_RATE
"""Rows a second, and where the first one is centred."""
PIECE: Final = 1000
"""Rows of the convolutions at once: longer sound goes through them in pieces, which changes rounding alone."""


class SpeechConfig(AnnotatorConfig):
    """Settings of the annotators on a speech network. With the same settings they share it."""

    model: str = Field(
        "wav2vec", description="entry of the model registry, a folder, or owner/name@commit on Hugging Face"
    )
    precision: Precision = Field(
        "float32",
        description="bfloat16: about twice as fast on a CPU that has it, random weights' states within 0.03 of "
        "their deviation; " + AUTO,
    )
    chunk_seconds: float = Field(
        60, ge=5, description="longer sound goes through the transformer in equal chunks of at most this"
    )
    overlap_seconds: float = Field(4, ge=2, description="sound that a chunk hears besides its own, on either side")


class Speech:
    """A network, and what it last heard: annotators that ask for the same sound share one pass.

    Raises WeightsError for a folder that is no such model, with the difference.
    """

    def __init__(self, folder: Path, config: SpeechConfig) -> None:
        self._folder = folder
        whole = _load(folder)
        self._head: nn.Module | None = getattr(whole, "lm_head", None)
        self._net: Any = whole.base_model
        self._device, self._dtype = device(), getattr(torch, config.precision)
        whole.to(self._device, self._dtype)
        self._normalised = _settings(folder, "preprocessor_config.json").get("do_normalize", True)
        self._chunk, self._overlap = round(config.chunk_seconds * RATE), round(config.overlap_seconds * RATE)
        self._sound: np.ndarray | None = None
        self._heard: dict[int, Tensor] = {}

    @property
    def width(self) -> int:
        """Numbers of a hidden state."""
        return int(self._net.config.hidden_size)

    @property
    def has_head(self) -> bool:
        """Whether it was fine-tuned for transcription: a CTC head comes after the last hidden state."""
        return self._head is not None

    @property
    def depth(self) -> int:
        """Blocks of the transformer: the states are those before the first and after each."""
        return len(self._net.encoder.layers)

    def states(
        self, sound: Int16[np.ndarray, " samples"], layers: Iterable[int]
    ) -> dict[int, Float[Tensor, "rows width"]]:
        """Hidden states by layer; 0 is what the first block sees, ``depth`` the last hidden state."""
        wanted = {*layers, self.depth}
        if self._sound is None or not np.array_equal(sound, self._sound):
            self._sound, self._heard = sound.copy(), {}
        if not wanted <= self._heard.keys():
            with inference():
                self._heard = {i: state.float().cpu() for i, state in self._listen(sound, sorted(wanted)).items()}
        return self._heard

    def logits(self, sound: Int16[np.ndarray, " samples"]) -> Float[Tensor, "rows tokens"]:
        """Output of the CTC head."""
        assert self._head is not None, f"{self._folder}: no CTC head"
        last = self.states(sound, ())[self.depth]
        with inference():
            return self._head(last.to(self._device, self._dtype)).float().cpu()

    def tokens(self) -> dict[str, int]:
        """The head's characters, as ``vocab.json`` writes them; none where there is no such file."""
        return {str(token): int(i) for token, i in _settings(self._folder, "vocab.json").items()}

    def _listen(self, sound: np.ndarray, layers: Sequence[int]) -> dict[int, Tensor]:
        x = self._input(sound)
        n = n_rows(len(sound))
        if n == 0:
            return {i: torch.zeros(0, self.width) for i in layers}
        if n <= min(PIECE, self._chunk):
            return self._captured(layers, lambda: self._net(x[None]))
        projected = self._net.feature_projection(self._convolved(x, n))
        states = projected[0] if isinstance(projected, tuple) else projected
        bounds = np.linspace(0, n, ceil(n / self._chunk) + 1).astype(int).tolist()
        parts = [self._chunked(states, start, end, layers) for start, end in pairwise(bounds)]
        return {i: torch.cat([part[i] for part in parts]) for i in layers}

    def _chunked(
        self, states: Float[Tensor, "1 rows width"], start: int, end: int, layers: Sequence[int]
    ) -> dict[int, Tensor]:
        """A chunk's own rows of each layer, heard together with what overlaps it."""
        first = max(0, start - self._overlap)
        heard, own = states[:, first : end + self._overlap], slice(start - first, end - first)
        return {i: s[own] for i, s in self._captured(layers, lambda: self._net.encoder(heard)).items()}

    def _input(self, sound: np.ndarray) -> Float[Tensor, " samples"]:
        """Samples in -1..1; where the model was trained so, of zero mean and unit variance (over all of the sound)."""
        x = sound.astype(np.float32) / 32768
        if self._normalised and len(x) > 0:
            x = (x - x.mean(dtype=np.float64)) / np.sqrt(x.var(dtype=np.float64) + 1e-7)
        return torch.from_numpy(x.astype(np.float32)).to(self._device, self._dtype)

    def _captured(self, layers: Sequence[int], run: Callable[[], Any]) -> dict[int, Tensor]:
        """States of the one sound that ``run`` puts through the blocks."""
        seen: dict[int, Tensor] = {}
        blocks = self._net.encoder.layers
        hooks = [
            blocks[i].register_forward_pre_hook(
                lambda _, args, kwargs, i=i: seen.update({i: args[0] if args else kwargs["hidden_states"]}),
                with_kwargs=True,
            )
            for i in layers
            if i < len(blocks)
        ]
        try:
            seen[len(blocks)] = run().last_hidden_state
        finally:
            for hook in hooks:
                hook.remove()
        return {i: seen[i][0] for i in layers}

    def _convolved(self, x: Float[Tensor, " samples"], n: int) -> Float[Tensor, "1 rows channels"]:
        """All rows of the convolutions, a piece at a time."""
        first, *rest = self._net.feature_extractor.conv_layers
        whole = _with_norm_of(x, first) if isinstance(getattr(first, "layer_norm", None), nn.GroupNorm) else first
        rows = []
        for start in range(0, n, PIECE):
            end = min(start + PIECE, n)
            y = whole(x[None, None, HOP * start : HOP * (end - 1) + FIELD])
            for layer in rest:
                y = layer(y)
            rows.append(y)
        return torch.cat(rows, dim=2).transpose(1, 2)


def _with_norm_of(x: Float[Tensor, " samples"], layer: Any) -> Callable[[Tensor], Tensor]:
    """The first convolution on a piece of ``x``, with the group norm of all of it: one group a channel, over time.

    A channel is a weighted sum of a window's samples: its mean and variance follow from those of the windows, which are
    a few numbers, without the convolution itself.
    """
    mean, covariance = _moments(x.unfold(0, layer.conv.kernel_size[0], layer.conv.stride[0]))
    weight, norm = layer.conv.weight.double().flatten(1), layer.layer_norm
    scale = norm.weight.double() / (((weight @ covariance) * weight).sum(dim=1) + norm.eps).sqrt()
    shift = norm.bias.double() - weight @ mean * scale
    if layer.conv.bias is not None:
        shift = shift - layer.conv.bias.double() * scale
    scale, shift = (v.to(x.dtype)[:, None] for v in (scale, shift))
    return lambda piece: layer.activation(layer.conv(piece) * scale + shift)


def _moments(rows: Float[Tensor, "n k"]) -> tuple[Float[Tensor, " k"], Float[Tensor, "k k"]]:
    """Mean and covariance, in float64, of many rows."""
    parts = rows.split(PIECE * HOP)
    mean = sum(part.double().sum(dim=0) for part in parts) / len(rows)
    centred = (part.double() - mean for part in parts)
    return mean, sum(part.T @ part for part in centred) / len(rows)


_OPEN: Final[WeakValueDictionary[tuple[Path, SpeechConfig], Speech]] = WeakValueDictionary()


def open_speech(folder: Path, config: SpeechConfig) -> Speech:
    """The network of a folder: the one that is open already, where settings are the same."""
    key = (folder, SpeechConfig(**{name: getattr(config, name) for name in SpeechConfig.model_fields}))
    speech = _OPEN.get(key)
    if speech is None:
        speech = _OPEN[key] = Speech(folder, config)
    return speech


def n_rows(n_samples: int) -> int:
    """Rows of so many samples: none below 400."""
    return max(0, (n_samples - FIELD) // HOP + 1)


def _settings(folder: Path, name: str) -> dict[str, Any]:
    """A JSON file of the folder; empty where there is none."""
    try:
        content = json.loads((folder / name).read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder / name}: cannot be read ({error}). Get the original.") from error
    return dict(content)


def _load(folder: Path) -> Any:
    """The network in evaluation mode, with its CTC head where it has one; nothing is fetched, no code of it runs."""
    try:
        import transformers  # noqa: PLC0415 (an optional dependency, and seconds to import)
    except ImportError as error:
        raise WeightsError(
            f"speech networks need transformers. Run: pip install 'talkface[annotate]' ({error})"
        ) from error

    about = _settings(folder, "config.json")
    is_ctc = any(str(name).endswith("ForCTC") for name in about.get("architectures") or ())
    make = transformers.AutoModelForCTC if is_ctc else transformers.AutoModel
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        net, found = make.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True, dtype=torch.float32
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise WeightsError(f"{folder}: no model of transformers ({str(error).splitlines()[0][:160]}).") from error
    _check(folder, net, found)
    return net.eval()


def _check(folder: Path, net: Any, found: dict[str, Any]) -> None:
    """Raise WeightsError unless all weights were there, and rows are those that the columns promise."""
    missing = sorted(name for name in found["missing_keys"] if "masked_spec_embed" not in name)
    other = sorted(str(difference) for difference in found["mismatched_keys"])
    if missing or other:
        raise WeightsError(
            f"{folder}: not the weights that its config.json tells of: {len(missing)} missing "
            f"({', '.join(missing[:3])}), {len(other)} of another shape ({', '.join(other[:3])}). Get the originals."
        )
    body = net.base_model
    kernels, strides = getattr(body.config, "conv_kernel", ()), getattr(body.config, "conv_stride", ())
    field = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        field = (field - 1) * stride + kernel
    parts = all(hasattr(body, part) for part in ("feature_extractor", "feature_projection", "encoder"))
    parts = parts and not getattr(body.config, "add_adapter", False)
    if not parts or (field, prod(strides)) != (FIELD, HOP):
        raise WeightsError(
            f"{folder}: {type(body).__name__} is no network like wav2vec 2.0: its rows see {field} samples and step by "
            f"{prod(strides)}, expected {FIELD} and {HOP}."
        )
