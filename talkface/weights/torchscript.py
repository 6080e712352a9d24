"""The arrays of a TorchScript file without torch, whose import takes longer than the work for which they are wanted.

The file is a zip: ``data.pkl`` is a pickle of nested modules, ``data/N`` the raw numbers of tensor storage N. Modules
become bare objects and tensors become arrays; whatever else the pickle names is refused, and no code is run.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from talkface.errors import WeightsError

_DTYPES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "LongStorage": "<i8", "IntStorage": "<i4"}


def read_torchscript(path: Path) -> dict[str, np.ndarray]:
    """Parameters and buffers by dotted name. Raises WeightsError for a file of another kind."""
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(n for n in archive.namelist() if n.endswith("/data.pkl")).removesuffix("data.pkl")
            return dict(_arrays(_Unpickler(archive, root).load(), ""))
    except (OSError, zipfile.BadZipFile, pickle.UnpicklingError, StopIteration) as error:
        raise WeightsError(f"{path}: not a TorchScript file that can be read ({error}). Install it again.") from error


class _Module:
    """Stands for any module: its parameters, buffers and modules are its attributes."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class _Unpickler(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(BytesIO(archive.read(f"{root}data.pkl")))
        self._archive, self._root = archive, root

    def persistent_load(self, pid: tuple[str, str, str, str, int]) -> np.ndarray:
        """The numbers of a storage."""
        return np.frombuffer(self._archive.read(f"{self._root}data/{pid[2]}"), pid[1])

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Only what is listed; nothing is imported."""
        if module_name.startswith("__torch__."):
            return _Module
        if module_name == "torch" and global_name in _DTYPES:
            return _DTYPES[global_name]
        known = {
            ("torch._utils", "_rebuild_tensor_v2"): _array,
            ("torch.jit._pickle", "build_intlist"): list,
            ("collections", "OrderedDict"): OrderedDict,
        }
        if (module_name, global_name) not in known:
            raise pickle.UnpicklingError(f"it names {module_name}.{global_name}, which is refused")
        return known[module_name, global_name]


def _array(storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> np.ndarray:
    steps = [s * storage.itemsize for s in stride]
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False))


def _arrays(module: _Module, prefix: str) -> Iterator[tuple[str, np.ndarray]]:
    for name, value in vars(module).items():
        if isinstance(value, np.ndarray):
            yield prefix + name, value
        elif isinstance(value, _Module):
            yield from _arrays(value, f"{prefix}{name}.")
