"""What a step costs, and whether networks can be compiled here, found out before training."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from talkface.datasets.loading.loader import Batch
from talkface.errors import ConfigError
from talkface.train.base import Task
from talkface.train.optim import Part, only


@dataclass(frozen=True)
class Probe:
    """Parameters, FLOPs of a forward and backward pass of all phases, and bytes.

    ``steady`` holds weights, gradients, the optimizer's two moments and the average; ``activations`` what the forward
    pass keeps for the backward pass, in the phase that keeps most. On a GPU ``peak`` is what the allocator
    reports, 0 elsewhere.
    """

    parameters: int
    trained: int
    flops: int
    steady: int
    activations: int
    peak: int = 0

    def __str__(self) -> str:
        peak = f", {self.peak / 1e9:.2f} GB at the peak on the GPU" if self.peak else ""
        return (
            f"{self.parameters / 1e6:.2f} M parameters ({self.trained / 1e6:.2f} M trained), "
            f"{self.flops / 1e9:.2f} GFLOP a batch (forward and backward); memory: {self.steady / 1e6:.0f} MB weights, "
            f"gradients and optimizer, {self.activations / 1e6:.0f} MB activations{peak}"
        )


def probe(
    task: Task,
    net: torch.nn.Module,
    batch: Batch,
    rng: torch.Generator,
    parts: Sequence[Part],
    *,
    ema: bool = True,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Probe:
    """Run one batch forward (under ``autocast``, as training does) and backward in each phase; weights, buffers and
    gradients are as before afterwards. Raises ConfigError where the memory does not suffice."""
    buffers = [b.clone() for b in net.buffers()]
    weights = {p.untyped_storage().data_ptr() for p in net.parameters()}
    kept: list[dict[int, int]] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[-1][storage.data_ptr()] = storage.nbytes()
        return tensor

    cuda = rng.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    counter = FlopCounterMode(display=False)
    with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), _enough_memory():
        for part in parts:
            kept.append({})
            with only(part, parts):
                with autocast():
                    loss = task.step(net, batch, rng, part.phase.name).loss
                loss.backward()
    peak = torch.cuda.max_memory_allocated() if cuda else 0
    net.zero_grad(set_to_none=True)
    for buffer, before in zip(net.buffers(), buffers, strict=True):
        buffer.copy_(before)
    sizes = [p.numel() * p.element_size() for p in net.parameters()]
    trained = [p.numel() * p.element_size() for p in net.parameters() if p.requires_grad]
    return Probe(
        parameters=sum(p.numel() for p in net.parameters()),
        trained=sum(p.numel() for p in net.parameters() if p.requires_grad),
        flops=counter.get_total_flops(),
        steady=sum(sizes) + (4 if ema else 3) * sum(trained),
        activations=max(sum(held.values()) for held in kept),
        peak=peak,
    )


@contextmanager
def _enough_memory() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # of which a GPU's OutOfMemoryError is one, but not what a CPU raises
        if not isinstance(error, torch.cuda.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise ConfigError(
            "one batch does not fit into memory. Lower training.batch_size, and raise training.accumulate by as much: "
            "a step is then made of the same number of windows."
        ) from error


def require_compiler(device: torch.device) -> None:
    """Raise ConfigError where PyTorch cannot compile for the device, before a network fails at its first batch."""
    try:
        torch.compile(torch.sin)(torch.zeros(8, device=device))
    except RuntimeError as error:  # what torch.compile raises stands under it
        why = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"training.compile: PyTorch cannot compile on this machine ({why}). For a CPU it needs a C++ compiler "
            "(Debian and Ubuntu: apt-get install g++), for a GPU triton; or leave training.compile out."
        ) from error
