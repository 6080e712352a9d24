"""``make bench``: what talkface reaches on real clips, side by side with the plain script. Prints ratios.

    python -m benchmarks [ingest] [memory] [--every N] [--media DIR] [--models DIR] [--seconds N] [--fps N]

Machines are noisy: everything that is compared runs in one call, one after the other, and alternates.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.loop import loop

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


def main() -> None:
    """Run the named benchmarks, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=["ingest", "memory"], help="ingest, memory")
    parser.add_argument("--media", type=Path, default=SHARED / "media")
    parser.add_argument("--models", type=Path, default=SHARED / "models")
    parser.add_argument("--every", type=int, default=1, help="only every so many-th clip, for a quicker look")
    parser.add_argument("--rounds", type=int, default=1, help="how often each side runs")
    parser.add_argument("--seconds", type=float, default=3600, help="length of the long file")
    parser.add_argument("--fps", type=float, default=5, help="frames a second of the long file")
    options = parser.parse_args()
    if not options.media.is_dir():
        sys.exit(f"{options.media}: no real media; name a folder with --media")
    for name in options.names:
        {"ingest": bench_ingest, "memory": bench_memory}[name](options)


def bench_ingest(options: argparse.Namespace) -> None:
    """Frames a second: the plain script, then talkface with one worker and with two."""
    clips = sorted((options.media / "talking").glob("*.mp4"))[:: options.every]
    plain, one, two = [], [], []
    for _ in range(options.rounds):
        plain.append(plain_script(clips, options.models))
        one.append(ingest(clips, options.models, 1))
        two.append(ingest(clips, options.models, 2))
    runs = {"plain script, one process": plain, "talkface, 1 worker": one, "talkface, 2 workers": two}
    rates = {name: statistics.median(r["frames"] / r["seconds"] for r in of) for name, of in runs.items()}
    base = rates["plain script, one process"]
    print(f"\n{len(clips)} clips of {options.media / 'talking'}\n")
    print("| what | frames/s | against the plain script |\n|---|---|---|")
    for name, rate in rates.items():
        print(f"| {name} | {rate:.1f} | {rate / base:.2f} |")
    print(f"\n2 workers against 1: {rates['talkface, 2 workers'] / rates['talkface, 1 worker']:.2f}")
    print(f"pipeline efficiency with 2 workers (CPU seconds in stages over wall x workers): {two[-1]['busy']:.2f}")
    print("\n" + two[-1]["summary"])


def plain_script(clips: list[Path], models: Path) -> dict[str, float]:
    """The plain script over all clips in a process of its own."""
    with tempfile.TemporaryDirectory() as out:
        script = [sys.executable, str(ROOT / "benchmarks" / "plain_script.py"), "--models", str(models), "--out", out]
        started = time.perf_counter()
        result = subprocess.run([*script, *map(str, clips)], capture_output=True, text=True, check=True)
        wall = time.perf_counter() - started
    return json.loads(result.stdout.strip().splitlines()[-1]) | {"seconds": wall}


def ingest(clips: list[Path], models: Path, workers: int) -> dict[str, Any]:
    """``toolkit ingest`` with default settings into a new folder; wall time from start to exit, build included."""
    with tempfile.TemporaryDirectory() as out:
        only = Path(out) / "in"
        only.mkdir()
        for clip in clips:
            (only / clip.name).symlink_to(clip)
        run = [sys.executable, "-m", "talkface.cli", "ingest", str(only), "--out", f"{out}/dataset"]
        started = time.perf_counter()
        result = subprocess.run(
            [*run, "--models", str(models), "--offline", "--workers", str(workers)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        wall = time.perf_counter() - started
    if result.returncode not in (0, 3):
        sys.exit(result.stdout + result.stderr)
    frames = int(re.search(r"(\d+) frames in", result.stdout)[1])  # type: ignore[index]
    busy = int(re.search(r"(\d+)% of", result.stdout)[1]) / 100  # type: ignore[index]
    return {"frames": frames, "seconds": wall, "busy": busy, "summary": result.stdout}


def bench_memory(options: argparse.Namespace) -> None:
    """Peak memory of a worker on a long 1080p file: a clip looped by copying its packets."""
    clip = options.media / "emotional" / "spectre__M003_level_1_disgusted_015.mp4"
    with tempfile.TemporaryDirectory() as folder:
        long = Path(folder) / "in" / "long.mp4"
        long.parent.mkdir()
        loop(clip, long, seconds=options.seconds, fps=options.fps)
        run = [sys.executable, "-m", "talkface.cli", "ingest", str(long.parent), "--out", f"{folder}/dataset"]
        process = subprocess.Popen([*run, "--models", str(options.models), "--offline", "--workers", "2"])
        with peak_memory(process.pid) as peaks:
            process.wait()
    peak = max(peaks.values()) / 1e9
    print(f"\n{options.seconds / 3600:g} h of 1080p at {options.fps:g} frames/s: peak of a worker {peak:.2f} GB")


@contextmanager
def peak_memory(pid: int) -> Iterator[dict[int, int]]:
    """Largest resident bytes of each worker below ``pid``, sampled four times a second."""
    peaks: dict[int, int] = {}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.25):
            try:
                for child in psutil.Process(pid).children(recursive=True):
                    peaks[child.pid] = max(peaks.get(child.pid, 0), child.memory_info().rss)
            except psutil.Error:
                continue

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        done.set()
        thread.join()


if __name__ == "__main__":
    os.chdir(ROOT)
    shutil.rmtree(ROOT / "build" / "bench", ignore_errors=True)
    main()
