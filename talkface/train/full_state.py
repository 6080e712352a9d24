"""Weights and optimizer states whole and by name, however they are spread over processes (one, DDP or FSDP)."""

from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.distributed.checkpoint import state_dict as dcp

from talkface.train.start import Tensors, differ

WHOLE = dcp.StateDictOptions(full_state_dict=True, cpu_offload=True)


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all weights and buffers. Every process must call it; the first one gets them."""
    state: Any = dcp.get_model_state_dict(model, options=WHOLE)
    return {name: value.clone() for name, value in state.items()}


def set_weights(model: torch.nn.Module, state: Tensors, left_out: Container[str] = ()) -> None:
    """The opposite of `weights_of`; names in ``left_out`` keep what they have. Raises WeightsError for other names."""
    found = dcp.set_model_state_dict(model, dict(state), options=replace(WHOLE, strict=False))
    differ("checkpoint", [k for k in found.missing_keys if k not in left_out], found.unexpected_keys, ())


def optimizer_of(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """An optimizer's tensors as ``parameter|part``, and its groups as plain values."""
    state: Any = dcp.get_optimizer_state_dict(model, optimizer, options=WHOLE)
    tensors = {key: value for name, of in state.get("state", {}).items() for key, value in _flat(name, of).items()}
    return tensors, state.get("param_groups", [])


def set_optimizer(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, tensors: Tensors, groups: list[dict[str, Any]]
) -> None:
    """The opposite of `optimizer_of`."""
    state: dict[str, Any] = {}
    for key, value in tensors.items():
        *path, last = key.split("|")
        of = state
        for part in path:
            of = of.setdefault(part, {})
        of[last] = int(value) if value.ndim == 0 and value.dtype == torch.int64 else value
    whole: Any = {"state": state, "param_groups": groups}
    dcp.set_optimizer_state_dict(model, optimizer, whole, options=WHOLE)


def _flat(name: str, of: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Tensors as ``name|part``. 8-bit optimizers also have an int, their count of steps, and parts in parts."""
    flat: dict[str, torch.Tensor] = {}
    for part, value in of.items():
        key = f"{name}|{part}"
        flat |= _flat(key, value) if isinstance(value, dict) else {key: torch.as_tensor(value).clone()}
    return flat
