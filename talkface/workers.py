"""Map a function over work units: in this process, on worker processes, or on a cluster that already exists.

The only code that knows Dask. Workers are started with spawn and compute on one thread each, so that N workers use N
cores and no decoder or model ever lives through a fork.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
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

LOOK_SECONDS, PAUSE_SECONDS = 2.0, 0.01
"""How often a cluster's workers are counted, and finished units looked for."""

LEAN = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "16000000", "MALLOC_TRIM_THRESHOLD_": "64000000"}
"""glibc keeps the memory of a picture for the next one, up to 2K; new pages for each would cost a quarter of all time
in 1080p. What is larger, and what is much, goes back to the system. Fewer arenas waste less."""
CALM = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.scheduler.work-stealing": False,
}
"""Dask watches itself many times a second, which a unit of minutes does not need. No effect on foreign clusters."""
QUIET = {"GLOG_minloglevel": "3", "TF_CPP_MIN_LOG_LEVEL": "3", "OPENCV_LOG_LEVEL": "ERROR"}


@dataclass(frozen=True)
class Outcome(Generic[Unit, Value]):
    """What became of one unit: its value, or the error that its function raised, or that its worker kept dying.

    ``workers`` is how many there were when it ended.
    """

    unit: Unit
    value: Value | None = None
    error: BaseException | None = None
    worker_died: bool = False
    workers: int = 1


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
    """Keep as many units in flight as there are workers: Dask blames a dead worker's whole queue for its death.

    A cluster may grow and shrink meanwhile.
    """
    waiting = iter(units)
    flying: dict[Future, Unit] = {}

    def launch(unit: Unit) -> Future:
        future = client.submit(function, unit, pure=False)
        flying[future] = unit
        return future

    running, looked, workers = as_completed(), float("-inf"), 0
    try:
        while True:
            if time.monotonic() - looked > LOOK_SECONDS:
                looked, workers = time.monotonic(), max(1, len(client.nthreads()))
            for unit in islice(waiting, max(0, workers - len(flying))):
                running.add(launch(unit))
            if not flying:
                return
            if not running.has_ready():
                time.sleep(PAUSE_SECONDS)
                continue
            future = next(running)
            yield replace(_outcome(flying.pop(future), future), workers=workers)
            future.release()
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
        **CALM,
    }
    with dask.config.set(settings):
        if scheduler is not None:
            with _connect(scheduler) as client:
                yield client
            return
        with _local_cluster(workers) as cluster, Client(cluster) as client:
            yield client


def _local_cluster(workers: int) -> LocalCluster:
    """Worker processes that leave Ctrl-C, which the terminal sends to all of them, to this one.

    Raises RunError if one dies again and again while it starts.
    """
    before = signal.getsignal(signal.SIGINT)
    in_main = threading.current_thread() is threading.main_thread()
    if in_main:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited by what is spawned
    try:
        for _ in range(RETRIES):
            with suppress(RuntimeError):
                return _started(workers)
        raise RunError(f"{workers} workers cannot be started: one dies at once. Is there memory? Give fewer --workers.")
    finally:
        if in_main:
            signal.signal(signal.SIGINT, before)


def _started(workers: int) -> LocalCluster:
    """Raises RuntimeError, with nothing left running, if a worker cannot be started."""
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": False},
        memory_limit=0,
        silence_logs=logging.CRITICAL,
    )


def _connect(address: str) -> Client:
    try:
        return Client(address, timeout="10s")
    except (OSError, ValueError) as error:
        raise RunError(f"{address}: no Dask scheduler answers there ({error}). Start one: dask scheduler") from error
