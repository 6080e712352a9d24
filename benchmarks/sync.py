"""What the sync annotator reaches on real clips, by models that have not seen the people in them.

Ingests the clips if no dataset is given, then runs scripts/train_sync.py without writing: offsets, sound moved by -10
to 10 frames, own against foreign sound.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Options of this benchmark."""
    parser.add_argument("--sync-dataset", nargs="+", help="datasets with lm and voice, instead of ingesting the clips")


def main(options: argparse.Namespace) -> None:
    """Print the table."""
    if not (options.media / "MANIFEST.tsv").exists():
        print(f"no real clips in {options.media}: nothing to measure")
        return
    with tempfile.TemporaryDirectory() as folder:
        datasets = options.sync_dataset or [_ingested(options, Path(folder) / "dataset")]
        manifest = options.media / "MANIFEST.tsv"
        _run(["scripts/train_sync.py", "--dataset", *datasets, "--manifest", str(manifest)])


def _ingested(options: argparse.Namespace, out: Path) -> str:
    clips = [str(options.media / name) for name in ("talking", "emotional")]
    how = ["--with", "landmarks,voice", "--no-video", "--models", str(options.models), "--offline"]
    # plain: folders of several makers have no layout in common
    _run(["-m", "talkface.cli", "ingest", *clips, "--out", str(out), "--layout", "plain", *how], codes=(0, 3))
    return str(out)


def _run(arguments: Sequence[str], codes: Sequence[int] = (0,)) -> None:
    code = subprocess.run([sys.executable, *arguments], check=False).returncode
    if code not in codes:
        sys.exit(code)
