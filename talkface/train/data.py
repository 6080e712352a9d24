"""Which clips train and which are held out, and their batches."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pyarrow.compute as pc
import torch
from torch.utils.data import DataLoader

from talkface.annotate.base import producer
from talkface.datasets.format.schema import SPLITS
from talkface.datasets.loading.loader import Batch, Loader, State
from talkface.datasets.missing_columns import how_to_add
from talkface.datasets.open import open_dataset
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError
from talkface.train.base import TaskConfig

Item = TypeVar("Item")


def split(url: str, hold_out: str = "val") -> tuple[Dataset, Dataset | None]:
    """The clips to train on, and those held out (None: nothing is).

    ``hold_out`` is a split (training is then on the split ``train``), speakers or sources separated by commas
    (training is then on all others, whatever their split), or ``none``. Raises ConfigError for a name that no clip has.
    """
    dataset = open_dataset(url)
    if hold_out == "none":
        return dataset, None
    if hold_out in SPLITS:
        train, held = (dataset.where(pc.field("split") == name) for name in ("train", hold_out))
    else:
        chosen = _clips_of(dataset, [name.strip() for name in hold_out.split(",") if name.strip()])
        train, held = dataset.where(~chosen), dataset.where(chosen)
    if len(train) == 0:
        raise ConfigError(f"{url}: --hold-out {hold_out} leaves no clip to train on.")
    return train, held if len(held) else None


def _clips_of(dataset: Dataset, names: list[str]) -> pc.Expression:
    columns = {c: set(dataset.clips.column(c).to_pylist()) - {None} for c in ("speaker", "source")}
    unknown = [n for n in names if not any(n in found for found in columns.values())]
    if unknown or not names:
        known = sorted(columns["speaker"] or columns["source"])
        raise ConfigError(
            f"{dataset.url}: no speaker or source {', '.join(unknown)!r}; there are: {', '.join(known[:12])}"
            f"{' ...' if len(known) > 12 else ''}"
        )
    # A clip without a speaker has a null there, which neither `in` nor its opposite would hold for.
    speaker = pc.field("speaker")
    return (speaker.is_valid() & speaker.isin(names)) | pc.field("source").isin(names)


def require_columns(dataset: Dataset, config: TaskConfig, task: str) -> None:
    """Raise ConfigError with the command that adds the first column that is missing."""
    there = {spec.name for spec in dataset.specs()}
    missing = [name for name in config.needs if name not in there]
    if missing:
        add = how_to_add(dataset.held, list(dict.fromkeys(map(producer, missing))))
        raise ConfigError(f"{dataset.url} has no column {', '.join(missing)}, which {task} needs. Add it: {add}")


def training_loader(dataset: Dataset, config: TaskConfig) -> Loader:
    """Shuffled windows; a dataset smaller than one batch is repeated until it fills one."""
    settings = config.training
    ranks = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    enough = len(config.windows.plan(dataset.clips)) >= ranks * settings.batch_size
    return Loader(
        dataset,
        config.windows,
        batch_size=settings.batch_size,
        seed=settings.seed,
        companion=config.companion,
        companion_columns=config.companion_columns,
        tail="drop" if enough else "repeat",
    )


def held_loader(dataset: Dataset, config: TaskConfig) -> Loader:
    """Held-out windows, the same batches each time."""
    settings = config.training
    return Loader(
        dataset,
        config.windows,
        batch_size=settings.batch_size,
        seed=settings.seed,
        companion=config.companion,
        companion_columns=config.companion_columns,
        tail="repeat",
    )


def endless(loader: Loader, workers: int, state: State | None = None) -> Iterator[tuple[Batch, State]]:
    """Batches epoch after epoch, each with the loader's state after it; ``state`` is where to go on.

    Worker processes stay alive from epoch to epoch; a thread takes their batches in while the last one is worked on.
    """
    return _ahead(_endless(loader, workers, state)) if workers else _endless(loader, workers, state)


def _ahead(source: Iterator[Item], count: int = 2) -> Iterator[Item]:
    """The same items, ``count`` of them taken in ahead by a thread."""
    pool = ThreadPoolExecutor(1, "batches")
    try:
        coming = deque(pool.submit(next, source) for _ in range(count))
        while True:
            item = coming.popleft().result()
            coming.append(pool.submit(next, source))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)


def _endless(loader: Loader, workers: int, state: State | None) -> Iterator[tuple[Batch, State]]:
    taken = 0
    if state is not None:
        loader.load_state_dict(state)
        taken = state["samples"] // (loader.ranks * loader.batch_size)
    source = (
        # A generator of its own: else each epoch would take a number from the one that dropout draws from.
        DataLoader(loader, batch_size=None, num_workers=workers, multiprocessing_context="spawn",
                   prefetch_factor=4, persistent_workers=True, generator=torch.Generator())
        if workers
        else loader
    )  # fmt: skip
    while True:
        for batch in source:
            taken += 1
            yield batch, loader.state_dict(batches=taken)
        taken = 0
        loader.set_epoch(loader.epoch + 1)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """A batch with its tensors, those of its companion too, on a device."""
    moved: Batch = {}
    for name, value in batch.items():
        if isinstance(value, torch.Tensor):
            moved[name] = value.to(device, non_blocking=True)
        else:
            moved[name] = to_device(value, device) if isinstance(value, dict) else value
    return moved
