"""Peak memory of the workers on a long 1080p file: a clip looped by copying its packets."""

import argparse
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import psutil


def add_arguments(parser: Any) -> None:
    """Options of this benchmark."""
    parser.add_argument("--seconds", type=float, default=3600, help="length of the long file")
    parser.add_argument("--fps", type=float, default=5, help="frames a second of the long file")


def main(options: argparse.Namespace) -> None:
    """Ingest the long file with two workers and print the larger one's peak."""
    clip = options.media / "emotional" / "spectre__M003_level_1_disgusted_015.mp4"
    if not clip.is_file():
        sys.exit(f"{clip}: not there; name a folder with --media")
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
