"""The real clips as a dataset, for benchmarks that are not given one, and models trained on it."""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def real_clips(options: argparse.Namespace, out: Path, folders: Sequence[str], *how: str) -> str | None:
    """Url of a dataset that `toolkit ingest` makes of some folders of ``--media``; None where there are none."""
    clips = [options.media / name for name in folders]
    if not all(path.is_dir() for path in clips):
        print(f"skipped: no real clips in {options.media}; name a folder with --media, or a dataset")
        return None
    command = [sys.executable, "-m", "talkface.cli", "ingest", *map(str, clips), "--out", str(out)]
    code = subprocess.run([*command, "--models", str(options.models), *how], check=False).returncode
    if code not in (0, 3):
        sys.exit(code)
    return str(out)


def trained(task: str, preset: str, changes: Sequence[str], data: Any, held: Any, out: Path) -> Path:
    """A run of a task on one core, what it says on stderr; a run that is there already is taken as it is."""
    from talkface.train.base import configure
    from talkface.train.loop import train

    if not out.exists():
        train(task, configure(task, preset, None, changes), data, held, out, cpu=True, say=_aside)
    return out


def _aside(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
