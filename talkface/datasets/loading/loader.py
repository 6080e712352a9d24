"""Batches of windows for training: shuffled, the same whatever the number of workers, and resumable at any sample.

The order of an epoch is a list of windows that depends on the data, the seed and the epoch alone. Batch b of rank r is
a slice of it, and worker w of W makes batches w, w + W, ...: so nobody has to agree with anybody while training.
"""

import copy
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int64
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from talkface.datasets.loading.clip_cache import open_cache
from talkface.datasets.loading.clip_data import ClipData, Cuttable
from talkface.datasets.loading.companions import Companions
from talkface.datasets.loading.shared_batch import Block, Field, arrays_of
from talkface.datasets.loading.shuffle import by_weight, mixed, rising, runs_of
from talkface.datasets.loading.windows import Windows
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError, DatasetError

Batch = dict[str, Any]
State = dict[str, Any]

LOG = logging.getLogger(__name__)

BUFFER = 4096
BUFFER_OF_PICTURES = 256
"""Windows: the videos of all clips in it lie in memory, each with an open decoder."""


class Loader(IterableDataset[Batch]):
    """Iterating gives the batches of one epoch for one rank; the same object works inside ``DataLoader(loader,
    batch_size=None, num_workers=N)`` and torchdata's ``StatefulDataLoader``, forked or spawned.

    ``shuffle`` deals runs of ``run`` neighbouring clips like cards, then mixes the windows within every ``buffer`` of
    them (4096; 256 with pictures): reading stays close to sequential. With pictures the windows of one clip within a
    buffer come as they follow each other in the clip, so that its video is decoded only once. Call ``set_epoch``
    before each epoch, as with torch's DistributedSampler.

    Every rank gets ``len(loader)`` batches of ``batch_size`` windows. ``tail="drop"`` leaves out the last windows of
    the epoch's order that fill no batch on every rank (fewer than ranks x batch_size, others each epoch);
    ``"repeat"`` fills up with windows from the order's start. ``weights`` (a number a window of ``windows.plan``, see
    ``Windows.weights``) draws as many windows with those odds instead of each one once; low-variance draws: each comes
    floor or ceil of its share times.

    A window that cannot be read raises DatasetError naming shard and member; with ``on_error="skip"`` it is logged,
    listed in the batch's ``errors``, counted in ``skipped``, and the next readable one in the order takes its place.

    A batch is a dict: the windows' arrays as tensors with a first axis of ``batch_size``; ``key`` and ``labels``
    (columns of the clips table) as lists; ``repeated`` bool, true where a window only fills the tail or stands in for
    a broken one; ``epoch``, ``index`` and ``errors``. With ``companion`` (label names) there are ``companion``, a
    random window of another clip with the same labels, and ``has_companion``, false where there is no other clip and
    the window is of the same one. ``companion_columns`` are all that is read of companions, where they are given.

    ``cache`` keeps decoded clips for later windows, epochs, workers, ranks and runs in one file (see
    `clipcache.ClipCache`): True in the user's cache folder (or the one that ``TALKFACE_CACHE`` names), a folder, or
    False. All such files in a folder hold at most ``cache_gigabytes``. Windows are the same to the bit either way;
    those with pictures are never cached.

    Memory: the order (8 bytes a window), the clips of one batch, and ``cache_megabytes`` of clips that are not in the
    cache.
    """

    def __init__(
        self,
        dataset: Dataset,
        windows: Windows,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int | None = None,
        ranks: int | None = None,
        shuffle: bool = True,
        buffer: int | None = None,
        run: int = 8,
        tail: Literal["drop", "repeat"] = "drop",
        weights: Float[np.ndarray, " windows"] | None = None,
        companion: Sequence[str] = (),
        companion_columns: Sequence[str] | None = None,
        labels: Sequence[str] = ("speaker", "emotion", "intensity"),
        on_error: Literal["raise", "skip"] = "raise",
        cache_megabytes: float = 256.0,
        cache: str | Path | bool = True,
        cache_gigabytes: float = 10.0,
    ) -> None:
        """``rank`` and ``ranks`` are torch.distributed's unless given. Raises ConfigError for what cannot be."""
        self.dataset, self.windows, self.batch_size, self.seed = dataset, windows, batch_size, seed
        self.rank, self.ranks = _place_among_ranks(rank, ranks)
        self.shuffle, self.run, self.tail, self.on_error = shuffle, run, tail, on_error
        self.buffer = buffer if buffer is not None else BUFFER if windows.pictures is None else BUFFER_OF_PICTURES
        self.labels, self.by, self.cache_megabytes = tuple(labels), tuple(companion), cache_megabytes
        self.members, self.specs = windows.members(dataset), windows.specs(dataset)
        self.others = windows if companion_columns is None else _only(windows, companion_columns)
        self.plan = windows.plan(dataset.clips)
        self.weights = weights
        self.skipped = 0
        self._check()
        self._companions = Companions(dataset.clips, self.by) if self.by else None
        self._draws = bool(self.by or windows.mirror or windows.pictures or windows.reference)
        self._idle = np.random.default_rng(0)  # making a generator takes as long as cutting a column
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._next = 0
        self._begun = False
        self._resume: State | None = None
        self._clips: OrderedDict[int, ClipData | DatasetError] = OrderedDict()
        self._workers: _Workers | None = None
        dataset.locate(self.members)  # read once here, not once a worker
        self.cache = open_cache(dataset, windows, cache, cache_gigabytes)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_clips": OrderedDict(), "_workers": None}

    def _check(self) -> None:
        if self.tail not in ("drop", "repeat") or self.on_error not in ("raise", "skip"):
            raise ConfigError(f"tail is drop or repeat, on_error raise or skip; got {self.tail!r}, {self.on_error!r}")
        if min(self.batch_size, self.buffer, self.run) < 1:
            raise ConfigError("batch_size, buffer and run must be at least 1")
        missing = [name for name in self.labels if name not in self.dataset.clips.column_names]
        if missing:
            raise ConfigError(f"no label {missing[0]!r}; there are: {', '.join(self.dataset.clips.column_names)}")
        if self.weights is not None and (len(self.weights) != len(self.plan) or not (self.weights >= 0).all()):
            raise ConfigError(f"weights: expected {len(self.plan)} numbers from 0 up, one a window")
        if len(self) == 0:
            raise ConfigError(
                f"{self.dataset.url}: {len(self.plan)} windows do not fill one batch of {self.batch_size} on each of "
                f"{self.ranks} ranks. Use a smaller batch, more data, pad='short' or tail='repeat'."
            )

    def __len__(self) -> int:
        """Batches an epoch: the same on every rank."""
        whole, rest = divmod(len(self.plan), self.ranks * self.batch_size)
        return whole + (self.tail == "repeat" and rest > 0)

    @property
    def epoch(self) -> int:
        return int(self._epoch[0])

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration gives; reaches workers that are already running, too."""
        if epoch != self.epoch:
            self._epoch[0] = epoch
            self._next, self._begun, self._resume = 0, False, None

    def order(self, epoch: int) -> Int64[np.ndarray, " windows"]:
        """The windows (indices into ``plan``) of an epoch, all ranks together, in the order of training."""
        draw = np.random.default_rng((self.seed, epoch))
        windows = np.arange(len(self.plan)) if self.weights is None else by_weight(self.weights, draw)
        if not self.shuffle:
            return windows
        windows = mixed(windows, self._run_of_clip[self.plan.clip[windows]], self.buffer, draw)
        return windows if self.windows.pictures is None else rising(windows, self.plan, self.buffer)

    @cached_property
    def _run_of_clip(self) -> Int64[np.ndarray, " clips"]:
        """Clips that lie next to each other in a shard share a run."""
        shards = self.dataset.clips.column("shard").combine_chunks().dictionary_encode().indices.to_numpy()
        return runs_of(shards.astype(np.int64), self.run)

    @cached_property
    def _label_values(self) -> Mapping[str, tuple[Int64[np.ndarray, " clips"], list[Any]]]:
        """Each label's values, None last, and for each clip which of them is its."""
        found = {}
        for name in self.labels:
            coded = self.dataset.clips.column(name).combine_chunks().dictionary_encode()
            codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
            found[name] = codes, [*coded.dictionary.to_pylist(), None]
        return found

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        yield from self._from(self._first_batch(number, workers), workers)

    def _from(self, first: int, step: int) -> Iterator[Batch]:
        """Every ``step``-th batch of the epoch."""
        if get_worker_info():
            cv2.setNumThreads(0)  # its thread pool does not survive a fork
        self._next, self._begun, self._resume = first, True, None
        epoch = self.epoch
        order = self.order(epoch)
        self._clips.clear()
        try:
            for index in range(first, len(self), step):
                batch = self._batch(order, epoch, index)
                self._next = index + step
                yield batch
        finally:
            self._clips.clear()  # they hold decoders

    def batches(self, workers: int = 0, *, start: str = "spawn", prefetch: int = 2) -> Iterator[Batch]:
        """The epoch's batches, made by ``workers`` processes; ``state_dict`` and ``skipped`` keep step with them.

        ``start`` is ``spawn``, ``fork`` or ``forkserver``. The processes stay for the next epoch, until `close` or
        until nobody holds the loader.
        """
        if workers == 0:
            yield from self
            return
        if self._resume is not None and self._resume["worker"] is not None:
            raise ConfigError("the state is of one worker alone. Save loader.state_dict() in the main process.")
        first = self._first_batch(0, workers)
        if self._workers is None or not self._workers.are(workers, start, prefetch):
            self.close()
            self._workers = _Workers(self, workers, start, prefetch)
        made = self._workers.epoch(first)
        self._next, self._begun, self._resume = first, True, None
        try:
            for batch in made:
                self._next = batch["index"] + 1
                self.skipped += len(batch["errors"])
                yield batch
        except Exception:
            self.close()  # nobody knows what became of them
            raise

    def close(self) -> None:
        """End the worker processes of `batches`; the next call starts others."""
        self._workers = None

    def state_dict(self, batches: int | None = None) -> State:
        """Where training stands: after the batch that was taken last, or after ``batches`` of this epoch.

        Give the number where a plain ``DataLoader`` with workers iterates: only its consumer knows how many it took. In
        a worker the state is that worker's own. It is the same on every rank.
        """
        worker = get_worker_info()
        taken = self._next if batches is None else batches
        if worker and not self._begun:
            taken = self._first_batch(worker.id, worker.num_workers)
        return {
            "epoch": self.epoch,
            "samples": taken * self.ranks * self.batch_size,
            "worker": [worker.id, worker.num_workers] if worker else None,
            "settings": self._settings,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the state: with any number of workers, and of ranks if their batches line up.

        Raises ConfigError if it was made with other data or settings.
        """
        other = [k for k, v in self._settings.items() if state["settings"].get(k) != v]
        if other:
            hint = ". Are other clips selected now (selection.json)?" if "data" in other else ""
            raise ConfigError(f"the state was made with another {', '.join(other)}: it cannot be gone on with{hint}")
        together = self.ranks * self.batch_size
        if state["samples"] % together:
            raise ConfigError(
                f"the state stands after {state['samples']} windows, between two steps of {self.ranks} ranks x "
                f"{self.batch_size}. Use the ranks and the batch size it was made with."
            )
        self._epoch[0] = state["epoch"]
        self._next = state["samples"] // together
        self._begun, self._resume = False, dict(state)

    def _first_batch(self, number: int, workers: int) -> int:
        """Index of the first batch that worker ``number`` makes."""
        if self._resume is None:
            return number
        owner = self._resume["worker"]
        if owner is None:
            return self._next + number
        if owner != [number, workers]:
            raise ConfigError(
                f"the state is of worker {owner[0]} of {owner[1]} alone. Keep {owner[1]} workers, or save "
                "loader.state_dict(batches=...) in the main process."
            )
        return self._next

    @cached_property
    def _settings(self) -> dict[str, Any]:
        """All that decides the order and the content of the samples."""
        weights = None if self.weights is None else hashlib.sha256(self.weights.tobytes()).hexdigest()[:16]
        keys = hashlib.sha256("\n".join(self.dataset.keys()).encode()).hexdigest()[:16]
        return {
            "data": keys, "windows": repr(self.windows), "seed": self.seed, "shuffle": self.shuffle,
            "buffer": self.buffer, "run": self.run, "weights": weights, "companion": list(self.by),
            "others": repr(self.others) if self.by else None,
        }  # fmt: skip

    @cached_property
    def _fields(self) -> dict[str, Field | Mapping[str, Field]]:
        """The arrays of a batch, a window each."""
        flag = Field(np.dtype(bool), ())
        found: dict[str, Field | Mapping[str, Field]] = {**self.windows.fields(self.specs), "repeated": flag}
        return found | ({"companion": self.others.fields(self.specs), "has_companion": flag} if self.by else {})

    def _batch(self, order: Int64[np.ndarray, " windows"], epoch: int, index: int) -> Batch:
        first = (index * self.ranks + self.rank) * self.batch_size
        drawn = [self._draw(order, epoch, p) for p in range(first, first + self.batch_size)]
        self._fetch([row for d in drawn for row in d.rows])
        batch = Block.empty(self.batch_size, self._fields, shared=get_worker_info() is not None)
        arrays = arrays_of(batch)
        errors: list[str] = []
        for place, what in enumerate(drawn):
            try:
                self._cut(what, arrays, place)
            except DatasetError as error:
                if self.on_error == "raise":
                    raise
                LOG.warning("skipped: %s", error)
                errors.append(str(error))
                drawn[place] = self._stand_in(order, epoch, first + place, arrays, place)
        self._trim()
        self.windows.finish(arrays, self.specs)
        if self.by:
            self.others.finish(arrays["companion"], self.specs)
            batch["companion"]["key"] = [self._key(d.companion_row) for d in drawn]
        if get_worker_info() is None:
            self.skipped += len(errors)
        batch["key"] = [self._key(d.row) for d in drawn]
        batch.update({n: [values[codes[d.row]] for d in drawn] for n, (codes, values) in self._label_values.items()})
        batch.update(epoch=epoch, index=index, errors=errors)
        return batch

    def _key(self, row: int) -> str:
        key: str = self._keys[row].as_py()
        return key

    @cached_property
    def _keys(self) -> pa.Array:
        return self.dataset.clips.column("key").combine_chunks()

    def _draw(self, order: Int64[np.ndarray, " windows"], epoch: int, position: int) -> "_Drawn":
        """What stands at a position of the order; all that is random about it depends on the position alone."""
        window = int(order[position % len(order)])
        row, first = int(self.plan.clip[window]), int(self.plan.first[window])
        draw = np.random.default_rng((self.seed, epoch, position)) if self._draws else self._idle
        other = None if self._companions is None else self._companions.draw(row, draw)
        return _Drawn(row, first, other, draw, position >= len(order))

    def _fetch(self, rows: Sequence[int]) -> None:
        """Have the clips in ``rows`` in the cache or in memory, or the reason why not."""
        wanted = [row for row in dict.fromkeys(rows) if not self._is_cached(row)]
        missing = [row for row in wanted if row not in self._clips]
        for row, data in zip(missing, self.dataset.try_read(missing, self.members), strict=True):
            self._take(row, data)
        for row in wanted:
            if row in self._clips:
                self._clips.move_to_end(row)

    def _take(self, row: int, data: Mapping[str, bytes] | DatasetError) -> None:
        """Keep a clip that was read, or the error in its place."""
        try:
            if isinstance(data, DatasetError):
                raise data
            clip = ClipData(self.dataset, row, data, self.specs)
            if self.cache is None or not self.cache.put(row, clip):
                self._clips[row] = clip
        except DatasetError as error:
            self._clips[row] = error

    def _is_cached(self, row: int) -> bool:
        return self.cache is not None and self.cache.has(row)

    def _trim(self) -> None:
        """Forget the clips that were not used for longest."""
        held = sum(c.bytes for c in self._clips.values() if isinstance(c, ClipData))
        while held > self.cache_megabytes * 1e6:
            _, gone = self._clips.popitem(last=False)
            held -= gone.bytes if isinstance(gone, ClipData) else 0

    def _clip(self, row: int) -> Cuttable:
        if self.cache is not None and self.cache.has(row):
            return self.cache.get(row)
        clip = self._clips[row]
        if isinstance(clip, DatasetError):
            raise clip
        return clip

    def _cut(self, drawn: "_Drawn", arrays: Mapping[str, Any], place: int) -> None:
        """Put a window, and its companion, into the batch."""
        clip = self._clip(drawn.row)
        self.windows.cut_into(_place_in(arrays, place), clip, drawn.first, drawn.draw)
        arrays["repeated"][place] = drawn.repeated
        if self._companions is not None:
            other = self._clip(drawn.companion_row)
            first = self._companion_first(other, drawn.draw)
            self.others.cut_into(_place_in(arrays["companion"], place), other, first, drawn.draw)
            arrays["has_companion"][place] = drawn.companion is not None

    def _companion_first(self, clip: Cuttable, draw: np.random.Generator) -> int:
        last = max(self.windows.frames_in(clip.duration_ns) - self.windows.length, 0)
        return int(draw.integers(last, endpoint=True))

    def _stand_in(
        self, order: Int64[np.ndarray, " windows"], epoch: int, position: int, arrays: Mapping[str, Any], place: int
    ) -> "_Drawn":
        """Put the next window in the order that can be read into the batch."""
        for step in range(1, len(order)):
            drawn = self._draw(order, epoch, (position + step) % len(order))
            self._fetch(drawn.rows)
            try:
                self._cut(drawn, arrays, place)
            except DatasetError:
                self._trim()
                continue
            arrays["repeated"][place] = True
            return drawn
        raise DatasetError(f"{self.dataset.url}: none of its {len(order)} windows can be read.")


class _Workers:
    """Processes that make a loader's batches and stay from epoch to epoch."""

    def __init__(self, loader: Loader, workers: int, start: str, prefetch: int) -> None:
        self._settings = workers, start, prefetch
        self._part = _Part(loader)
        self._made = DataLoader(
            self._part,
            batch_size=None,
            num_workers=workers,
            multiprocessing_context=start,
            prefetch_factor=prefetch,
            persistent_workers=True,
            collate_fn=_as_it_is,
        )

    def are(self, *settings: Any) -> bool:
        return settings == self._settings

    def epoch(self, first: int) -> Iterator[Batch]:
        """The batches of the loader's epoch from ``first`` on."""
        self._part.first[0] = first
        return iter(self._made)


class _Part(IterableDataset[Batch]):
    """What one of the processes makes; where an epoch starts reaches it through shared memory."""

    def __init__(self, loader: Loader) -> None:
        self.loader = copy.copy(loader)
        self.first = torch.zeros(1, dtype=torch.int64).share_memory_()

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        assert worker is not None
        return self.loader._from(int(self.first[0]) + worker.id, worker.num_workers)


def _as_it_is(batch: Any) -> Any:
    return batch


class _Drawn:
    """A window to make: its clip, its first frame, its companion's clip, and the generator for the rest."""

    def __init__(self, row: int, first: int, companion: int | None, draw: np.random.Generator, repeated: bool) -> None:
        self.row, self.first, self.companion, self.draw, self.repeated = row, first, companion, draw, repeated

    @property
    def companion_row(self) -> int:
        return self.row if self.companion is None else self.companion

    @property
    def rows(self) -> list[int]:
        return [self.row] if self.companion is None else [self.row, self.companion]


def _only(windows: Windows, columns: Sequence[str]) -> Windows:
    """The same windows of some of their columns and nothing else. Raises ConfigError for a column they do not have."""
    if missing := set(columns) - set(windows.columns):
        raise ConfigError(f"companion_columns: {', '.join(sorted(missing))} are no columns of the windows")
    return replace(windows, columns=tuple(columns), sound=False, pictures=None, reference=0)


def _place_in(arrays: Mapping[str, Any], place: int) -> dict[str, np.ndarray]:
    """One window's part of a batch's arrays."""
    return {name: values[place, ...] for name, values in arrays.items() if isinstance(values, np.ndarray)}


def _place_among_ranks(rank: int | None, ranks: int | None) -> tuple[int, int]:
    if (rank is None) != (ranks is None):
        raise ConfigError("give both rank and ranks, or none")
    if rank is None or ranks is None:
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if distributed else (0, 1)
    if not 0 <= rank < ranks:
        raise ConfigError(f"rank {rank} of {ranks}: expected 0 to {ranks - 1}")
    return rank, ranks
