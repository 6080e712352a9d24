"""Activation checkpointing: what a block keeps for the backward pass is computed again there (Chen 2016)."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from talkface.errors import ConfigError
from talkface.train.base import Task


def recompute(task: Task, net: torch.nn.Module) -> None:
    """From now on the network's blocks keep their inputs alone. Raises ConfigError for a network without blocks.

    They are those that ``task.blocks(net)`` names, else the members of its outermost module lists. Blocks with batch
    normalisation are left as they are: its running statistics would take each batch in twice.
    """
    chosen: Iterable[torch.nn.Module] = task.blocks(net) if hasattr(task, "blocks") else _listed(net)
    blocks = [b for b in chosen if not any(isinstance(m, _BatchNorm) for m in b.modules())]
    if not blocks:
        raise ConfigError("training.checkpointing: this network has no blocks whose activations can be computed again.")
    for block in blocks:
        block.forward = partial(_again, block.forward)


def _again(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def _listed(net: torch.nn.Module) -> list[torch.nn.Module]:
    found: list[torch.nn.Module] = []
    for child in net.children():
        found += list(child) if isinstance(child, torch.nn.ModuleList) else _listed(child)
    return found
