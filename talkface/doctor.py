"""Is this machine fit for the job? Decoders, models, licences, cores, disk, GPU."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import torch

from talkface import media
from talkface.nets.inference import quick_precision
from talkface.weights import Models, how_to_get

PACKAGES = (
    "av",
    "decord",
    "mediapipe",
    "opencv-contrib-python-headless",
    "torch",
    "silero-vad",
    "datasets",
    "webdataset",
    "dask",
)
CODECS = ("h264", "hevc", "vp9", "av1", "mpeg4", "aac", "mp3", "opus")


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``bad`` stops the main job, ``note`` costs something."""

    level: Literal["ok", "note", "bad"]
    what: str
    detail: str


def examine(models: Models, folder: Path) -> list[Finding]:
    """Everything worth knowing before a run whose output goes to ``folder``."""
    return [*_python(), *_packages(), *_codecs(), *_models(models), *_machine(folder)]


def _python() -> Iterator[Finding]:
    level: Literal["ok", "bad"] = "ok" if sys.version_info >= (3, 11) else "bad"
    yield Finding(level, "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _packages() -> Iterator[Finding]:
    for name in PACKAGES:
        try:
            yield Finding("ok", name, version(name))
        except PackageNotFoundError:
            yield Finding("note", name, "not installed")


def _codecs() -> Iterator[Finding]:
    known = media.decoders()
    for codec in CODECS:
        found = codec in known
        yield Finding(
            "ok" if found else "note", f"decoder {codec}", "there" if found else "missing: such files are rejected"
        )


def _models(models: Models) -> Iterator[Finding]:
    for row in models.status():
        level: Literal["ok", "note", "bad"] = "ok" if row.path and row.ok else "bad" if row.path else "note"
        where = row.path or f"not here. {how_to_get(row.weight)}"
        yield Finding(level, f"model {row.weight.name}", f"{where} ({row.weight.licence})")


def _machine(folder: Path) -> Iterator[Finding]:
    yield Finding(
        "ok", "cores", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    )
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    yield Finding("ok" if free > 10 else "note", "disk", f"{free:.0f} GB free in {folder}")
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none (not needed to ingest)"
    yield Finding("ok", "gpu", gpu)
    yield Finding("ok", "precision auto", quick_precision())
