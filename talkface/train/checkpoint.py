"""What a run's folder holds, and what a checkpoint records and refuses.

    RUN/
      config.toml                 the task's configuration
      log.jsonl                   a line a logged step
      events/  pictures/          TensorBoard; what the model did at each evaluation
      checkpoints/00000500/
        checkpoint.json           task, configuration, facts, data, code, step, place in the data, held-out numbers
        model.safetensors         the weights; averaged.safetensors: their running average. Frozen ones that came from
                                  elsewhere are not in them: checkpoint.json has their sources and hash
        optimizer.safetensors     the optimizer's state; optimizer.<phase>.safetensors where a task has several phases

A checkpoint's folder takes its name when all of it is on the disk; until then it does not exist.
"""

import errno
import hashlib
import json
import math
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from talkface import __version__
from talkface.config import parse
from talkface.datasets.reader import Dataset
from talkface.download import PART
from talkface.errors import ConfigError, RunError, WeightsError
from talkface.store import Folder, sync_folder
from talkface.train.base import Facts, Task, TaskConfig, task_class
from talkface.train.provenance import commit
from talkface.train.start import (
    Source,
    Tensors,
    begin,
    fill,
    freeze,
    frozen_networks,
    hashes,
    open_source,
    require_same,
)
from talkface.weights import Models

FORMAT: Final = 3
FOLDER: Final = "checkpoints"
WEIGHTS, AVERAGED = "model", "averaged"
LABELS: Final = ("source", "speaker", "emotion", "intensity")
"""What of the clips table decides how windows are used and paired."""
LEAST_FREE: Final = 1 << 18
"""Bytes that are free before anything is written: TensorBoard's thread has no other way to say that it failed."""
_NAME = re.compile(r"\d{8,}")


@dataclass(frozen=True, kw_only=True)
class About:
    """Everything a checkpoint knows beside its tensors; plain JSON.

    ``data`` is the dataset's address and hash (`dataset_hash`), ``loader`` the place in it, ``groups`` the settings of
    each optimizer by its file, ``seen`` how many windows were trained on, ``files`` the SHA-256 of each file of
    tensors, ``held`` the held-out numbers of its step where it was evaluated, ``start`` the sources that the weights
    began from (`start.Source.record`), ``frozen`` hashes of what is frozen and not in the files, ``commit`` talkface's
    where it ran from a checkout.
    """

    task: str
    task_version: int
    config: dict[str, Any]
    facts: Facts
    data: dict[str, str]
    step: int
    seen: int
    loader: dict[str, Any]
    groups: dict[str, list[dict[str, Any]]]
    files: dict[str, str]
    held: dict[str, float] = field(default_factory=dict)
    start: list[dict[str, str]] = field(default_factory=list)
    frozen: dict[str, str] = field(default_factory=dict)
    talkface: str = __version__
    commit: str | None = None
    torch: str = torch.__version__
    format: int = FORMAT

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises WeightsError for a file that is missing, damaged or newer."""
        try:
            raw = json.loads((path / "checkpoint.json").read_text(encoding="utf-8"))
            if raw["format"] > FORMAT:
                raise WeightsError(f"{path}: a checkpoint of a newer talkface ({raw['talkface']}). Update talkface.")
            if isinstance(raw["groups"], list):  # before format 3 there was one optimizer
                raw["groups"] = {"optimizer": raw["groups"]}
            return cls(**raw)
        except OSError as error:
            raise WeightsError(f"{path}: no checkpoint ({error.strerror}).") from error
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"{path}: checkpoint.json is damaged ({error}). Use another checkpoint.") from error


def write(run: Path, about: About, tensors: Mapping[str, Tensors]) -> Path:
    """Write ``checkpoints/<step>``, whole or not at all. Raises RunError when the disk is full."""
    final = run / FOLDER / f"{about.step:08}"
    part = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}{PART}")
    try:
        with disk_space(run):
            part.mkdir(parents=True)
            files = {}
            for name, content in tensors.items():
                file = part / f"{name}.safetensors"
                save_file({k: v.contiguous() for k, v in content.items()}, file)
                files[name] = _flush(file)
            (part / "checkpoint.json").write_text(json.dumps(asdict(about) | {"files": files}, indent=1))
            _flush(part / "checkpoint.json")
            sync_folder(part)
            shutil.rmtree(final, ignore_errors=True)
            part.replace(final)
            sync_folder(final.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return final


@contextmanager
def disk_space(run: Path) -> Iterator[None]:
    """What a run writes. Raises RunError when the disk is full, or nearly so at the start."""
    try:
        if (free := Folder(run).free_bytes()) is not None and free < LEAST_FREE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield
    except (OSError, SafetensorError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "os error 28" in str(error):
            raise RunError(
                f"{run}: the disk is full. Free some space and run the same command with --resume; "
                "the checkpoints that are there are kept."
            ) from error
        raise


def _flush(path: Path) -> str:
    """Put a file on the disk; returns its SHA-256."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def names(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    folder = run / FOLDER
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(p for p in found if _NAME.fullmatch(p.name))


def earlier(run: Path, resume: bool) -> Path | None:
    """The checkpoint to go on from. Raises ConfigError where there is one and nobody asked for it."""
    found = names(run)
    if found and not resume:
        raise ConfigError(f"{run}: holds a run already. Go on with --resume, or choose another --out.")
    return found[-1] if found else None


def sweep(run: Path) -> None:
    """Remove what a crash left half-written."""
    for part in (run / FOLDER).glob(f".*{PART}"):
        shutil.rmtree(part, ignore_errors=True)


def prune(run: Path, keep: int) -> None:
    """Remove all but the last ``keep`` checkpoints and the best."""
    best = best_of(run)
    for path in names(run)[:-keep]:
        if best is None or path.name != f"{best['step']:08}":
            shutil.rmtree(path)


def best_of(run: Path) -> dict[str, Any] | None:
    """``step`` of the checkpoint with the smallest held-out loss, and its held-out numbers, ``loss`` first."""
    found = [{"step": about.step, **about.held} for about in map(About.read, names(run)) if "loss" in about.held]
    path = run / "best.json"  # of runs before format 3, whose checkpoints have no such numbers
    marked = [json.loads(path.read_text())] if path.exists() else []
    kept = [m for m in marked if (run / FOLDER / f"{m['step']:08}").is_dir() and math.isfinite(m["loss"])]
    return min(kept + found, key=lambda one: one["loss"], default=None)


def find(run: str | Path, which: str = "best") -> Path:
    """A run's ``best`` checkpoint (the last where there is no best), its ``last``, or the one of a step.

    ``run`` may also be the folder of one checkpoint. Raises WeightsError where there is none.
    """
    folder = Path(run)
    if (folder / "checkpoint.json").exists():
        return folder
    found = names(folder)
    if not found:
        raise WeightsError(f"{folder}: no checkpoint in it. Train first: toolkit train TASK --data DATASET --out {run}")
    best = best_of(folder)
    wanted = {"last": found[-1].name, "best": f"{best['step']:08}" if best else found[-1].name}.get(which, which)
    for path in found:
        if path.name == wanted or path.name == wanted.zfill(8):
            return path
    raise WeightsError(f"{folder}: no checkpoint {which}; there are: {', '.join(p.name for p in found)}")


def tensors(path: Path, name: str, about: About) -> dict[str, torch.Tensor]:
    """One file of a checkpoint. Raises WeightsError if it is not what was written."""
    file = path / f"{name}.safetensors"
    try:
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if digest != about.files[name]:
            raise WeightsError(f"{file}: damaged: its SHA-256 is not the recorded one. Use another checkpoint.")
        return load_file(file)
    except (OSError, SafetensorError, KeyError) as error:
        raise WeightsError(f"{file}: cannot be read ({error}). Use another checkpoint.") from error


@dataclass(frozen=True)
class Model:
    """A trained task: the network in evaluation mode, with its averaged weights where it has them.

    ``digest`` is the SHA-256 of the weights: what generated files name as their origin.
    """

    task: Task
    net: torch.nn.Module
    about: About
    digest: str


def load(
    run: str | Path, *, task: str | None = None, which: str = "best", device: str | torch.device = "cpu",
    models: Models | None = None,
) -> Model:  # fmt: skip
    """A run's model, ready to sample from. Raises WeightsError for what is missing, damaged or of another task.

    Frozen weights that are not in it are found again where training had them from, in a run or among ``models``.
    """
    path = find(run, which)
    about = About.read(path)
    if task is not None and about.task != task:
        raise WeightsError(f"{run}: a run of {about.task}, where one of {task} is needed.")
    made = task_class(about.task)
    if made.version != about.task_version:
        raise WeightsError(
            f"{path}: made by version {about.task_version} of {about.task}, this talkface has version "
            f"{made.version}. Use talkface {about.talkface}, or train again."
        )
    config = config_of(about)
    found = made(config, about.facts)
    net = found.build()
    freeze(net, config.training.trainable)
    begun = begin(found, net, sources_of(about, models or Models()))
    name = AVERAGED if AVERAGED in about.files else WEIGHTS
    fill(net, tensors(path, name, about), str(path), begun.left_out)
    require_same(about.frozen, hashes(net, begun, frozen_networks(found, device)), str(path))
    return Model(found, net.to(device).eval(), about, about.files[name])


def sources_of(about: About, models: Models) -> list[Source]:
    """The sources that a run began from, found again. Raises WeightsError where one is gone or has changed."""
    opener = partial(run_source, models=models)
    return [open_source(_place(record, models), models, opener, record["sha256"]) for record in about.start]


def _place(record: Mapping[str, str], models: Models) -> str:
    """The name that was given, or the path that it had then, where only that is there."""
    known = record["name"] in models.registry or Path(record["name"]).exists()
    return record["name"] if known or not Path(record["path"]).is_dir() else record["path"]


def run_source(run: Path, sha256: str | None = None, *, models: Models) -> Source | None:
    """A run's network as weights to begin from: of its best checkpoint, or of the one with these weights.

    None for a folder that is no run. Raises WeightsError where no checkpoint has those weights.
    """
    if not (run / FOLDER).is_dir() and not (run / "checkpoint.json").is_file():
        return None
    path = find(run) if sha256 is None else _with_weights(run, sha256)
    model = load(path, models=models)
    return Source(str(run), path, model.digest, model.about.task, model.net.state_dict())


def _with_weights(run: Path, sha256: str) -> Path:
    for path in [run] if (run / "checkpoint.json").is_file() else names(run):
        files = About.read(path).files
        if files.get(AVERAGED, files.get(WEIGHTS)) == sha256:
            return path
    raise WeightsError(
        f"{run}: the checkpoint that training began from (SHA-256 {sha256[:16]}) is not there any more. Put it back."
    )


def config_of(about: About) -> TaskConfig:
    """The configuration that a checkpoint was trained with."""
    return parse(task_class(about.task).Config, about.config, where=f"checkpoint of {about.task}")


def refuse_mismatch(about: About, name: str, config: TaskConfig, data: Mapping[str, str], path: Path) -> None:
    """Raise ConfigError if training cannot go on from a checkpoint with this task, configuration and data."""
    if about.task != name:
        raise ConfigError(f"{path}: a checkpoint of {about.task}, not of {name}. Choose another --out.")
    if about.task_version != task_class(name).version:
        raise ConfigError(f"{path}: made by another version of {name}. Choose another --out, or an older talkface.")
    if about.talkface != __version__:
        raise ConfigError(
            f"{path}: made by talkface {about.talkface}, and this is {__version__}: it would not go on as it began. "
            "Choose another --out, or go on with the talkface that made it."
        )
    if about.format < FORMAT:
        raise ConfigError(
            f"{path}: an older talkface made it (format {about.format}), which counted its place in the data another "
            "way: it can be sampled from, and not resumed. Choose another --out, or go on with the older talkface."
        )
    before, now = (_flat(c.model_dump(mode="json")) for c in (config_of(about), config))
    free = {"training.log_every", "training.keep"}
    free |= {"training.steps"} if config.training.schedule == "constant" else set()
    for key in sorted((before.keys() | now.keys()) - free):
        if before.get(key) != now.get(key):
            raise ConfigError(
                f"{path}: {key} was {before.get(key)!r} and is {now.get(key)!r} now. Resume with the configuration it "
                "was made with, or choose another --out."
            )
    if about.data["hash"] != data["hash"]:
        raise ConfigError(
            f"{path}: was trained on other data ({about.data['url']}, {about.data['hash']}; now {data['url']}, "
            f"{data['hash']}). Choose another --out."
        )


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}": value}
    return flat


def other_code(about: About) -> str:
    """The end of a sentence where another commit of this version made a checkpoint; nothing where it did not."""
    made, now = ((at or "unknown")[:12] for at in (about.commit, commit()))
    return f", which commit {made} made; this is {now}: losses may differ" if made != now else ""


def dataset_hash(dataset: Dataset, columns: tuple[str, ...]) -> str:
    """16 hex digits of the clips in use with their labels, the shards' contents, what the columns are, and what is in
    the sidecars that they come from and made it."""
    shards = {row["shard"]: row["sha256"] for row in dataset.table("shards").to_pylist()}
    used = sorted(set(dataset.clips.column("shard").to_pylist()))
    specs = [asdict(dataset.spec(name)) for name in columns]
    labels = [dataset.clips.column(name).to_pylist() for name in LABELS]
    beside = [
        (s.info.name, s.info.fingerprint, s.info.shards)
        for s in dataset.usable
        if {spec.name for spec in s.info.specs()} & set(columns)
    ]
    text = json.dumps([dataset.keys(), [shards.get(s) for s in used], specs, labels, beside], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
