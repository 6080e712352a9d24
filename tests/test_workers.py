"""Units on real worker processes: order does not matter, errors come back, dead workers cost a retry."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from talkface.errors import RunError
from talkface.workers import map_units
from tests.conftest import NOT_DATA, Toolkit, files_of


def double(unit: int) -> int:
    if unit == 3:
        raise ValueError("three")
    return 2 * unit


def die_until(folder: str, times: int, unit: int) -> int:
    """Kill this worker the first ``times`` times that ``unit`` is worked on."""
    marks = Path(folder)
    tries = len(list(marks.glob(f"{unit}-*")))
    (marks / f"{unit}-{tries}").touch()
    if unit == 1 and tries < times:
        os.kill(os.getpid(), signal.SIGKILL)
    return unit


@pytest.mark.parametrize("workers", [0, 2])
def test_values_and_errors_come_back(workers: int) -> None:
    outcomes = {o.unit: o for o in map_units(double, [1, 2, 3, 4], workers=workers)}
    assert {u: o.value for u, o in outcomes.items() if not o.error} == {1: 2, 2: 4, 4: 8}
    assert isinstance(outcomes[3].error, ValueError)
    assert not outcomes[3].worker_died


def test_a_worker_that_dies_costs_a_retry(tmp_path: Path) -> None:
    outcomes = list(map_units(partial(die_until, str(tmp_path), 1), [0, 1, 2], workers=2))
    assert sorted(o.value for o in outcomes if o.value is not None) == [0, 1, 2]


def test_a_unit_that_always_kills_is_given_up_alone(tmp_path: Path) -> None:
    outcomes = {o.unit: o for o in map_units(partial(die_until, str(tmp_path), 99), [0, 1, 2], workers=1)}
    assert outcomes[1].worker_died
    assert {outcomes[0].value, outcomes[2].value} == {0, 2}


def kill_as_they_come(count: int, done: threading.Event) -> None:
    """Kill -9 the first workers that this process starts, as soon as they are there."""
    killed = set[int]()
    while len(killed) < count and not done.wait(0.01):
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if child.pid not in killed and "spawn_main" in " ".join(child.cmdline()):
                    child.kill()
                    killed.add(child.pid)


@pytest.mark.parametrize("count", [1, 100])
def test_workers_that_die_while_they_start(count: int) -> None:
    done = threading.Event()
    killer = threading.Thread(target=kill_as_they_come, args=(count, done))
    killer.start()
    try:
        if count > 1:
            with pytest.raises(RunError, match="2 workers cannot be started"):
                list(map_units(double, [1, 2], workers=2))
        else:
            assert sorted(o.value or 0 for o in map_units(double, [1, 2], workers=2)) == [2, 4]
    finally:
        done.set()
        killer.join()


@contextmanager
def cluster(tmp_path: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """A Dask scheduler without workers: its address, and what adds a worker process."""
    address_file = tmp_path / "scheduler.json"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path.cwd())])}
    processes: list[subprocess.Popen[bytes]] = []

    def start(program: str, *options: str) -> None:
        words = [sys.executable, "-m", f"distributed.cli.{program}", *options]
        quiet = subprocess.DEVNULL
        processes.append(subprocess.Popen(words, stdout=quiet, stderr=quiet, env=environment))

    start("dask_scheduler", "--port", "0", "--no-dashboard", "--host", "127.0.0.1",
          "--scheduler-file", str(address_file))  # fmt: skip
    try:
        while not address_file.exists():
            time.sleep(0.1)
        address = json.loads(address_file.read_text())["address"]
        yield address, partial(start, "dask_worker", address, "--nthreads", "1", "--no-dashboard")
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()


def test_a_cluster_that_exists(tmp_path: Path) -> None:
    with cluster(tmp_path) as (address, add):
        add()
        outcomes = list(map_units(double, [1, 2], scheduler=address))
        assert sorted(o.value or 0 for o in outcomes) == [2, 4], [o.error for o in outcomes]


def alive_at_once(folder: str, unit: int) -> bool:
    """Whether another unit is worked on while this one is, within 60 s."""
    mine = Path(folder) / f"{unit}"
    mine.touch()
    for _ in range(600):
        if len(list(Path(folder).iterdir())) > 1:
            time.sleep(0.5)  # until the other has looked too
            return True
        time.sleep(0.1)
    return False


def test_a_cluster_that_grows_gets_more_units(tmp_path: Path) -> None:
    """The first unit waits for the second, which only a worker that joins later can work on."""
    (tmp_path / "marks").mkdir()
    with cluster(tmp_path) as (address, add):
        add()
        outcomes = map_units(partial(alive_at_once, str(tmp_path / "marks")), [0, 1], scheduler=address)
        joins = threading.Timer(3, add)
        joins.start()
        ends = list(outcomes)
        joins.join()
    assert [o.value for o in ends] == [True, True]
    assert max(o.workers for o in ends) == 2


def test_an_ingest_on_a_cluster_gives_the_bytes_of_any_other(
    tmp_path: Path, demo: Path, videos: Path, toolkit: Toolkit
) -> None:
    with cluster(tmp_path) as (address, add):
        add()
        add()
        run = ("ingest", videos, "--out", tmp_path / "out", "--offline", "--scheduler", address)
        result = toolkit(*run, code=3)
    assert files_of(tmp_path / "out", but=NOT_DATA) == files_of(demo, but=NOT_DATA)
    (busy,) = re.findall(r"(\d+)% of the workers' time", result.stdout)
    assert 0 < int(busy) <= 100
    told = json.loads((tmp_path / "out" / "run.json").read_text())
    assert told["wall_seconds"] < told["worker_seconds"] < 2.1 * told["wall_seconds"]


def test_no_scheduler_there_is_one_clear_error() -> None:
    with pytest.raises(RunError, match="no Dask scheduler"):
        list(map_units(double, [1], scheduler="tcp://127.0.0.1:9"))
