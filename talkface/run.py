"""Map a function over work units: in this process, on worker processes, or on a cluster that already exists.

The only code that knows Dask. Workers are started with spawn and compute on one thread each, so that N workers use N
cores and no decoder or model ever lives through a fork.
"""

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

import dask
from distributed import Client, Future, KilledWorker, LocalCluster, as_completed
from distributed.comm.core import CommClosedError

from talkface.errors import RunError
from talkface.threads import SINGLE_THREAD

Unit = TypeVar("Unit")
Value = TypeVar("Value")

RETRIES = 3
"""A unit whose worker died is tried again this often before it is given up."""

LEAN = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "4000000"}
"""glibc gives the pictures of large frames back to the system at once; its own habit keeps twice as much."""
QUIET = {"GLOG_minloglevel": "3", "TF_CPP_MIN_LOG_LEVEL": "3", "OPENCV_LOG_LEVEL": "ERROR"}


@dataclass(frozen=True)
class Outcome(Generic[Unit, Value]):
    """What became of one unit: its value, or the error that its function raised, or that its worker kept dying."""

    unit: Unit
    value: Value | None = None
    error: BaseException | None = None
    worker_died: bool = False


def map_units(
    function: Callable[[Unit], Value],
    units: Sequence[Unit],
    *,
    workers: int = 1,
    scheduler: str | None = None,
) -> Iterator[Outcome[Unit, Value]]:
    """Outcomes in the order in which units finish.

    ``workers`` = 0 runs here, without processes. ``scheduler`` is the address of a Dask cluster that already exists;
    ``workers`` is then ignored. ``function`` and units must be picklable. Leaving the iterator early stops the workers.

    Raises RunError if the scheduler cannot be reached.
    """
    if not units:
        return
    if workers == 0 and scheduler is None:
        yield from _in_process(function, units)
        return
    with _client(min(workers, len(units)), scheduler) as client:
        yield from _on_dask(client, function, units)


def _in_process(function: Callable[[Unit], Value], units: Sequence[Unit]) -> Iterator[Outcome[Unit, Value]]:
    for unit in units:
        try:
            value = function(unit)
        except Exception as error:
            yield Outcome(unit, error=error)
        else:
            yield Outcome(unit, value)


def _on_dask(
    client: Client, function: Callable[[Unit], Value], units: Sequence[Unit]
) -> Iterator[Outcome[Unit, Value]]:
    """Keep as many units in flight as there are threads: Dask blames a dead worker's whole queue for its death."""
    waiting = iter(units)
    flying: dict[Future, Unit] = {}

    def launch(unit: Unit) -> Future:
        future = client.submit(function, unit, pure=False)
        flying[future] = unit
        return future

    running = as_completed([launch(u) for u in islice(waiting, max(1, sum(client.nthreads().values())))])
    try:
        for future in running:
            yield _outcome(flying.pop(future), future)
            future.release()
            for unit in islice(waiting, 1):
                running.add(launch(unit))
    finally:
        client.cancel(list(flying), force=True)


def _outcome(unit: Unit, future: Future) -> Outcome[Unit, Value]:
    error = future.exception() if future.status == "error" else None
    if future.status == "cancelled" or isinstance(error, CommClosedError):
        raise RunError("the Dask scheduler went away. Start it and run the same command again.")
    if error is not None:
        return Outcome(unit, error=error, worker_died=isinstance(error, KilledWorker))
    return Outcome(unit, future.result())


@contextmanager
def _client(workers: int, scheduler: str | None) -> Iterator[Client]:
    settings: dict[str, Any] = {
        "distributed.scheduler.allowed-failures": RETRIES,
        "distributed.nanny.pre-spawn-environ": SINGLE_THREAD | LEAN | QUIET,
        "distributed.worker.multiprocessing-method": "spawn",
        "distributed.admin.large-graph-warning-threshold": "1GB",
    }
    with dask.config.set(settings):
        if scheduler is not None:
            with _connect(scheduler) as client:
                yield client
            return
        with _local_cluster(workers) as cluster, Client(cluster) as client:
            yield client


def _local_cluster(workers: int) -> LocalCluster:
    """Worker processes that leave Ctrl-C, which the terminal sends to all of them, to this one."""
    before = signal.getsignal(signal.SIGINT)
    in_main = threading.current_thread() is threading.main_thread()
    if in_main:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited by what is spawned
    try:
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            memory_limit=0,
            silence_logs=logging.CRITICAL,
        )
    finally:
        if in_main:
            signal.signal(signal.SIGINT, before)


def _connect(address: str) -> Client:
    try:
        return Client(address, timeout="10s")
    except (OSError, ValueError) as error:
        raise RunError(f"{address}: no Dask scheduler answers there ({error}). Start one: dask scheduler") from error
