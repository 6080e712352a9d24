"""What the sync annotator reaches on real clips, by models that have not seen the people in them.

Ingests the clips if no dataset is given, then runs scripts/train_sync.py without writing: offsets, sound moved by -10
to 10 frames, own against foreign sound.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks._data import real_clips


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Options of this benchmark."""
    parser.add_argument("--sync-dataset", nargs="+", help="datasets with lm and voice, instead of ingesting the clips")


def main(options: argparse.Namespace) -> None:
    """Print the table."""
    manifest = options.media / "MANIFEST.tsv"
    if not manifest.exists():
        print(f"skipped: no {manifest}, which says who is in the clips")
        return
    with tempfile.TemporaryDirectory() as folder:
        # plain: folders of several makers have no layout in common
        how = ("--layout", "plain", "--with", "landmarks,voice", "--no-video", "--offline")
        made = None if options.sync_dataset else real_clips(options, Path(folder), ("talking", "emotional"), *how)
        if datasets := options.sync_dataset or ([made] if made else []):
            script = [
                "scripts/train_sync.py",
                "--dataset",
                *datasets,
                "--manifest",
                str(options.media / "MANIFEST.tsv"),
            ]
            if code := subprocess.run([sys.executable, *script], check=False).returncode:
                sys.exit(code)
