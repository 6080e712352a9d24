"""Plug-ins by name: the files of our own folders, entry points of installed packages, and ``package.module:Class``.

A package offers, say, a task by an entry point of the group ``talkface.tasks`` whose name is the task's; a class that
nobody installed is named by where it lies. Worker processes find both as the first one does, since names travel and
not classes.
"""

import importlib
import pkgutil
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from talkface.errors import ConfigError


@dataclass(frozen=True)
class Kind:
    """A kind of plug-in: ``word`` is what messages call it, ``group`` the one of its entry points.

    Our own are the attribute ``attribute`` of the modules of ``package``, but for those that begin with an underscore
    and the ``helpers``. ``also`` are words that are taken in the place of a name.
    """

    word: str
    group: str
    package: str
    attribute: str
    helpers: Collection[str] = ("base",)
    also: tuple[str, ...] = ()


ANNOTATORS = Kind("annotator", "talkface.annotators", "talkface.annotate", "Annotator")
TASKS = Kind("task", "talkface.tasks", "talkface.train.tasks", "Task")
METRICS = Kind("metric", "talkface.metrics", "talkface.metrics", "Metric", ("base", "clocks", "faces", "evaluate"))
LAYOUTS = Kind("layout", "talkface.layouts", "talkface.ingest.layouts", "Layout", also=("auto",))
COMMANDS = Kind("command", "talkface.commands", "talkface.commands", "command")


@cache
def own_names(kind: Kind) -> tuple[str, ...]:
    """Names of our own plug-ins of a kind, in the order of the alphabet."""
    path = importlib.import_module(kind.package).__path__
    found = (m.name for m in pkgutil.iter_modules(path))
    return tuple(sorted(n for n in found if not n.startswith("_") and n not in kind.helpers))


@cache
def offered(kind: Kind) -> dict[str, EntryPoint]:
    """Entry points of installed packages, by name; a name of our own is never theirs."""
    return {e.name: e for e in entry_points(group=kind.group) if e.name not in own_names(kind)}


def names(kind: Kind) -> tuple[str, ...]:
    """Names of all that are found without being told where."""
    return tuple(sorted((*own_names(kind), *offered(kind))))


def load(kind: Kind, name: str) -> Any:
    """A plug-in by its name or its place, ``package.module:Class``.

    Raises ConfigError for a name that nobody offers, and for a place where there is nothing.
    """
    if name in own_names(kind):
        return getattr(importlib.import_module(f"{kind.package}.{name}"), kind.attribute)
    if name in offered(kind):
        return _loaded(kind, offered(kind)[name])
    if ":" in name:
        return _loaded(kind, EntryPoint(name, name, kind.group))
    raise ConfigError(
        f"no {kind.word} named {name!r}; there are: {', '.join((*kind.also, *names(kind)))}. One of your own "
        f"is named by its place, package.module:Class, or offered as an entry point of {kind.group}."
    )


def _loaded(kind: Kind, place: EntryPoint) -> Any:
    try:
        return place.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{kind.word} {place.value}: {error}. Is its package installed, or on PYTHONPATH?") from error
