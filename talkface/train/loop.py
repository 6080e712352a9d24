"""The one training loop. Every task runs through it, on one process or many (``accelerate launch``).

All that is random depends on the seed, the step and the process alone, and the place in the data is a few integers: a
run that was killed goes on as if it had not been.
"""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from tqdm import tqdm

from talkface.datasets.loading.loader import Batch, Loader, State
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError, RunError
from talkface.store import Folder
from talkface.train import checkpoint
from talkface.train.base import ONE, Step, TaskConfig, Training, task_class
from talkface.train.checkpoint import AVERAGED, WEIGHTS, About
from talkface.train.data import endless, held_loader, require_columns, to_device, training_loader
from talkface.train.ema import Average
from talkface.train.full_state import optimizer_of, set_optimizer, set_weights, weights_of
from talkface.train.log import Log, Waiting
from talkface.train.optim import Part, file_of, only, parts_of
from talkface.train.preflight import probe, require_compiler
from talkface.train.provenance import commit
from talkface.train.recompute import recompute
from talkface.train.start import Source, begin, freeze, frozen_networks, hashes, open_source, require_same
from talkface.weights import Models

TRAIN, EVALUATE, PROBE = 0, 1, 2
"""Streams of random numbers."""


@dataclass(frozen=True)
class Result:
    """How a run ended: ``loss`` of the last step, the ``best`` checkpoint, and the share of the time spent waiting for
    batches."""

    step: int
    loss: float
    best: dict[str, Any] | None
    steps_a_second: float
    data_wait: float

    def __str__(self) -> str:
        best = (
            f"; best on what is held out: step {self.best['step']}, loss {self.best['loss']:.4f}" if self.best else ""
        )
        speed = f"{self.steps_a_second:.2f} steps/s, {self.data_wait:.1%} of the time waiting for data"
        return f"{self.step} steps, loss {self.loss:.4f}{best}; {speed}"


def train(
    name: str,
    config: TaskConfig,
    dataset: Dataset,
    held: Dataset | None,
    out: str | Path,
    *,
    resume: bool = False,
    workers: int = 0,
    cpu: bool = False,
    models: Models | None = None,
    say: Callable[[str], None] = print,
) -> Result:
    """Train a task until ``config.training.steps``; ``out`` is the run's folder (see `checkpoint`).

    ``models`` has the files of the registry that weights may begin from.

    Raises ConfigError before the first step for what cannot be; RunError when the loss or the gradient is NaN or Inf,
    or the disk full.
    """
    accelerator = _accelerator(config.training, cpu)
    with Folder(out).lock() if accelerator.is_main_process else nullcontext():
        say = say if accelerator.is_main_process else lambda text: None
        run = Run(name, config, dataset, held, Path(out), accelerator, resume=resume, models=models, say=say)
        result = run.run(workers)
        say(f"{result}\nrun: {out}")
        return result


class Run:
    """One training run, from its first step or from a checkpoint to its last step."""

    def __init__(
        self, name: str, config: TaskConfig, dataset: Dataset, held: Dataset | None, out: Path,
        accelerator: Accelerator, *, resume: bool, say: Callable[[str], None], models: Models | None = None,
    ) -> None:  # fmt: skip
        """Check what there is, build the network, try one batch, and take up the last checkpoint if there is one."""
        require_columns(dataset, config, name)
        self.name, self.config, self.settings = name, config, config.training
        self.out, self.accelerator, self.say = out, accelerator, say
        self.device, self.is_main, self.commit = accelerator.device, accelerator.is_main_process, commit()
        self.data = {"url": dataset.url, "hash": checkpoint.dataset_hash(dataset, config.needs)}
        path = checkpoint.earlier(out, resume)
        about = None if path is None else About.read(path)
        if path is not None and about is not None:
            checkpoint.refuse_mismatch(about, name, config, self.data, path)
        self.loader = training_loader(dataset, config)
        self.held = None if held is None else held_loader(held, config)
        made = task_class(name)
        self.task = made(config, about.facts if about else made.learn(config, dataset))
        say(f"{name}: {len(dataset)} clips, {len(self.loader.plan)} windows; held out: {len(held or ())} clips")
        sources = self.sources(about, models or Models())
        self.networks = frozen_networks(self.task, self.device)
        net, self.parts = self.build_and_probe(sources)
        self.shares_backward = len(self.parts) == 1  # DDP averages the gradients of one backward pass over all weights
        self.model = self.prepare(net)
        self.average = Average(self.model.parameters(), self.settings.ema) if self.settings.ema else None
        self.step = self.seen = 0
        self.place: State | None = None
        if path is not None and about is not None:
            self.restore(path, about)
            say(f"resumed from {path}{checkpoint.other_code(about)}")
        elif self.begun.sources:
            say(str(self.begun))

    def sources(self, about: About | None, models: Models) -> list[Source]:
        """The weights to begin from, or those that the run to go on with began from."""
        if about is not None:
            return checkpoint.sources_of(about, models)
        opener = partial(checkpoint.run_source, models=models)
        return [open_source(name, models, opener) for name in self.settings.start_from]

    def build_and_probe(self, sources: list[Source]) -> tuple[torch.nn.Module, list[Part]]:
        """The network as it begins, by phases; a batch has gone through it, and what that costs is said."""
        torch.manual_seed(self.settings.seed)  # of the first weights
        net = self.task.build()
        freeze(net, self.settings.trainable)
        self.begun = begin(self.task, net, sources)
        self.frozen = hashes(net, self.begun, self.networks)
        net = net.to(self.device).train()
        if self.settings.checkpointing:
            recompute(self.task, net)
        parts = parts_of(self.task, net, self.settings)
        batch, cast = to_device(next(iter(self.loader)), self.device), self.accelerator.autocast
        cost = probe(self.task, net, batch, self.rng(PROBE), parts, ema=self.settings.ema > 0, autocast=cast)
        self.say(str(cost))
        if self.settings.compile:
            require_compiler(self.device)
            net.compile()
        return net, parts

    def prepare(self, net: torch.nn.Module) -> torch.nn.Module:
        """The network and its optimizers as accelerate spreads them over processes."""
        if not self.shares_backward:
            for part in self.parts:
                part.optimizer = self.accelerator.prepare(part.optimizer)
            return net
        model, self.parts[0].optimizer = self.accelerator.prepare(net, self.parts[0].optimizer)
        return model

    def run(self, workers: int) -> Result:
        """The loop."""
        settings, first = self.settings, self.step
        log = Log(self.out, self.config, first) if self.is_main else None
        bar = tqdm(total=settings.steps, initial=first, unit="step", disable=None if self.is_main else True)
        batches = Waiting(endless(self.loader, workers, self.place))
        begun, logs = time.perf_counter(), {"loss": math.nan}
        while self.step < settings.steps:
            logs = self.update(batches)
            bar.update()
            bar.set_postfix(loss=f"{logs['loss']:.4f}", refresh=False)
            if log and self.due(settings.log_every):
                spent = time.perf_counter() - begun
                speed = {"steps_a_second": (self.step - first) / spent, "data_wait": batches.seconds / spent}
                log.write(self.step, logs | {"seen": self.seen}, speed)
            held = self.judge(self.held, log) if self.held is not None and self.due(settings.evaluate_every) else {}
            if self.due(settings.save_every) or self.is_best(held):
                self.save(held)
        bar.close()
        spent = max(time.perf_counter() - begun, 1e-9)
        best = checkpoint.best_of(self.out)
        return Result(self.step, logs["loss"], best, (self.step - first) / spent, batches.seconds / spent)

    def judge(self, held: Loader, log: Log | None) -> dict[str, float]:
        """Log numbers and a picture of what is held out; gives the numbers that are known."""
        found, picture = self.evaluate(held)
        known = {k: v for k, v in found.items() if math.isfinite(v)}
        if "loss" not in known:
            self.say(f"step {self.step}: nothing in the held-out clips can be judged; no checkpoint is the best by it")
        if log:
            log.write(self.step, {f"held_{k}": v for k, v in known.items()}, {})
            log.draw(self.step, picture)
        return known

    def due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.settings.steps

    def update(self, batches: Waiting[tuple[Batch, State]]) -> dict[str, float]:
        """One step: every phase that is due, over the same batches; gives its numbers for the log."""
        if not self.shares_backward:
            self.share_buffers()
        taken = [next(batches) for _ in range(self.settings.accumulate)]
        self.place = taken[-1][1]
        logs: dict[str, float] = {}
        for part in self.parts:
            if part.due(self.step):
                with only(part, self.parts):
                    found = self.phase(part, [batch for batch, _ in taken])
                # The first phase's numbers keep their names: its loss is the run's.
                own = {"loss", "gradient", "learning_rate"} if part is not self.parts[0] else set()
                logs |= {f"{part.phase.name}_{k}" if k in own else k: v for k, v in found.items()}
        self.seen += self.settings.accumulate * self.settings.batch_size * self.loader.ranks
        if self.average is not None:
            self.average.update(self.step)
        self.step += 1
        return logs

    def phase(self, part: Part, batches: list[Batch]) -> dict[str, float]:
        """Gradients of a phase's loss over some batches, and one step of its optimizer."""
        logs, count = dict[str, float](), len(batches)
        for micro, batch in enumerate(batches):
            rng = self.rng(TRAIN, self.step, micro, self.accelerator.process_index)
            torch.manual_seed(rng.initial_seed())  # for dropout, which takes no generator
            with nullcontext() if micro == count - 1 else self.accelerator.no_sync(self.model):
                with self.accelerator.autocast():
                    found = self.task.step(self.model, to_device(batch, self.device), rng, part.phase.name)
                for key, value in self.numbers(found, part, batch["key"]).items():
                    logs[key] = logs.get(key, 0.0) + value / count
                self.accelerator.backward(found.loss / count)
        return logs | self.optimizer_step(part, [key for batch in batches for key in batch["key"]])

    def numbers(self, found: Step, part: Part, keys: list[str]) -> dict[str, float]:
        """What a forward pass has to log. Raises RunError if its loss is NaN or Inf."""
        loss = self.mean_over_ranks(found.loss, part, "loss", keys)
        return {key: float(torch.as_tensor(value).detach()) for key, value in found.logs.items()} | {"loss": loss}

    def optimizer_step(self, part: Part, keys: list[str]) -> dict[str, float]:
        """Change a phase's weights by the gradient of these clips."""
        if not self.shares_backward:
            self.average_gradients(part)
        parameters = list(self.model.parameters()) if self.shares_backward else part.parameters
        norm = self.accelerator.clip_grad_norm_(parameters, part.settings.clip_norm or math.inf)
        gradient = self.mean_over_ranks(torch.tensor(float(norm), device=self.device), part, "gradient", keys)
        rate = part.set_rate(self.step)
        part.optimizer.step()
        part.optimizer.zero_grad(set_to_none=True)
        return {"gradient": gradient, "learning_rate": rate}

    def average_gradients(self, part: Part) -> None:
        """The mean of all processes' gradients, as DDP has it; a parameter without one anywhere keeps none."""
        if self.accelerator.num_processes == 1:
            return
        there = torch.tensor([p.grad is not None for p in part.parameters], device=self.device)
        anywhere = self.accelerator.reduce(there.int(), "sum").tolist()
        for parameter in (p for p, count in zip(part.parameters, anywhere, strict=True) if count):
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = self.accelerator.reduce(gradient, "mean")

    def share_buffers(self) -> None:
        """The first process's buffers (batch normalisation's statistics) for all, as DDP has it."""
        if self.accelerator.num_processes > 1:
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, 0)

    def mean_over_ranks(self, value: torch.Tensor, part: Part, what: str, keys: list[str]) -> float:
        """The mean of all processes. Raises RunError in every one of them if it is NaN or Inf anywhere."""
        values = self.accelerator.gather(value.detach().float().reshape(1))
        if bool(torch.isfinite(values).all()):
            return float(values.mean())
        kept, of = checkpoint.names(self.out), "" if part.phase is ONE[0] else f" of phase {part.phase.name}"
        bad = gather_object([] if torch.isfinite(value) else keys)
        raise RunError(
            f"{what}{of} is NaN or Inf at step {self.step}; the batch: {', '.join(bad)}. "
            + (f"The last good checkpoint is {kept[-1]}. " if kept else "No checkpoint was saved before. ")
            + "Try a lower learning rate, or look at these clips."
        )

    def evaluate(self, loader: Loader) -> tuple[dict[str, float], np.ndarray]:
        """Numbers and a picture from held-out batches, by the averaged weights; random numbers as each time before."""
        self.model.eval()
        rng = self.rng(EVALUATE, self.accelerator.process_index)
        some = (to_device(b, self.device) for b in islice(loader, self.settings.evaluate_batches))
        average = nullcontext() if self.average is None else self.average.applied()
        with average, torch.no_grad(), self.accelerator.autocast():
            found = self.task.evaluate(self.model, some, rng)
            picture = self.task.picture(self.model, to_device(next(iter(loader)), self.device), rng)
        self.model.train()
        # A process whose part knew nothing has NaN, and no say.
        values = self.accelerator.gather(torch.tensor([list(found.values())], device=self.device)).nanmean(0)
        return dict(zip(found, values.tolist(), strict=True)), picture

    def is_best(self, held: dict[str, float]) -> bool:
        """Whether a held-out loss is the smallest so far; the first process, which writes the run, decides for all."""
        if "loss" not in held:
            return False
        best = checkpoint.best_of(self.out) if self.is_main else None
        return bool(broadcast_object_list([best is None or held["loss"] < best["loss"]])[0])

    def save(self, held: dict[str, float]) -> None:
        """Write a checkpoint with the held-out numbers of this step, if there are any."""
        tensors = {WEIGHTS: self.weights()}
        if self.average is not None:
            with self.average.applied():
                tensors[AVERAGED] = self.weights()
        groups = {}
        for part in self.parts:
            name = file_of(part.phase)
            tensors[name], groups[name] = optimizer_of(self.model, unwrapped(part.optimizer))
        if self.is_main:
            about = About(
                task=self.name, task_version=self.task.version, config=self.config.model_dump(mode="json"),
                facts=self.task.facts, data=self.data, step=self.step, seen=self.seen, loader=dict(self.place or {}),
                groups=groups, held=held, start=[s.record() for s in self.begun.sources], frozen=self.frozen, files={},
                commit=self.commit,
            )  # fmt: skip
            checkpoint.write(self.out, about, tensors)
            checkpoint.prune(self.out, self.settings.keep)
        self.accelerator.wait_for_everyone()

    def weights(self) -> dict[str, torch.Tensor]:
        """What a checkpoint holds of the network: all but what is frozen and came from elsewhere."""
        return {name: value for name, value in weights_of(self.model).items() if name not in self.begun.left_out}

    def restore(self, path: Path, about: About) -> None:
        """Take up a checkpoint: weights, their average, the optimizers, and the place in the data."""
        require_same(about.frozen, self.frozen, str(path))
        whole = {name: checkpoint.tensors(path, name, about) for name in about.files}
        if self.average is not None:
            with self.average.applied():
                set_weights(self.model, whole[AVERAGED], self.begun.left_out)
        set_weights(self.model, whole[WEIGHTS], self.begun.left_out)
        for part in self.parts:
            name = file_of(part.phase)
            set_optimizer(self.model, unwrapped(part.optimizer), whole[name], about.groups[name])
        self.step, self.seen, self.place = about.step, about.seen, about.loader

    def rng(self, *stream: int) -> torch.Generator:
        """The generator of a stream of random numbers."""
        seed = np.random.SeedSequence([self.settings.seed, *stream]).generate_state(1, np.uint64)[0]
        return torch.Generator(self.device).manual_seed(int(seed) >> 1)


def unwrapped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """PyTorch's optimizer in accelerate's."""
    return getattr(optimizer, "optimizer", optimizer)


def _accelerator(settings: Training, cpu: bool) -> Accelerator:
    """Raises ConfigError where this process has settled on another device or precision: there is one for all of it."""
    try:
        return Accelerator(cpu=cpu, mixed_precision=_precision(settings, cpu))
    except ValueError as error:
        raise ConfigError(
            "This process trained with another precision or on another device before. Train in a process of its own."
        ) from error


def _precision(settings: Training, cpu: bool) -> str:
    """Accelerate's word: the weights stay fp32, the forward pass is cast."""
    on_gpu = torch.cuda.is_available() and not cpu
    wanted = settings.precision if settings.precision != "auto" else "bf16" if on_gpu else "fp32"
    return "bf16" if wanted == "bf16" else "no"
