"""What a task costs at its real size, found out on the meta device: nothing is allocated, no data is read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.utils.flop_counter import FlopCounterMode

from talkface.errors import ConfigError
from talkface.train.base import TaskConfig, task_class

STATE_BYTES: Final = {"adamw": 8, "adamw8bit": 2}
"""Of an optimizer's two moments, a parameter."""


@dataclass(frozen=True)
class Cost:
    """Parameters, FLOPs of a batch forward and backward (2 a multiply-add), and bytes that activations take."""

    parameters: int
    trained: int
    flops: int
    activations: int

    def steady(self, optimizer: str, ema: bool) -> int:
        """Bytes of weights, of what is trained also gradients, the optimizer's state and the average; all but the
        state in fp32."""
        return 4 * (self.parameters - self.trained) + (8 + STATE_BYTES[optimizer] + 4 * ema) * self.trained

    def lines(self, ema: bool) -> list[str]:
        """For people."""
        what = [
            f"{self.parameters / 1e6:.1f} M parameters, {self.trained / 1e6:.1f} M trained; "
            f"{self.flops / 1e12:.2f} TFLOP a batch, forward and backward",
            f"activations in bf16, attention fused: about {self.activations / 2e9:.1f} GB, much less with "
            "training.checkpointing",
        ]
        steady = [f"{name} {self.steady(name, ema) / 1e9:.1f} GB" for name in STATE_BYTES]
        return [*what, f"weights, gradients and optimizer: {', '.join(steady)}"]


def dry_run(name: str, config: TaskConfig) -> Cost:
    """Raises ConfigError for a task that cannot be rehearsed."""
    made: Any = task_class(name)
    if not hasattr(made, "rehearse"):
        raise ConfigError(f"{name} has no dry run: train says what a batch costs before its first step.")
    with torch.device("meta"):
        net, forward = made.rehearse(config)
        return measure(net, forward)


def measure(net: torch.nn.Module, forward: Callable[[], torch.Tensor]) -> Cost:
    """What a forward and backward pass costs; works on any device."""
    weights = {p.untyped_storage()._cdata for p in net.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        forward().backward()
    counted = [(p.numel(), p.requires_grad) for p in net.parameters()]
    return Cost(
        sum(n for n, _ in counted), sum(n for n, t in counted if t), counter.get_total_flops(), sum(kept.values())
    )
