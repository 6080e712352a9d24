"""Windows a second: talkface's loader beside webdataset, datasets, MDS, litdata and plain files, over equal clips."""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import cache
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._data import real_clips

RIVALS_AT = Path(".venv/rivals")
"""Where `make bench` puts MDS and litdata: they ask for packages that talkface's environment must not have."""

OURS, UNCACHED = "talkface", "talkface, cache=False"
FLOOR = "floor: the same bytes, read and nothing else"

FIRST_EPOCH = 6.0
"""Seconds after which the first epoch is broken off."""

PACKAGES = {"webdataset": "webdataset", "datasets, streaming": "datasets", "litdata": "litdata", "MDS": "boto3"}
"""What to import before the clock starts."""

KINDS = {"motion": "32 frames of arkit, head and sound", "video": "16 frames of video at 256"}


def add_arguments(parser: Any) -> None:
    """Options of this benchmark."""
    parser.add_argument("--dataset", type=Path, help="a dataset to read; made of the real clips unless given")
    parser.add_argument("--kinds", nargs="*", default=["motion", "video"], help="of windows: motion, video")
    parser.add_argument("--measure", type=float, default=4.0, help="seconds of each measurement, after its start")
    parser.add_argument("--minutes", type=float, help="stream this long with talkface and print its memory instead")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)


def main(options: argparse.Namespace) -> None:
    """Measure each loader in a process of its own, alternating, and print the table."""
    if options.one:
        loader, kind, workers, home = options.one
        print(json.dumps(measure(loader, kind, int(workers), Path(home), options.measure)))
        return
    with tempfile.TemporaryDirectory() as home:
        # By default litdata works in /tmp/data and /tmp/chunks, and empties them first.
        os.environ["DATA_OPTIMIZER_CACHE_FOLDER"] = f"{home}/litdata_chunks"
        os.environ["DATA_OPTIMIZER_DATA_CACHE_FOLDER"] = f"{home}/litdata_cache"
        if options.dataset:
            (Path(home) / "dataset").symlink_to(options.dataset.resolve())
        elif real_clips(options, Path(home) / "dataset", ["talking"]) is None:
            return
        if options.minutes:
            memory(Path(home), options.minutes)
            return
        prepare(Path(home))
        for kind, what in KINDS.items():
            if kind not in options.kinds:
                continue
            print(f"\nWindows a second, {what}\n")
            print("| loader | 1 worker: first epoch | later | 2 workers: first epoch | later | ratios | CPU ms |")
            print("|---|---|---|---|---|---|---|")
            table(kind, home, options)


def names(kind: str) -> list[str]:
    from benchmarks.baselines.loaders import RIVALS

    # Clips with pictures are never cached.
    return [OURS, *([UNCACHED] if kind == "motion" else []), *RIVALS, FLOOR]


def table(kind: str, home: str, options: argparse.Namespace) -> None:
    """A row a loader: medians of the rounds; runs that failed say why."""
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {(n, w): [] for n in names(kind) for w in (1, 2)}
    for _ in range(options.rounds):
        for (name, workers), several in runs.items():
            several.append(run(name, kind, workers, home, options))
    found = {at: middle(several) for at, several in runs.items()}
    best = {w: max(found[n, w].get("warm", 0.0) for n in names(kind)[:-1] if n not in (OURS, UNCACHED)) for w in (1, 2)}
    for name in names(kind):
        cells, ratios, cpu = [], [], []
        for workers in (1, 2):
            one = found[name, workers]
            cells += [one["error"], "-"] if "error" in one else [f"{one['cold']:.0f}", f"{one['warm']:.0f}"]
            ratios.append("-" if "error" in one else f"{one['warm'] / best[workers]:.2f}")
            cpu.append("-" if "error" in one else f"{one['cpu']:.2f}")
        print(f"| {name} | {' | '.join(cells)} | {', '.join(ratios)} | {', '.join(cpu)} |", flush=True)


def middle(several: list[dict[str, Any]]) -> dict[str, Any]:
    """The medians; the error if there is one."""
    if errors := [one for one in several if "error" in one]:
        return errors[0]
    return {what: statistics.median(one[what] for one in several) for what in ("cold", "warm", "cpu")}


def run(name: str, kind: str, workers: int, home: str, options: argparse.Namespace) -> dict[str, Any]:
    """One measurement in a process of its own."""
    command = [sys.executable, "-m", "benchmarks", "loader", "--measure", str(options.measure)]
    command += ["--one", name, kind, str(workers), home]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    except subprocess.TimeoutExpired:
        return {"error": "no end after 120 s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["failed"])[-1][:80]}
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def measure(name: str, kind: str, workers: int, home: Path, seconds: float) -> dict[str, float]:
    """Windows a second: of the first epoch with cold files and the workers' start in the time, then of later epochs.

    Later epochs come until the time is full, and what lies between them counts; their clock starts with the first
    batch of each worker. ``cpu``: milliseconds of processor time a window in these, of all processes.
    """
    if RIVALS_AT.is_dir():
        sys.path.append(str(RIVALS_AT.resolve()))
    epoch = source(name, kind, workers, home)
    drop_caches(home)
    cold, started = 0, time.perf_counter()
    for batch in epoch(0):
        cold, now = cold + size_of(batch), time.perf_counter()
        if now - started > FIRST_EPOCH:
            break
    result = {"cold": cold / (now - started)}
    warm, began, used = 0, 0.0, 0.0
    for number, batch in enumerate(chain.from_iterable(map(epoch, count(1))), start=1):
        now = time.perf_counter()
        if number <= workers:
            began, used = now, cpu_seconds()
            continue
        warm += size_of(batch)
        if now - began > seconds:
            break
    return result | {"warm": warm / (now - began), "cpu": (cpu_seconds() - used) / warm * 1000}


def cpu_seconds() -> float:
    """Of this process and its workers."""
    import psutil

    me = psutil.Process()
    return sum(sum(p.cpu_times()[:2]) for p in (me, *me.children(recursive=True)))


def size_of(batch: Any) -> int:
    return len(next(v for v in batch.values() if hasattr(v, "shape")))


def source(name: str, kind: str, workers: int, home: Path) -> Callable[[int], Iterable[Any]]:
    """Gives the batches of an epoch. What takes time once (imports) is done, nothing of the data is read."""
    from benchmarks.baselines.loaders import RIVALS

    if name == FLOOR:
        return lambda _: floor(kind, home)
    if name in RIVALS:
        importlib.import_module(PACKAGES.get(name, "torch"))
        made = cache(lambda: RIVALS[name](home, kind, workers))
        return lambda _: made()
    importlib.import_module("pandas")  # pyarrow takes it to make NumPy arrays
    return ours(home, kind, workers, Path(tempfile.mkdtemp(dir=home)) if name == OURS else False)


def memory(home: Path, minutes: float) -> None:
    """What this process and its two workers hold together, ten times over the minutes of streaming.

    Pages of the cache's file that the system holds in memory count as held; so they come last, too, by themselves.
    """
    import psutil

    me, windows = psutil.Process(), 0
    epoch = ours(home, "motion", 2, home / "cache")
    started = time.perf_counter()
    marks = [minutes * 60 * i / 10 for i in range(1, 11)]
    print("| minutes | windows so far | MB held | MB of its own |\n|---|---|---|---|")
    for batch in chain.from_iterable(map(epoch, count())):
        windows += size_of(batch)
        spent = time.perf_counter() - started
        if spent < marks[0]:
            continue
        marks.pop(0)
        held = [p.memory_full_info() for p in (me, *me.children())]
        print(
            f"| {spent / 60:.1f} | {windows} | {sum(h.pss for h in held) / 1e6:.0f} | "
            f"{sum(h.uss for h in held) / 1e6:.0f} |",
            flush=True,
        )
        if not marks:
            return


def ours(home: Path, kind: str, workers: int, kept: Path | bool) -> Callable[[int], Iterable[Any]]:
    from benchmarks.baselines.loaders import BATCH, LENGTHS, SIZE
    from talkface.datasets import open_dataset
    from talkface.datasets.loading.loader import Loader
    from talkface.datasets.loading.windows import Pictures, Windows

    if kind == "motion":
        windows = Windows(length=LENGTHS[kind], fps=25, columns=("arkit", "head"), sound=True, pad="never")
    else:
        windows = Windows(length=LENGTHS[kind], fps=25, columns=(), pictures=Pictures(size=SIZE), pad="never")

    @cache
    def loader() -> Loader:
        return Loader(open_dataset(str(home / "dataset")), windows, batch_size=BATCH, seed=1, cache=kept)

    def epoch(number: int) -> Iterable[Any]:
        loader().set_epoch(number)
        return loader().batches(workers=workers, start="fork")

    return epoch


def floor(kind: str, home: Path) -> Iterable[Any]:
    """Read the bytes of the members that the windows need, in the order of the shards."""
    from benchmarks.baselines.loaders import LENGTHS, _needed
    from talkface.datasets import open_dataset

    dataset = open_dataset(str(home / "dataset"))
    for row, frames in enumerate(dataset.clips.column("frames").to_pylist()):
        dataset.read([row], ["pts.npy", *_needed(kind)])
        yield {"windows": np.empty(frames // LENGTHS[kind], bool)}


def drop_caches(home: Path) -> None:
    """Ask the system to put the files out of its memory; those of the dataset lie behind a link."""
    subprocess.run(["sync"], check=False)
    for folder in (home, (home / "dataset").resolve()):
        for path in folder.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def prepare(home: Path) -> None:
    """The dataset's samples in each rival's form."""
    from benchmarks.baselines import loaders
    from talkface.datasets import open_dataset

    if RIVALS_AT.is_dir():
        sys.path.append(str(RIVALS_AT.resolve()))
    dataset = open_dataset(str(home / "dataset"))
    samples = []
    for sample in dataset:
        columns = {k: sample[f"{k}.npy"] for k in ("arkit", "head", "pts", "lm")}
        samples.append({"key": sample["__key__"], **columns, "flac": sample["flac"], "mp4": sample["mp4"]})
    loaders.write_shards(home, dataset)
    loaders.write_folder(home, samples)
    for package, write in (("streaming", loaders.write_mds), ("litdata", loaders.write_litdata)):
        if importlib.util.find_spec(package):
            write(home, samples)
    print(f"{len(samples)} clips, {sum(len(s['pts']) for s in samples)} frames")
