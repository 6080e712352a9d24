"""Where weights begin: runs, folders in diffusers layout and files of the registry; what may differ; what is frozen.

A task that takes weights from elsewhere under names of its own has a method ``start(sources) -> Start``. Without it a
run's or a file's names must be the network's own, all of them.

Frozen parameters that came from a source are not written to checkpoints. A checkpoint records the sources and one hash
of these parameters; `begin` finds them again to resume and to sample.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from talkface.errors import ConfigError, WeightsError
from talkface.train.base import Task
from talkface.weights import Models

Tensors = Mapping[str, torch.Tensor]
SHOWN: Final = 8
"""Names that a message lists before it says how many more there are."""
DIFFUSERS: Final = ("diffusion_pytorch_model.safetensors", "model.safetensors", "diffusion_pytorch_model.bin")
"""Names of a part's weights in a folder in diffusers layout, the first that is there."""


@dataclass(frozen=True)
class Source:
    """Weights to begin from: ``name`` as it was given, ``path`` where it lies, ``sha256`` of its content.

    Of a run ``task`` is its task, and ``state`` its whole network, averaged and with what is frozen in it.
    """

    name: str
    path: Path
    sha256: str
    task: str | None = None
    state: Tensors | None = field(default=None, repr=False)

    def weights(self, part: str = "") -> dict[str, torch.Tensor]:
        """By name: a run's network, a file's content, or the subfolder ``part`` of a folder in diffusers layout.

        Raises WeightsError for a file that is missing, damaged, or holds anything but tensors.
        """
        if self.state is not None:
            return dict(self.state)
        return _read(self.path if self.path.is_file() else _file_in(self.path / part))

    def record(self) -> dict[str, str]:
        """What a checkpoint says of it."""
        return {"name": self.name, "path": str(self.path.absolute()), "sha256": self.sha256}


@dataclass(frozen=True)
class Start:
    """Weights by the network's names; which of its names they may lack, and which they may have beside, as patterns.

    ``*`` stands for anything: ``motion.*``. Patterns that match nothing are allowed.
    """

    weights: Tensors
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()


@dataclass(frozen=True)
class Begun:
    """What `begin` did: names that the weights lacked and had beside, and those that a checkpoint need not hold."""

    sources: tuple[Source, ...] = ()
    filled: int = 0
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    left_out: frozenset[str] = frozenset()

    def __str__(self) -> str:
        origins = ", ".join(f"{s.name} ({s.sha256[:16]})" for s in self.sources)
        return (
            f"begun from {origins}: {self.filled} tensors, of which {len(self.left_out)} are frozen; missing, as the "
            f"task says: {_listed(self.missing)}; unexpected, as it says: {_listed(self.unexpected)}"
        )


def open_source(
    name: str, models: Models, run: Callable[[Path, str | None], Source | None], sha256: str | None = None
) -> Source:
    """A run's folder, a folder in diffusers layout, or a name of the registry; ``run`` opens a run, or gives None.

    With ``sha256`` it has to be that content. Raises WeightsError where it is not, or is not to be found.
    """
    found = run(Path(name), sha256)
    if found is None:
        weight, path = models.choose([name])
        found = Source(name, path, weight.sha256)
    if sha256 is not None and found.sha256 != sha256:
        raise WeightsError(
            f"{name}: has changed since training began from it: SHA-256 {found.sha256[:16]}, recorded {sha256[:16]}. "
            "Put back what was there."
        )
    return found


def begin(task: Task, net: torch.nn.Module, sources: Sequence[Source]) -> Begun:
    """Fill a network from its sources. Raises WeightsError for any name that the task did not allow to differ."""
    if not sources:
        return Begun()
    start: Start = task.start(sources) if hasattr(task, "start") else as_it_is(sources)
    mine = net.state_dict()
    missing, unexpected = sorted(mine.keys() - start.weights.keys()), sorted(start.weights.keys() - mine.keys())
    given = {k: v for k, v in start.weights.items() if k in mine}
    differ(
        ", ".join(s.name for s in sources), _refused(missing, start.missing), _refused(unexpected, start.unexpected),
        [k for k, v in given.items() if v.shape != mine[k].shape],
    )  # fmt: skip
    net.load_state_dict(given, strict=False)
    frozen = {name for name, p in net.named_parameters() if not p.requires_grad}
    return Begun(tuple(sources), len(given), tuple(missing), tuple(unexpected), frozenset(frozen & given.keys()))


def as_it_is(sources: Sequence[Source]) -> Start:
    """The names are the network's; a later source goes over an earlier one."""
    return Start({name: value for source in sources for name, value in source.weights().items()})


def freeze(net: torch.nn.Module, trainable: Iterable[str]) -> None:
    """Of what a task trains, train what matches one of the patterns, or all where there is none.

    Raises ConfigError for a pattern that no trained parameter matches.
    """
    patterns = tuple(trainable)
    trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in trained):
            raise ConfigError(f"training.trainable: {pattern} matches none of {_listed(tuple(trained))}.")
    for name, parameter in trained.items() if patterns else ():
        parameter.requires_grad_(_matches(name, patterns))


def frozen_networks(task: Task, device: str | torch.device) -> dict[str, torch.nn.Module]:
    """The networks that a task uses and never trains (``Task.frozen()``), on a device, and frozen."""
    made: Mapping[str, torch.nn.Module] = getattr(task, "frozen", dict)()
    return {name: net.to(device).eval().requires_grad_(False) for name, net in made.items()}


def digest(state: Tensors) -> str:
    """SHA-256 of tensors with their names, types and shapes."""
    sha = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        sha.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        sha.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def hashes(net: torch.nn.Module, begun: Begun, networks: Mapping[str, torch.nn.Module]) -> dict[str, str]:
    """What a checkpoint records of all that is frozen and not in it."""
    left = {name: value for name, value in net.state_dict().items() if name in begun.left_out}
    own = {"model": digest(left)} if left else {}
    return own | {f"frozen.{name}": digest(other.state_dict()) for name, other in networks.items()}


def require_same(recorded: Mapping[str, str], now: Mapping[str, str], where: str) -> None:
    """Raise WeightsError if what is frozen is not what a checkpoint was trained with."""
    if other := sorted(k for k in recorded.keys() | now.keys() if recorded.get(k) != now.get(k)):
        raise WeightsError(
            f"{where}: the frozen weights of {', '.join(other)} are not those it was trained with (another SHA-256)."
        )


def fill(net: torch.nn.Module, state: Tensors, where: str, left_out: frozenset[str] = frozenset()) -> None:
    """Load weights into a network, all but ``left_out`` and nothing else. Raises WeightsError naming the difference."""
    mine = net.state_dict()
    expected = mine.keys() - left_out
    other = [k for k in expected & state.keys() if mine[k].shape != state[k].shape]
    differ(where, sorted(expected - state.keys()), sorted(state.keys() - expected), other)
    net.load_state_dict(dict(state), strict=False)


def differ(where: str, missing: Sequence[str], surplus: Sequence[str], other: Sequence[str]) -> None:
    """Raise WeightsError if there is any difference."""
    texts = (("missing", missing), ("not of this network", surplus), ("of another shape", sorted(other)))
    if text := "; ".join(f"{what}: {', '.join(k[:3])} ({len(k)})" for what, k in texts if k):
        raise WeightsError(f"{where}: these weights belong to another network: {text}.")


def _refused(names: Sequence[str], allowed: Sequence[str]) -> list[str]:
    return [name for name in names if not _matches(name, allowed)]


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _listed(names: Sequence[str]) -> str:
    more = f", ... ({len(names)})" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more or "none"


def _file_in(folder: Path) -> Path:
    for name in DIFFUSERS:
        if (folder / name).is_file():
            return folder / name
    raise WeightsError(f"{folder}: no weights in it; expected one of {', '.join(DIFFUSERS)}.")


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError) as error:
        raise WeightsError(f"{path}: cannot be read as weights ({str(error).splitlines()[0]}).") from error
    except Exception as error:  # whatever unpickling raises for a file that is none, or asks for more than tensors
        raise WeightsError(f"{path}: holds more than tensors, or is damaged ({type(error).__name__}).") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise WeightsError(f"{path}: expected tensors by name.")
    return state
