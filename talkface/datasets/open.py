"""Open a dataset as its selection shows it."""

from collections.abc import Sequence

import pyarrow.compute as pc

from talkface.datasets.format import schema
from talkface.datasets.reader import Dataset
from talkface.datasets.selection import check_selection, read_selection
from talkface.errors import ConfigError
from talkface.store import TIMEOUT


def open_dataset(
    url: str,
    *,
    split: str | None = None,
    selection: bool = True,
    sidecars: Sequence[str] | None = None,
    timeout: float = TIMEOUT,
) -> Dataset:
    """The dataset at a path or an fsspec url, or one split of it: the clips that its ``selection.json`` shows.

    ``selection=False`` gives every clip. ``sidecars`` asks for some alone, as `Dataset` says; ``timeout`` is for how
    many seconds a server may be silent. Raises DatasetError if it is not finished, damaged, or newer than this code;
    ConfigError for a split that no dataset has, and for a selection that names what this one does not have.
    """
    if split is not None and split not in schema.SPLITS:
        raise ConfigError(f"split: expected one of {', '.join(schema.SPLITS)}, got {split!r}")
    dataset = Dataset(url, sidecars=sidecars, timeout=timeout)
    if selection:
        chosen = read_selection(dataset.folder)
        check_selection(dataset, chosen)
        dataset = dataset if (shown := chosen.expression()) is None else dataset.where(shown)
    return dataset if split is None else dataset.where(pc.field("split") == split)
