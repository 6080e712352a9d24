"""``talkface.annotate``: columns and scores added to a finished dataset."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from talkface.api.weights import store_of
from talkface.datasets.sidecars.job import Made, Progress, annotate_dataset
from talkface.licences import Use
from talkface.store import Folder
from talkface.threads import core_count
from talkface.weights import Models


def annotate(
    data: str | Path,
    annotators: Sequence[str] = (),
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    licence: Use = "any",
    workers: int | None = None,
    scheduler: str | None = None,
    models: str | Path | Models | None = None,
    offline: bool = False,
    observe: Callable[[Progress], None] = lambda _: None,
    finished: Callable[[Made], None] = lambda _: None,
) -> list[Made]:
    """Add the columns and scores of annotators beside a dataset, whose shards stay as they are.

    No ``annotators``: those that were added before are brought up to date. ``settings`` are the annotators' own, by
    name. ``finished`` gets each sidecar as soon as it is whole. Raises as `annotate_dataset`.
    """
    folder, count = Folder(str(data)), core_count() if workers is None else workers
    with folder.lock():
        folder.sweep()
        return annotate_dataset(
            str(data), annotators, settings, store_of(models, offline), use=licence, workers=count,
            scheduler=scheduler, observe=observe, finished=finished,
        )  # fmt: skip
