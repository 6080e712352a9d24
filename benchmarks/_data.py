"""The real clips as a dataset, for benchmarks that are not given one."""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


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
