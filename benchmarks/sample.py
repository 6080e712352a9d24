"""Sampling speed in times real time, and memory: the paper's network and a tiny one, on this machine's CPU or GPU.

The weights are random: speed does not depend on them.
"""

import argparse
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context


def add_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--sample-presets", default="tiny,paper", help="networks, by preset of emodiff")
    group.add_argument("--sample-seconds", type=float, default=1.28, help="length of the sound")
    group.add_argument("--sample-threads", type=int, default=1, help="threads of PyTorch")
    group.add_argument("--sample-variants", type=int, default=1, help="motions drawn at once")


def main(options: argparse.Namespace) -> None:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"{options.sample_seconds} s of sound, {options.sample_variants} at once, guidance 0.15, {device}\n")
    print("| network | sampler | steps | x real time | peak memory |\n|---|---|---|---|---|")
    # A process for each row: what a process has held at most never falls.
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        for preset in options.sample_presets.split(","):
            for sampler, steps in (("ddpm", 500), ("ddim", 50), ("dpm++", 10)):
                speed, peak = pool.submit(measure, preset, sampler, steps, options, device).result()
                print(f"| {preset} | {sampler} | {steps} | {speed:.2f} | {peak / 1e9:.2f} GB |", flush=True)


def measure(preset: str, sampler: str, steps: int, options: argparse.Namespace, device: str) -> tuple[float, float]:
    """Times real time and the most bytes held (of this process, or of the GPU)."""
    import numpy as np
    import torch

    from talkface.annotate.mel import Annotator as Mel
    from talkface.datasets.format.schema import spec_dict
    from talkface.train.base import configure
    from talkface.train.diffusion import schedule_facts
    from talkface.train.protocols import Speech, Style
    from talkface.train.tasks.emodiff import EmoDiffSampling, Task

    torch.set_num_threads(options.sample_threads)
    config = configure("emodiff", preset, None, ["sound=mel"])
    names = config.names()
    state = {"names": names, "mean": [0.0] * len(names), "std": [1.0] * len(names), "valid": [True] * len(names)}
    sound = {"column": spec_dict(Mel.columns[0]), "mean": [0.0] * 80, "std": [1.0] * 80, "offsets": list(range(-3, 4)),
             "annotator": "mel", "settings": {}}  # fmt: skip
    task = Task(config, {"state": state, "sound": sound, "noise": schedule_facts(config.noise), "fps": 25.0})
    net = task.build().eval().to(device)
    seconds = options.sample_seconds
    rows = np.zeros((round((seconds + 4) * 80), 80), np.float16)
    speech = Speech(np.zeros(round(seconds * 16000), np.int16), {"mel": rows})
    head = np.tile(np.eye(1, 7, dtype=np.float32), (8, 1))
    style, draw = Style(np.zeros((8, 52), np.float32), head), torch.Generator(device).manual_seed(0)
    started = time.perf_counter()
    task.sample(
        net, speech, style, draw, EmoDiffSampling(sampler=sampler, steps=steps), variants=options.sample_variants
    )
    spent = time.perf_counter() - started
    on_gpu = device == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return options.sample_variants * seconds / spent, peak
