"""Batches whose tensors share one block of memory, so that a worker hands them over in one piece.

Each tensor that torch sends between processes costs a file of shared memory and a talk over a socket on both sides:
a few tens of windows that are ready to be used take less time than six tensors do to arrive.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import torch

ALIGN = 64
"""Bytes: every array starts at a multiple of it."""


class Field(NamedTuple):
    """An array to make room for."""

    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class Block(dict[str, Any]):
    """A dict whose tensors, those in a dict inside it too, lie in one block of memory; anything else may be in it.

    Unpickled it is a plain dict.
    """

    memory: torch.Tensor

    @classmethod
    def empty(cls, count: int, fields: Mapping[str, Field | Mapping[str, Field]], *, shared: bool) -> Self:
        """Uninitialised tensors of ``count`` rows of each field; ``shared`` lays them where other processes see them.

        Raises RuntimeError where there is not enough (shared) memory.
        """
        flat = [(path, Field(f.dtype, (count, *f.shape))) for path, f in _flat(fields)]
        ends = np.cumsum([0, *(-(-field.bytes // ALIGN) * ALIGN for _, field in flat)]).tolist()
        block = cls()
        block.memory = (
            torch.tensor((), dtype=torch.uint8).set_(torch.UntypedStorage._new_shared(ends[-1]))
            if shared
            else torch.empty(ends[-1], dtype=torch.uint8)
        )
        raw = block.memory.numpy()
        for (path, field), start in zip(flat, ends, strict=False):
            array = raw[start : start + field.bytes].view(field.dtype).reshape(field.shape)
            _put(block, path, torch.from_numpy(array))
        return block

    def __copy__(self) -> "Block":
        other = Block(self)
        other.memory = self.memory
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpacked, (self.memory, _packed(self, self.memory))


class _Part(NamedTuple):
    """Where a tensor lies in the block."""

    start: int
    dtype: torch.dtype
    shape: tuple[int, ...]


def arrays_of(block: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of a block as NumPy arrays on the same memory."""
    found = {}
    for name, value in block.items():
        if isinstance(value, torch.Tensor | dict):
            found[name] = value.numpy() if isinstance(value, torch.Tensor) else arrays_of(value)
    return found


def _flat(fields: Mapping[str, Field | Mapping[str, Field]]) -> list[tuple[tuple[str, ...], Field]]:
    found: list[tuple[tuple[str, ...], Field]] = []
    for name, field in fields.items():
        found += [((name,), field)] if isinstance(field, Field) else [((name, *p), f) for p, f in _flat(field)]
    return found


def _put(block: dict[str, Any], path: tuple[str, ...], tensor: torch.Tensor) -> None:
    for name in path[:-1]:
        block = block.setdefault(name, {})
    block[path[-1]] = tensor


def _packed(block: Mapping[str, Any], memory: torch.Tensor) -> dict[str, Any]:
    """The dict with places in the block for the tensors that lie there."""
    return {name: _packed_value(value, memory) for name, value in block.items()}


def _packed_value(value: Any, memory: torch.Tensor) -> Any:
    if isinstance(value, dict):
        return _packed(value, memory)
    if isinstance(value, torch.Tensor) and value.is_contiguous():
        start = value.data_ptr() - memory.data_ptr()
        if start >= 0 and start + value.nbytes <= memory.nbytes:
            return _Part(start, value.dtype, tuple(value.shape))
    return value


def _unpacked(memory: torch.Tensor, packed: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _unpacked_value(memory, value) for name, value in packed.items()}


def _unpacked_value(memory: torch.Tensor, value: Any) -> Any:
    if isinstance(value, dict):
        return _unpacked(memory, value)
    if isinstance(value, _Part):
        count = int(np.prod(value.shape, dtype=np.int64)) * value.dtype.itemsize
        return memory[value.start : value.start + count].view(value.dtype).view(value.shape)
    return value
