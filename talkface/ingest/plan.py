"""What an ingest would do, found by doing a little of it: time, disk, expected clips and rejects. Writes nothing."""

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from talkface.clip import NS, Source
from talkface.config import Ingest
from talkface.ingest.job import units_of
from talkface.ingest.pipeline import process, settings_fingerprint
from talkface.ingest.scan import ScanResult
from talkface.ingest.unit import Settings
from talkface.store import PACKS, Folder, read_pack_index
from talkface.weights import Models

PROBES = 4
"""Sources that are tried."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What is expected of a run. ``cpu_seconds`` and ``disk_bytes`` are extrapolated from the seconds tried."""

    sources: int
    units: int
    units_done: int
    seconds: float
    seconds_todo: float
    tried_seconds: float
    cpu_seconds: float
    wall_seconds: float
    disk_bytes: float
    free_bytes: int | None
    clip_share: float
    rejects: dict[str, int]
    rejected_sources: int


def forecast(
    scanned: ScanResult, out: Folder, config: Ingest, models: Models, *, workers: int, seconds: float = 4.0
) -> Forecast:
    """Try the first ``seconds`` of a few sources, spread over the list, and extrapolate."""
    fingerprint = settings_fingerprint(config.pack, models)
    units = [u for s in scanned.sources for u in units_of(s, config.pack.unit_seconds, fingerprint)]
    packs = Folder(f"{out.url}/{PACKS}")
    todo = [u for u in units if read_pack_index(packs, u.name) is None]
    left = sum(u.seconds for u in todo)
    tried = _try(_spread(scanned.sources), config, models, seconds)
    share = left / tried["seconds"] if tried["seconds"] else 0.0
    return Forecast(
        sources=len(scanned.sources),
        units=len(units),
        units_done=len(units) - len(todo),
        seconds=sum(u.seconds for u in units),
        seconds_todo=left,
        tried_seconds=tried["seconds"],
        cpu_seconds=tried["cpu"] * share,
        wall_seconds=tried["wall"] * share / max(workers, 1),
        disk_bytes=2 * tried["bytes"] * share,
        free_bytes=out.free_bytes(),
        clip_share=tried["clip_seconds"] / tried["seconds"] if tried["seconds"] else 0.0,
        rejects=dict(tried["rejects"]),
        rejected_sources=len(scanned.rejects),
    )


def _spread(sources: Sequence[Source]) -> list[Source]:
    """At most PROBES sources, evenly over the list."""
    step = max(1, len(sources) // PROBES)
    return list(sources[::step][:PROBES])


def _try(sources: Sequence[Source], config: Ingest, models: Models, seconds: float) -> dict[str, Any]:
    total: dict[str, Any] = {
        "seconds": 0.0,
        "cpu": 0.0,
        "wall": 0.0,
        "bytes": 0,
        "clip_seconds": 0.0,
        "rejects": Counter(),
    }
    with tempfile.TemporaryDirectory() as folder:
        fingerprint = settings_fingerprint(config.pack, models)
        settings = Settings(pack=config.pack, packs_url=folder, models=models, fingerprint=fingerprint)
        for number, source in enumerate(sources):
            unit = units_of(source, config.pack.unit_seconds, str(number))[0]
            part = min(seconds, unit.seconds)
            started = time.perf_counter()
            report = process(settings, replace(unit, end_ns=round(part * NS)))
            if number or len(sources) == 1:  # the first one also loads the models
                total["wall"] += time.perf_counter() - started
                total["cpu"] += sum(report.cpu.values())
                total["seconds"] += part
                _count_pack(Folder(folder), unit.name, total)
    return total


def _count_pack(folder: Folder, name: str, total: dict[str, Any]) -> None:
    index = read_pack_index(folder, name)
    assert index is not None, f"{name}: no pack was written"
    total["bytes"] += Path(folder.path(f"{name}.tar")).stat().st_size
    total["clip_seconds"] += sum(c["duration"] for c in index["clips"])
    total["rejects"].update(f"{r['stage']}/{r['reason']}" for r in index["rejects"])
