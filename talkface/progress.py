"""How far something is: a bar on a terminal, and a line now and then in a log file."""

import sys
from typing import Any

from tqdm import tqdm

LINE_SECONDS = 30.0
"""How often a log gets a line."""

_FORMAT = (
    "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {unit}, elapsed {elapsed}, remaining {remaining}{postfix}"
)
_LINE = "{desc}: {percentage:3.0f}%, {n_fmt}/{total_fmt} {unit}, elapsed {elapsed}, remaining {remaining}{postfix}"


class _Lines(tqdm):  # type: ignore[misc]
    """A bar for files: every state is a line of its own."""

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        self.fp.write(f"{msg or self}\n")
        self.fp.flush()
        return True

    def close(self) -> None:
        self.leave = True  # nothing to wipe off
        self.disable = True


def bar(what: str, total: float, unit: str, *, done: float = 0.0, **more: Any) -> tqdm:
    """A bar on standard error that ``advance`` moves; use it in a ``with`` block, at whose end it goes away.

    ``done`` of ``total`` was there before, and says nothing of how long the rest takes.
    """
    common = {"desc": what, "total": round(total, 1), "unit": unit, "initial": done, "file": sys.stderr, **more}
    if sys.stderr.isatty():
        return tqdm(bar_format=_FORMAT, leave=False, dynamic_ncols=True, **common)
    return _Lines(bar_format=_LINE, mininterval=LINE_SECONDS, maxinterval=LINE_SECONDS, miniters=0, **common)


def advance(shown: tqdm, to: float, more: str = "") -> None:
    """Move the bar to ``to``, with ``more`` behind it."""
    shown.set_postfix_str(more, refresh=False)
    shown.n = round(to, 1)
    shown.update(0)
