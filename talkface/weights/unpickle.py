"""Arrays out of pickles that nobody vouches for. No code that a pickle names is ever imported or run.

FLAME and its relatives are published as pickles of Python 2 that hold NumPy, SciPy and chumpy objects. Those are
rebuilt from their data; whatever else a pickle asks for is refused.
"""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, Final

import numpy as np
import scipy.sparse

from talkface.errors import WeightsError


class _RefusedError(Exception):
    """A pickle that can be read, and is not arrays alone."""


class _Chumpy:
    """Stands for any object of chumpy, which keeps its values in ``x``."""

    x: Any


class _Sparse:
    """Stands for SciPy's sparse matrices, compressed by column or row."""

    data: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray
    _shape: tuple[int, int]


class _ByColumn(_Sparse):
    pass


class _ByRow(_Sparse):
    pass


def _new_array(kind: object, shape: object, dtype: object) -> np.ndarray:
    """An array to be filled by the state that follows; what stands in the pickle is not looked at."""
    return np.zeros(0, np.int8)


def _scalar(dtype: np.dtype, data: bytes | str) -> Any:
    return np.frombuffer(_encode(data) if isinstance(data, str) else data, dtype)[0]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1")


def _new_object(kind: type, base: object, state: object) -> object:
    """An object of one of the classes above."""
    if kind not in (_Chumpy, _ByColumn, _ByRow):
        raise _RefusedError(f"an object of {kind}")
    return object.__new__(kind)


_KNOWN: Final[dict[tuple[str, str], Any]] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _new_array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "_reconstruct"): _new_array,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("_codecs", "encode"): _encode,
    ("copy_reg", "_reconstructor"): _new_object,
    ("copyreg", "_reconstructor"): _new_object,
    ("__builtin__", "object"): object,
    ("builtins", "object"): object,
    ("__builtin__", "set"): set,
    ("builtins", "set"): set,
    ("collections", "OrderedDict"): OrderedDict,
}
_SPARSE: Final[dict[str, type[_Sparse]]] = {"csc_matrix": _ByColumn, "csr_matrix": _ByRow}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        """Only what is listed; nothing is imported."""
        if (module_name, global_name) in _KNOWN:
            return _KNOWN[module_name, global_name]
        if module_name.split(".", maxsplit=1)[0] == "chumpy":
            return _Chumpy
        if module_name.startswith("scipy.sparse") and global_name in _SPARSE:
            return _SPARSE[global_name]
        raise _RefusedError(f"it names {module_name}.{global_name}, which is refused")


def read_arrays(path: Path) -> dict[str, Any]:
    """The dictionary in a pickle, chumpy's objects and sparse matrices as arrays.

    Raises WeightsError for what is no pickle, names anything unknown, or holds no dictionary.
    """
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="latin1").load()
        if not isinstance(content, dict):
            raise _RefusedError(f"expected a dictionary, found {type(content).__name__}")
        return {str(name): _plain(value) for name, value in content.items()}
    except _RefusedError as error:
        raise WeightsError(f"{path}: not a pickle of arrays alone: {error}. Get the original file.") from error
    except (pickle.UnpicklingError, EOFError, TypeError, ValueError, LookupError, AttributeError, ImportError) as error:
        raise WeightsError(f"{path}: not a pickle of arrays, or damaged. Get the original file.") from error


def _plain(value: Any) -> Any:
    if isinstance(value, _Chumpy):
        return np.asarray(_plain(value.x))
    if isinstance(value, _Sparse):
        make = scipy.sparse.csc_matrix if isinstance(value, _ByColumn) else scipy.sparse.csr_matrix
        return make((value.data, value.indices, value.indptr), shape=value._shape).toarray()
    return value
