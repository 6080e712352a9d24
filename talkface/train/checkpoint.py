"""What a run's folder holds, and what a checkpoint records and refuses.

    RUN/
      config.toml                 the task's configuration
      log.jsonl                   a line a logged step
      events/  pictures/          TensorBoard; what the model did at each evaluation
      checkpoints/00000500/
        checkpoint.json           task, configuration, facts, data, code, step, place in the data, held-out numbers
        model.safetensors         the weights; averaged.safetensors: their running average
        optimizer.safetensors     the optimizer's state; optimizer.<phase>.safetensors where a task has several phases

A checkpoint's folder takes its name when all of it is on the disk; until then it does not exist.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
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

FORMAT: Final = 3
FOLDER: Final = "checkpoints"
WEIGHTS, AVERAGED = "model", "averaged"
LABELS: Final = ("source", "speaker", "emotion", "intensity")
"""What of the clips table decides how windows are used and paired."""
LEAST_FREE: Final = 1 << 18
"""Bytes that are free before anything is written: TensorBoard's thread has no other way to say that it failed."""
_NAME = re.compile(r"\d{8,}")

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class About:
    """Everything a checkpoint knows beside its tensors; plain JSON.

    ``data`` is the dataset's address and hash (`dataset_hash`), ``loader`` the place in it, ``groups`` the settings of
    each optimizer by its file, ``seen`` how many windows were trained on, ``files`` the SHA-256 of each file of
    tensors, ``held`` the held-out numbers of its step where it was evaluated, ``commit`` talkface's where it ran from a
    checkout.
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
    found = [about for about in map(About.read, names(run)) if "loss" in about.held]
    best = min(found, key=lambda about: about.held["loss"], default=None)
    if best is not None:
        return {"step": best.step, "loss": best.held["loss"], **best.held}
    path = run / "best.json"  # of runs before format 3
    marked: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return marked


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


def fill(model: torch.nn.Module, state: Tensors, where: str) -> None:
    """Load weights into a network, all of them and nothing else. Raises WeightsError naming the difference."""
    expected = model.state_dict()
    missing, surplus = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    other = [k for k in expected.keys() & state.keys() if expected[k].shape != state[k].shape]
    if missing or surplus or other:
        texts = (("missing", missing), ("not of this network", surplus), ("of another shape", sorted(other)))
        text = "; ".join(f"{what}: {', '.join(k[:3])} ({len(k)})" for what, k in texts if k)
        raise WeightsError(f"{where}: these weights belong to another network: {text}.")
    model.load_state_dict(dict(state), strict=True)


@dataclass(frozen=True)
class Model:
    """A trained task: the network in evaluation mode, with its averaged weights where it has them.

    ``digest`` is the SHA-256 of the weights: what generated files name as their origin.
    """

    task: Task
    net: torch.nn.Module
    about: About
    digest: str


def load(run: str | Path, *, task: str | None = None, which: str = "best", device: str | torch.device = "cpu") -> Model:
    """A run's model, ready to sample from. Raises WeightsError for what is missing, damaged or of another task."""
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
    found = made(config_of(about), about.facts)
    net = found.build()
    name = AVERAGED if AVERAGED in about.files else WEIGHTS
    fill(net, tensors(path, name, about), str(path))
    return Model(found, net.to(device).eval(), about, about.files[name])


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
    before, now = (_flat(c) for c in (about.config, config.model_dump(mode="json")))
    free = {"training.log_every", "training.keep"}
    free |= {"training.steps"} if config.training.schedule == "constant" else set()
    for key in sorted((before.keys() | now.keys()) - free):
        if before.get(key) != now.get(key):
            raise ConfigError(
                f"{path}: {key} was {before.get(key)!r} and is {now.get(key)!r} now. Resume with the configuration it "
                "was made with, or choose another --out."
            )
    if about.data["hash"] != data["hash"] and about.format < FORMAT:
        raise ConfigError(
            f"{path}: an older talkface made it and recorded less of its data: whether they are the same is not known. "
            "Choose another --out, or go on with the talkface that made it."
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
