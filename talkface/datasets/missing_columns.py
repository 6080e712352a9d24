"""What can be added to a finished dataset, and the command that adds it: the one place that tells ``toolkit annotate``
from an ingest."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from talkface.annotate.base import annotator_class, in_order, producer
from talkface.errors import ConfigError

if TYPE_CHECKING:
    from talkface.datasets.reader import Dataset


def to_make(dataset: "Dataset", names: Sequence[str]) -> list[str]:
    """``names`` and those whose columns they need and the dataset lacks, each after what it needs.

    Raises ConfigError for an annotator that cannot run on a finished dataset, or whose columns the base has already.
    """
    own = {s.name for s in dataset.info.specs()} | {s["name"] for s in dataset.info.scores}
    ordered: list[str] = []
    for name in in_order(names):
        cls = annotator_class(name)
        made = [*(c.name for c in cls.columns if c.stored), *(s.name for s in cls.scores)]
        held = [n for n in made if n in own]
        if name not in names and set(made) <= own | {s.name for s in dataset.specs()}:
            continue
        if held:
            raise ConfigError(f"{dataset.url} has {', '.join(held)} already: ingest again to have {name} made anew.")
        _refuse_unfit(dataset, name, [n for n in names if name in in_order([n])])
        ordered.append(name)
    return ordered


def how_to_add(dataset: "Dataset", names: Sequence[str]) -> str:
    """The command that adds these annotators: ``toolkit annotate`` where it takes them all, else ``toolkit ingest``."""
    try:
        to_make(dataset, names)
    except ConfigError:
        return _ingest(dataset, names)
    return f"toolkit annotate {dataset.url} --with {','.join(names)}"


def how_to_have(dataset: "Dataset", column: str) -> str:
    """The sentence on how a dataset comes to a column; nothing for one that no annotator makes."""
    try:
        name = producer(column)
    except ConfigError:
        return ""
    if any(c.name == column and not c.stored for c in annotator_class(name).columns):
        return f"{name} makes it of every frame while ingesting, and no dataset keeps it."
    return f"Run: {how_to_add(dataset, [name])}"


def _ingest(dataset: "Dataset", names: Sequence[str]) -> str:
    blind = not dataset.info.has_video and any("mp4" in annotator_class(n).reads for n in in_order(names))
    return f"toolkit ingest ... --with ...,{','.join(names)}{' --video' if blind else ''}"


def _refuse_unfit(dataset: "Dataset", name: str, wanted: Sequence[str]) -> None:
    """``wanted`` are those of the annotators asked for that need ``name``, or are it."""
    cls, who = annotator_class(name), name if name in wanted else f"{wanted[0]} needs {name}, which"
    if hasattr(cls, "frame"):
        raise ConfigError(
            f"{who} looks at whole frames of the source, of which a dataset keeps the crop alone. "
            f"Run: {_ingest(dataset, wanted)}"
        )
    if "mp4" in cls.reads and not dataset.info.has_video:
        raise ConfigError(
            f"{who} looks at the clips' pictures, and {dataset.url} was made without (--no-video). "
            f"Run: {_ingest(dataset, wanted)}"
        )
