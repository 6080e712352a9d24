"""Peak memory of the workers on a long 1080p file: a clip looped by copying its packets."""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import psutil

PARTS = 10
SMALLEST_WORKER = 150e6
"""Bytes below which a process is one of Dask's helpers."""


def add_arguments(parser: Any) -> None:
    """Options of this benchmark."""
    parser.add_argument("--seconds", type=float, default=3600, help="length of the long file")
    parser.add_argument("--fps", type=float, default=12, help="frames a second of the long file")


def main(options: argparse.Namespace) -> None:
    """Ingest the long file with two workers; print each one's peak in each tenth of the run, and the larger one's."""
    clip = options.media / "emotional" / "spectre__M003_level_1_disgusted_015.mp4"
    if not clip.is_file():
        sys.exit(f"{clip}: not there; name a folder with --media")
    with tempfile.TemporaryDirectory() as folder:
        long = Path(folder) / "in" / "long.mp4"
        long.parent.mkdir()
        loop(clip, long, seconds=options.seconds, fps=options.fps)
        run = [sys.executable, "-m", "talkface.cli", "ingest", str(long.parent), "--out", f"{folder}/dataset"]
        process = subprocess.Popen([*run, "--models", str(options.models), "--offline", "--workers", "2"])
        with resident(process.pid) as samples:
            code = process.wait()
    if code not in (0, 3):
        sys.exit(f"the ingest ended with {code}")
    report(options, samples)


def report(options: argparse.Namespace, samples: dict[int, list[tuple[float, int]]]) -> None:
    """The table. A worker goes through its half of the file in order, so that a tenth of the run is one of its half."""
    workers = {pid: of for pid, of in samples.items() if max(size for _, size in of) > SMALLEST_WORKER}
    start = min(of[0][0] for of in workers.values())
    end = max(of[-1][0] for of in workers.values())
    print(f"\n{options.seconds / 3600:g} h of 1080p at {options.fps:g} frames/s; peak in GB\n")
    print("| part of the run | " + " | ".join(f"worker {i + 1}" for i in range(len(workers))) + " |")
    print("|---|" + "---|" * len(workers))
    for part in range(PARTS):
        low, high = (start + (end - start) * (part + i) / PARTS for i in range(2))
        peaks = [max((size for at, size in of if low <= at <= high), default=0) / 1e9 for of in workers.values()]
        print(
            f"| {part * 100 // PARTS} to {(part + 1) * 100 // PARTS} % | "
            + " | ".join(f"{p:.2f}" for p in peaks)
            + " |"
        )
    peak = max(size for of in workers.values() for _, size in of) / 1e9
    print(f"\npeak of a worker {peak:.2f} GB, in {end - start:.0f} s")


def loop(clip: Path, out: Path, *, seconds: float, fps: float) -> None:
    """Write ``clip``'s picture packets end to end at ``fps`` until ``seconds`` are full."""
    with av.open(str(clip)) as source, av.open(str(out), "w") as target:
        stream = source.streams.video[0]
        packets = [p for p in source.demux(stream) if p.size]
        copy = target.add_stream_from_template(stream)
        base = Fraction(1, 90_000)
        step = round(90_000 / fps)
        start = min(p.pts for p in packets)
        unit = packets[1].dts - packets[0].dts
        for turn in range(int(seconds * fps / len(packets)) + 1):
            for packet in packets:
                again = av.Packet(bytes(packet))
                shift = turn * len(packets)
                again.time_base, again.stream = base, copy
                again.is_keyframe = packet.is_keyframe
                again.pts = ((packet.pts - start) // unit + shift) * step
                again.dts = ((packet.dts - start) // unit + shift) * step
                target.mux(again)


@contextmanager
def resident(pid: int) -> Iterator[dict[int, list[tuple[float, int]]]]:
    """When and how many resident bytes each process below ``pid`` had, four times a second."""
    samples: dict[int, list[tuple[float, int]]] = defaultdict(list)
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.25):
            try:
                for child in psutil.Process(pid).children(recursive=True):
                    samples[child.pid].append((time.monotonic(), child.memory_info().rss))
            except psutil.Error:
                continue

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()
