"""One thread a process: N workers use N cores, and sums are added up in one order wherever they run."""

import os
from typing import Final

SINGLE_THREAD: Final = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
}
"""What the libraries read when they are first imported."""


def one_thread() -> None:
    """Settle this process's thread counts; call before anything imports NumPy."""
    os.environ.update(SINGLE_THREAD)


def core_count() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
