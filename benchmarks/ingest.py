"""Frames a second of ``toolkit ingest`` on real clips: the plain script, then talkface with one worker and with two."""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PLAIN, ONE, TWO = "plain script, one process", "talkface, 1 worker", "talkface, 2 workers"


def add_arguments(parser: Any) -> None:
    """Options of this benchmark."""
    parser.add_argument("--every", type=int, default=1, help="only every so many-th clip, for a quicker look")


def main(options: argparse.Namespace) -> None:
    """Print frames a second of each, and what two workers gain."""
    folder = options.media / "talking"
    clips = sorted(folder.glob("*.mp4"))[:: options.every]
    if not clips:
        sys.exit(f"{folder}: no real clips; name a folder with --media")
    runs: dict[str, list[dict[str, Any]]] = {PLAIN: [], ONE: [], TWO: []}
    for _ in range(options.rounds):
        runs[PLAIN].append(plain_script(clips, options.models))
        runs[ONE].append(ingest(clips, options.models, 1))
        runs[TWO].append(ingest(clips, options.models, 2))
    report(clips, runs)


def report(clips: list[Path], runs: dict[str, list[dict[str, Any]]]) -> None:
    """The table, and the summary of the last run."""
    median = {name: statistics.median(r["frames"] / r["seconds"] for r in of) for name, of in runs.items()}
    print(f"{len(clips)} clips of {clips[0].parent}\n")
    print("| what | frames/s | against the plain script | CPU ms a frame |\n|---|---|---|---|")
    for name, rate in median.items():
        cpu = statistics.median(1000 * r["cpu_seconds"] / r["frames"] for r in runs[name])
        print(f"| {name} | {rate:.1f} | {rate / median[PLAIN]:.2f} | {cpu:.1f} |")
    print(f"\n2 workers against 1: {median[TWO] / median[ONE]:.2f}")
    last = runs[TWO][-1]
    print(f"pipeline efficiency with 2 workers (CPU seconds in stages over wall x workers): {last['busy']:.2f}")
    print("\n" + last["summary"])


def plain_script(clips: list[Path], models: Path) -> dict[str, Any]:
    """The plain script over all clips in a process of its own."""
    script = [sys.executable, "-m", "benchmarks.baselines.plain_script", "--models", str(models)]
    with tempfile.TemporaryDirectory() as out:
        started = time.perf_counter()
        result = subprocess.run([*script, "--out", out, *map(str, clips)], capture_output=True, text=True, check=True)
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
        run += ["--models", str(models), "--offline", "--workers", str(workers)]
        started = time.perf_counter()
        result = subprocess.run(run, capture_output=True, text=True, check=False)
        wall = time.perf_counter() - started
        if result.returncode not in (0, 3):
            sys.exit(result.stdout + result.stderr)
        told = json.loads((Path(out) / "dataset" / "run.json").read_text())
    busy = int(re.search(r"(\d+)% of the workers", result.stdout)[1]) / 100  # type: ignore[index]
    cpu = sum(told["cpu_seconds"].values())
    return {"frames": told["frames"], "seconds": wall, "busy": busy, "cpu_seconds": cpu, "summary": result.stdout}
