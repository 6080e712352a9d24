"""Networks in PyTorch: checkpoints that are data alone, loaded strictly, and how pictures go through them."""

import pickle
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from pydantic import AfterValidator
from torch import Tensor, nn

from talkface.errors import WeightsError

T = TypeVar("T")

_NAMED: Final = 3
"""How many names of each kind of difference an error shows."""

_NAMED_CODE: Final = re.compile(r"GLOBAL (\S+)")
"""What PyTorch says of a checkpoint that is not data alone."""


def read_checkpoint(path: Path) -> Any:
    """What ``torch.save`` wrote, on the CPU. No code from the file runs: anything but tensors and plain values, or a
    file of another kind, raises WeightsError."""
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # about files that are refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, AttributeError) as error:
        named = _NAMED_CODE.search(str(error))
        why = f"it names {named[1]}, code that is never run" if named else "it is of another kind, or damaged"
        raise WeightsError(f"{path}: no PyTorch checkpoint of tensors alone: {why}. Get the original file.") from error


def fill(net: nn.Module, state: Mapping[str, Any], path: Path, what: str) -> None:
    """Load ``state`` into ``net``. Raises WeightsError, with the difference, unless names and shapes are its own.

    ``num_batches_tracked``, which batch norm counts in training and no result depends on, may be missing.
    """
    wanted = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items() if isinstance(value, Tensor)}
    optional = {name for name in wanted if name.endswith("num_batches_tracked")}
    both = sorted(wanted.keys() & found.keys())
    differences = {
        "missing": sorted(wanted.keys() - found.keys() - optional),
        "unexpected": sorted(state.keys() - wanted.keys()),
        "of another shape": [f"{n}: expected {wanted[n]}, got {found[n]}" for n in both if wanted[n] != found[n]],
    }
    if any(differences.values()):
        said = [f"{len(names)} {kind} ({_some(names)})" for kind, names in differences.items() if names]
        raise WeightsError(f"{path}: not the weights of {what}: {', '.join(said)}. Get the original file.")
    net.load_state_dict(dict(state), strict=False)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def device() -> torch.device:
    """The GPU where there is one, else the CPU. ``CUDA_VISIBLE_DEVICES=`` keeps to the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


_QUICK: Final = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""Instructions of x86 and ARM for bfloat16, as torch calls them."""


def quick_precision() -> Literal["float32", "bfloat16"]:
    """bfloat16 on a CPU with instructions for it; float32 on any other, on a GPU, and where torch cannot tell."""
    known: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # not in torch 2.4
    on_cpu = device().type == "cpu"
    return "bfloat16" if on_cpu and any(known.get(name) for name in _QUICK) else "float32"


Precision = Annotated[
    Literal["float32", "bfloat16", "auto"],
    AfterValidator(lambda given: quick_precision() if given == "auto" else given),
]
"""A setting: ``auto`` becomes what `quick_precision` says as soon as it is read, so that records and caches know it."""
AUTO: Final = "auto: that on such a CPU, else float32: the result then depends on the machine"
"""The end of the setting's description, which begins with what bfloat16 is."""


@contextmanager
def inference() -> Iterator[None]:
    """No gradients, and on a GPU no TF32 and no algorithm that gives other bits each time."""
    with torch.inference_mode(), torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False):
        yield


class PictureNet:
    """A network that sees batches of RGB pictures in 0..1, on the GPU where there is one.

    The result is float32 in either precision. A row depends on its own picture up to rounding; with the same pictures
    in the same batches it is the same to the bit.
    """

    def __init__(self, net: nn.Module, precision: Precision = "float32") -> None:
        self._device, self._dtype = device(), getattr(torch, precision)
        self._net = net.eval().to(self._device, self._dtype)
        for weight in (p for p in net.parameters() if p.ndim == 4):
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)

    def __call__(self, pictures: UInt8[np.ndarray, "n height width 3"]) -> Float[Tensor, "n ..."]:
        """Output of the network for a batch, on the CPU."""
        x = torch.from_numpy(pictures).to(self._device).permute(0, 3, 1, 2)  # strides stay: channels last
        with inference():
            return self._net((x.float() / 255).to(self._dtype)).float().cpu()


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` items in order, the last one shorter."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
