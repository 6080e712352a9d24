"""Steps a second of the training loop, and its share of time waiting for data, against a plain hand-written loop over
batches that lie in memory already. Both train the same network on the same task, turn by turn, one thread each.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from statistics import median


def add_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--train-data", help="dataset to train on (default: synthetic faces, made for this)")
    group.add_argument("--train-steps", type=int, default=60, help="steps a round")
    group.add_argument("--train-set", action="append", default=[], help="a.b=value over the preset tiny")


def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = options.train_data or synthetic(Path(folder))
        plain: list[float] = []
        found: dict[str, list[dict[str, float]]] = {"the same batches in memory": [], "streaming, one worker": []}
        for number in range(options.rounds):
            plain.append(hand_written(data, options))
            for how, lines in found.items():
                out = Path(folder) / f"{how}{number}"
                lines.append(the_loop(data, out, options, in_memory="memory" in how))
    print("| loop | steps/s | against the plain loop | waiting for data |\n|---|---|---|---|")
    print(f"| plain, batches in memory | {median(plain):.2f} | 1 | - |")
    for how, lines in found.items():
        speeds = [line["steps_a_second"] for line in lines]
        ratio = median(b / a for a, b in zip(plain, speeds, strict=True))
        waited = median(line["data_wait"] for line in lines)
        print(f"| `toolkit train`, {how} | {median(speeds):.2f} | {ratio:.2f} | {waited:.1%} |")


def synthetic(folder: Path) -> str:
    """A small dataset of talking heads."""
    toolkit = [sys.executable, "-m", "talkface.cli"]
    subprocess.run([*toolkit, "synth", str(folder / "videos")], check=True, capture_output=True)
    out = ["--out", str(folder / "data"), "--offline", "--no-video"]
    subprocess.run([*toolkit, "ingest", str(folder / "videos"), *out], check=False, capture_output=True)
    return str(folder / "data")


def settings(options: argparse.Namespace):
    from talkface.train.base import configure

    rare = ("training.evaluate_every=1000000", "training.save_every=1000000")
    steps = f"training.steps={options.train_steps}"
    return configure("emodiff", "tiny", None, (steps, "style=clip", *rare, *options.train_set))


def hand_written(data: str, options: argparse.Namespace) -> float:
    """Steps a second of what one would write in a notebook: no checks, no logs, no checkpoints."""
    import torch

    from talkface.train.data import split, training_loader
    from talkface.train.tasks.emodiff import Task

    torch.set_num_threads(1)
    config = settings(options)
    clips, _ = split(data, "none")
    loader = training_loader(clips, config)
    batches = list(islice(iter(loader), 8))
    task = Task(config, Task.learn(config, clips))
    torch.manual_seed(0)
    net = task.build().train()
    average = [p.detach().clone() for p in net.parameters()]
    optimizer = torch.optim.AdamW(net.parameters(), lr=config.training.learning_rate, weight_decay=0.0)
    draw = torch.Generator().manual_seed(0)
    started = time.perf_counter()
    for step in range(options.train_steps):
        loss = task.step(net, batches[step % len(batches)], draw, "all").loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(average, list(net.parameters()), 0.01)
    return options.train_steps / (time.perf_counter() - started)


def the_loop(data: str, out: Path, options: argparse.Namespace, *, in_memory: bool) -> dict[str, float]:
    """Steps a second and share of waiting of ``toolkit train``'s loop, once its worker has started.

    ``in_memory`` gives it eight batches over and over, as the plain loop has them.
    """
    import torch

    from talkface.train import loop
    from talkface.train.data import endless, split

    torch.set_num_threads(1)
    clips, _ = split(data, "none")
    loop.endless = (lambda *made: cycle(list(islice(endless(*made), 8)))) if in_memory else endless
    workers = 0 if in_memory else 1
    loop.train("emodiff", settings(options), clips, None, out, workers=workers, cpu=True, say=lambda text: None)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    begun, ended = lines[0], lines[-1]
    first, last = (line["step"] / line["steps_a_second"] for line in (begun, ended))
    waited = ended["data_wait"] * last - begun["data_wait"] * first
    return {
        "steps_a_second": (ended["step"] - begun["step"]) / (last - first),
        "data_wait": waited / (last - first),
    }
