"""What can be added to a finished dataset, and the command that adds it: the one place that tells ``toolkit annotate``
from an ingest."""

from collections.abc import Sequence
from dataclasses import dataclass

from talkface.annotate.base import annotator_class, in_order, producer
from talkface.errors import ConfigError


@dataclass(frozen=True)
class Held:
    """What a dataset has: names of the columns and scores that its shards hold (``base``), those of its sidecars too
    (``columns``), and whether its clips have pictures."""

    url: str
    base: frozenset[str]
    columns: frozenset[str]
    has_video: bool


def to_make(held: Held, names: Sequence[str]) -> list[str]:
    """``names`` and those whose columns they need and the dataset lacks, each after what it needs.

    Raises ConfigError for an annotator that cannot run on a finished dataset, or whose columns the base has already.
    """
    ordered: list[str] = []
    for name in in_order(names):
        cls = annotator_class(name)
        made = [*(c.name for c in cls.columns if c.stored), *(s.name for s in cls.scores)]
        there = [n for n in made if n in held.base]
        if name not in names and set(made) <= held.base | held.columns:
            continue
        if there:
            raise ConfigError(f"{held.url} has {', '.join(there)} already: ingest again to have {name} made anew.")
        _refuse_unfit(held, name, [n for n in names if name in in_order([n])])
        ordered.append(name)
    return ordered


def how_to_add(held: Held, names: Sequence[str]) -> str:
    """The command that adds these annotators: ``toolkit annotate`` where it takes them all, else ``toolkit ingest``."""
    try:
        to_make(held, names)
    except ConfigError:
        return _ingest(held, names)
    return f"toolkit annotate {held.url} --with {','.join(names)}"


def how_to_have(held: Held, column: str) -> str:
    """The sentence on how a dataset comes to a column; nothing for one that no annotator makes."""
    try:
        name = producer(column)
    except ConfigError:
        return ""
    if any(c.name == column and not c.stored for c in annotator_class(name).columns):
        return f"{name} makes it of every frame while ingesting, and no dataset keeps it."
    return f"Run: {how_to_add(held, [name])}"


def _ingest(held: Held, names: Sequence[str]) -> str:
    blind = not held.has_video and any("mp4" in annotator_class(n).reads for n in in_order(names))
    return f"toolkit ingest ... --with ...,{','.join(names)}{' --video' if blind else ''}"


def _refuse_unfit(held: Held, name: str, wanted: Sequence[str]) -> None:
    """``wanted`` are those of the annotators asked for that need ``name``, or are it."""
    cls, who = annotator_class(name), name if name in wanted else f"{wanted[0]} needs {name}, which"
    if hasattr(cls, "frame"):
        raise ConfigError(
            f"{who} looks at whole frames of the source, of which a dataset keeps the crop alone. "
            f"Run: {_ingest(held, wanted)}"
        )
    if "mp4" in cls.reads and not held.has_video:
        raise ConfigError(
            f"{who} looks at the clips' pictures, and {held.url} was made without (--no-video). "
            f"Run: {_ingest(held, wanted)}"
        )
