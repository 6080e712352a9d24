"""Windows a second: talkface's loader beside webdataset, datasets, MDS, litdata and plain files, over equal clips."""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RIVALS_AT = Path(".venv/rivals")
"""Where `make bench` puts MDS and litdata: they ask for packages that talkface's environment must not have."""

OURS, ALIKE = "talkface", "talkface, only clips shuffled, as the others do"
FLOOR = "floor: the same bytes, read and nothing else"

KINDS = {"motion": "32 frames of arkit, head and sound", "video": "16 frames of video at 256"}


def add_arguments(parser: Any) -> None:
    """Options of this benchmark."""
    parser.add_argument("--dataset", type=Path, help="a dataset to read; made of the real clips unless given")
    parser.add_argument("--kinds", nargs="*", default=["motion", "video"], help="of windows: motion, video")
    parser.add_argument("--measure", type=float, default=6.0, help="seconds of each measurement, after its start")
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
        prepare(Path(home), options)
        if options.minutes:
            memory(Path(home), options.minutes)
            return
        for kind, what in KINDS.items():
            if kind not in options.kinds:
                continue
            print(f"\nWindows a second, {what}\n")
            print("| loader | cold, 1 worker | warm, 1 worker | warm, 2 workers | warm, against the best other |")
            print("|---|---|---|---|---|")
            table(kind, home, options)


def names() -> list[str]:
    from benchmarks.baselines.loaders import RIVALS

    return [OURS, ALIKE, *RIVALS, FLOOR]


def table(kind: str, home: str, options: argparse.Namespace) -> None:
    """A row a loader; runs that failed say why."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names()}
    for workers in (1, 2):
        for name in names():
            found[name].append(run(name, kind, workers, home, options))
    best = [max(found[n][i].get("warm", 0.0) for n in found if n not in (OURS, ALIKE, FLOOR)) for i in range(2)]
    for name, (one, two) in found.items():
        if "error" in one:
            print(f"| {name} | {one['error']} | | | |")
            continue
        ratios = f"{one['warm'] / best[0]:.2f}, {two['warm'] / best[1]:.2f}"
        print(f"| {name} | {one['cold']:.0f} | {one['warm']:.0f} | {two['warm']:.0f} | {ratios} |", flush=True)


def run(name: str, kind: str, workers: int, home: str, options: argparse.Namespace) -> dict[str, Any]:
    """One measurement in a process of its own."""
    command = [sys.executable, "-m", "benchmarks", "loader", "--measure", str(options.measure)]
    done = subprocess.run(
        [*command, "--one", name, kind, str(workers), home], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1][:80], "warm": 0.0, "cold": 0.0}
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def measure(name: str, kind: str, workers: int, home: Path, seconds: float) -> dict[str, float]:
    """Windows a second: with cold caches and the workers' start in the time, then warm epochs without it.

    Each takes ``seconds`` or one epoch, whichever ends first; warm epochs come until the time is full.
    """
    if RIVALS_AT.is_dir():
        sys.path.append(str(RIVALS_AT.resolve()))
    drop_caches(home)
    started = time.perf_counter()
    count, _, _ = epoch(name, kind, workers, home, 0, seconds)
    cold = count / (time.perf_counter() - started)
    windows, spent, number = 0, 0.0, 0
    while spent < seconds:
        number += 1
        _, flowing, took = epoch(name, kind, workers, home, number, seconds - spent)
        windows, spent = windows + flowing, spent + took
    return {"cold": cold, "warm": windows / spent}


def epoch(name: str, kind: str, workers: int, home: Path, number: int, seconds: float) -> tuple[int, int, float]:
    """Windows of an epoch's first ``seconds``; those after the first batch of each worker, and what these took."""
    from benchmarks.baselines.loaders import RIVALS

    if name == FLOOR:
        started = time.perf_counter()
        windows = floor(kind, home)
        return windows, windows, time.perf_counter() - started
    if name in RIVALS:
        batches = RIVALS[name](home, kind, workers)
    else:
        batches = ours(home, kind, workers, number, buffer=4096 if name == OURS else 1)
    counts, times = [], []
    for batch in batches:
        counts.append(len(next(v for v in batch.values() if hasattr(v, "shape"))))
        times.append(time.perf_counter())
        if len(times) > workers and times[-1] - times[workers - 1] > seconds:
            break
    return sum(counts), sum(counts[workers:]), times[-1] - times[workers - 1]


def memory(home: Path, minutes: float) -> None:
    """What this process and its two workers hold together, ten times over the minutes of streaming."""
    import psutil

    me, number, windows = psutil.Process(), 0, 0
    started = time.perf_counter()
    marks = [minutes * 60 * i / 10 for i in range(1, 11)]
    print("| minutes | windows so far | MB held |\n|---|---|---|")
    while marks:
        number += 1
        for batch in ours(home, "motion", 2, number):
            windows += len(batch["arkit"])
            spent = time.perf_counter() - started
            if marks and spent > marks[0]:
                marks.pop(0)
                held = sum(p.memory_full_info().pss for p in (me, *me.children()))
                print(f"| {spent / 60:.1f} | {windows} | {held / 1e6:.0f} |", flush=True)


def ours(home: Path, kind: str, workers: int, number: int, buffer: int = 4096) -> Any:
    from benchmarks.baselines.loaders import BATCH, LENGTHS, SIZE
    from talkface.datasets import open_dataset
    from talkface.datasets.loader import Loader
    from talkface.datasets.windows import Pictures, Windows

    if kind == "motion":
        windows = Windows(length=LENGTHS[kind], fps=25, columns=("arkit", "head"), sound=True, pad="never")
    else:
        windows = Windows(length=LENGTHS[kind], fps=25, columns=(), pictures=Pictures(size=SIZE), pad="never")
    loader = Loader(open_dataset(str(home / "dataset")), windows, batch_size=BATCH, seed=1, buffer=buffer)
    loader.set_epoch(number)
    return loader.batches(workers=workers, start="fork")


def floor(kind: str, home: Path) -> int:
    """Read the bytes of the members that the windows need, in the order of the shards."""
    from benchmarks.baselines.loaders import LENGTHS, _needed
    from talkface.datasets import open_dataset

    dataset = open_dataset(str(home / "dataset"))
    windows = 0
    for row, frames in enumerate(dataset.clips.column("frames").to_pylist()):
        dataset.read([row], ["pts.npy", *_needed(kind)])
        windows += frames // LENGTHS[kind]
    return windows


def drop_caches(home: Path) -> None:
    """Put the files out of the system's memory where it lets us, else at least ask it to."""
    subprocess.run(["sync"], check=False)
    try:
        Path("/proc/sys/vm/drop_caches").write_text("1")
    except OSError:
        for path in home.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def prepare(home: Path, options: argparse.Namespace) -> None:
    """The dataset, and the same samples in each rival's form."""
    from benchmarks.baselines import loaders
    from talkface.datasets import open_dataset

    if options.dataset:
        (home / "dataset").symlink_to(options.dataset.resolve())
    else:
        command = [sys.executable, "-m", "talkface.cli", "ingest", str(options.media / "talking")]
        subprocess.run([*command, "--out", str(home / "dataset"), "--models", str(options.models)], check=False)
    if options.minutes:
        return
    if RIVALS_AT.is_dir():
        sys.path.append(str(RIVALS_AT.resolve()))
    dataset = open_dataset(str(home / "dataset"))
    samples = []
    for sample in dataset:
        columns = {k: sample[f"{k}.npy"] for k in ("arkit", "head", "pts", "lm")}
        samples.append({"key": sample["__key__"], **columns, "flac": sample["flac"], "mp4": sample["mp4"]})
    loaders.write_folder(home, samples)
    for package, write in (("streaming", loaders.write_mds), ("litdata", loaders.write_litdata)):
        if importlib.util.find_spec(package):
            write(home, samples)
    print(f"{len(samples)} clips, {sum(len(s['pts']) for s in samples)} frames")
