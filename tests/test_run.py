"""Units on real worker processes: order does not matter, errors come back, dead workers cost a retry."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from talkface.errors import RunError
from talkface.run import map_units


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


def test_a_cluster_that_exists(tmp_path: Path) -> None:
    address_file = tmp_path / "scheduler.json"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path.cwd())])}
    run = [
        sys.executable,
        "-m",
        "distributed.cli.dask_scheduler",
        "--port",
        "0",
        "--no-dashboard",
        "--host",
        "127.0.0.1",
    ]
    processes = [
        subprocess.Popen([*run, "--scheduler-file", str(address_file)], stderr=subprocess.DEVNULL, env=environment)
    ]
    try:
        while not address_file.exists():
            time.sleep(0.1)
        address = json.loads(address_file.read_text())["address"]
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"]
        processes.append(subprocess.Popen(worker, stderr=subprocess.DEVNULL, env=environment))
        outcomes = list(map_units(double, [1, 2], scheduler=address))
        assert sorted(o.value or 0 for o in outcomes) == [2, 4], [o.error for o in outcomes]
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()


def test_no_scheduler_there_is_one_clear_error() -> None:
    with pytest.raises(RunError, match="no Dask scheduler"):
        list(map_units(double, [1], scheduler="tcp://127.0.0.1:9"))
