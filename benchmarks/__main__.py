"""``make bench``: what talkface reaches, side by side with what people use today. Prints ratios.

    python -m benchmarks [NAME ...] [--media DIR] [--models DIR] [--rounds N] [options of single benchmarks]

A benchmark is one file ``benchmarks/<name>.py`` with a function ``main(options)`` and, if it has options of its own,
``add_arguments(parser)``; no list to edit. Its imports at the top are light: all are loaded to read the command line.
Machines are noisy: what is compared runs in one call, one after the other.
"""

import argparse
import importlib
import os
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

import benchmarks

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


def found() -> dict[str, ModuleType]:
    """All benchmarks by name."""
    names = sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if not m.ispkg and m.name[0] != "_")
    return {name: importlib.import_module(f"benchmarks.{name}") for name in names}


def main() -> None:
    """Run the named benchmarks, or all."""
    there = found()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"which to run: {', '.join(there)}; all without a name")
    parser.add_argument("--media", type=Path, default=SHARED / "media", help="folder of real clips")
    parser.add_argument("--models", type=Path, default=SHARED / "models", help="folder of model files")
    parser.add_argument("--rounds", type=int, default=1, help="how often each side runs; medians are printed")
    for name, module in there.items():
        if hasattr(module, "add_arguments"):
            module.add_arguments(parser.add_argument_group(name))
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in there]:
        parser.error(f"no benchmark named {unknown[0]!r}; there are: {', '.join(there)}")
    for name in options.names or there:
        print(f"\n## {name}\n", flush=True)
        there[name].main(options)


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
