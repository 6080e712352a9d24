"""Lip refinement on people who were held out: jawOpen against three baselines, and the sync expert's judgement.

python -m benchmarks lip --dataset DATASET [--hold-out NAME,NAME] [--lip-set a.b=c ...] [--expert-set a.b=c ...]
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

RATE = 25.0
CONTEXT = np.arange(-15, 16, 2)
"""Rows of mel (80 a second) around a frame that the ridge regression sees."""

SPAN_FRAMES = 50
SHIFTS = (-15, -12, -9, -6, -4, 4, 6, 9, 12, 15)
"""Frames by which sound is shifted to be wrong."""

LIP = ("sound=mel", "neutral=all", "training.steps=2000", "training.evaluate_every=250", "training.save_every=2000")
EXPERT = ("sound=mel", "training.steps=2000", "training.evaluate_every=250", "training.save_every=2000")


def add_arguments(parser: Any) -> None:
    """Options of this benchmark."""
    parser.add_argument("--hold-out", help="sources or speakers; every fourth source with sound unless given")
    parser.add_argument("--lip-set", nargs="*", default=[], help="configuration of lip, preset modern, a.b=c")
    parser.add_argument("--expert-set", nargs="*", default=[], help="configuration of sync_expert, preset modern")
    parser.add_argument("--lip-preset", default="modern")
    parser.add_argument("--expert-preset", default="modern")
    parser.add_argument("--keep", type=Path, help="folder for the runs; a temporary one unless given")


def main(options: argparse.Namespace) -> None:
    """Train both on the clips that are left, and print both tables."""
    from talkface.datasets import open_dataset
    from talkface.train.data import split

    if not options.dataset:
        sys.exit("lip: give --dataset, a dataset with arkit and mel; toolkit ingest makes one")
    dataset = open_dataset(str(options.dataset))
    held_names = options.hold_out or ",".join(default_held(dataset))
    train, held = split(str(options.dataset), held_names)
    assert held is not None
    with tempfile.TemporaryDirectory() as home:
        runs = options.keep or Path(home)
        lip = trained("lip", options.lip_preset, (*LIP, *options.lip_set), train, held, runs)
        expert = trained("sync_expert", options.expert_preset, (*EXPERT, *options.expert_set), train, held, runs)
        print(f"\nHeld out: {held_names} ({len(held)} clips); trained on {len(train)} clips\n")
        jaw_table(train, held, lip)
        sync_table(held, expert, lip)


def keys_of(dataset: Any) -> list[str]:
    keys: list[str] = dataset.keys()
    return keys


def default_held(dataset: Any) -> list[str]:
    """Every fourth source with speech."""
    rows = dataset.clips.select(["source", "speech_share"]).to_pylist()
    speaking = sorted({r["source"] for r in rows if (r["speech_share"] or 0) > 0.3})
    return speaking[::4]


def trained(task: str, preset: str, changes: tuple[str, ...], train: Any, held: Any, runs: Path) -> Any:
    """A model of a task, from its best checkpoint."""
    from talkface.train import checkpoint
    from talkface.train.base import configure
    from talkface.train.loop import train as fit

    out = runs / task
    if not out.exists():
        fit(task, configure(task, preset, None, changes), train, held, out, cpu=True)
    return checkpoint.load(out)


def jaw_table(train: Any, held: Any, lip: Any) -> None:
    """r of predicted and extracted jawOpen, clip by clip, and the mean absolute error."""
    fits: Mapping[str, Callable[[Any, str], np.ndarray]] = {
        "constant mean": constant(train),
        "sound energy, fitted gain": regression(train, energy, 1e-3),
        "ridge regression from mel": regression(train, around, 1e3),
        "lip, Audio2BS alone": refined(lip, 0),
        "lip, with residue": refined(lip, 1),
    }
    print("| jawOpen on held-out people | r, mean over clips | r, median | mean absolute error |\n|---|---|---|---|")
    for name, predict in fits.items():
        rs, errors = [], []
        for key in keys_of(held):
            real = jaw(held, key)
            if real is None:
                continue
            made = predict(held, key)[: len(real)]
            known = np.isfinite(real) & np.isfinite(made)
            if known.sum() < 25 or real[known].std() < 0.01:
                continue
            flat = made[known].std() < 1e-9
            rs.append(0.0 if flat else float(np.corrcoef(real[known], made[known])[0, 1]))
            errors.append(float(np.abs(real[known] - made[known]).mean()))
        print(f"| {name} | {np.mean(rs):.3f} | {np.median(rs):.3f} | {np.mean(errors):.4f} |")


def jaw(dataset: Any, key: str) -> np.ndarray | None:
    """jawOpen at 25 frames a second; None without sound."""
    from talkface.vocab import ARKIT

    if np.isnan(dataset.arrays(key, ["mel"])["mel"]).all():
        return None
    return dataset.column(key, "arkit", times(dataset, key))[:, ARKIT.index("jawOpen")]


def times(dataset: Any, key: str) -> np.ndarray:
    from talkface.motion import steady_pts

    return steady_pts(int(dataset.duration_ns(key) * RATE / 1e9), RATE)


def around(dataset: Any, key: str) -> np.ndarray:
    """Rows of mel around each frame, one after the other."""
    mel = dataset.arrays(key, ["mel"])["mel"].astype(np.float64)
    centre = times(dataset, key) / 1e9 * 80
    index = (centre[:, None] + CONTEXT).round().astype(int).clip(0, len(mel) - 1)
    return mel[index].reshape(len(index), -1)


def energy(dataset: Any, key: str) -> np.ndarray:
    """Loudness at each frame: the mean of log-mel over three rows."""
    mel = dataset.arrays(key, ["mel"])["mel"].astype(np.float64)
    index = (times(dataset, key) / 1e9 * 80)[:, None] + (-1, 0, 1)
    return mel[index.round().astype(int).clip(0, len(mel) - 1)].mean(axis=(1, 2))[:, None]


def constant(train: Any) -> Callable[[Any, str], np.ndarray]:
    found = [j for key in keys_of(train) if (j := jaw(train, key)) is not None]
    mean = float(np.nanmean(np.concatenate(found)))
    return lambda dataset, key: np.full(len(times(dataset, key)), mean)


def regression(
    train: Any, features: Callable[[Any, str], np.ndarray], penalty: float
) -> Callable[[Any, str], np.ndarray]:
    """Ridge regression on all frames of the training clips."""
    xs, ys = [], []
    for key in keys_of(train):
        real = jaw(train, key)
        if real is not None:
            x = features(train, key)
            good = np.isfinite(real) & np.isfinite(x).all(axis=1)
            xs.append(x[good])
            ys.append(real[good])
    x, y = np.concatenate(xs), np.concatenate(ys)
    mean, std = x.mean(axis=0), x.std(axis=0) + 1e-6
    x = (x - mean) / std
    weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ (y - y.mean()))
    return lambda dataset, key: (features(dataset, key) - mean) / std @ weights + y.mean()


def refined(model: Any, which: int) -> Callable[[Any, str], np.ndarray]:
    """jawOpen of a lip model: the neutral mouth (0) or the refined one (1), in the clip's own style."""
    import torch

    from talkface.vocab import MOUTH

    def predict(dataset: Any, key: str) -> np.ndarray:
        arrays = dataset.arrays(key, ["arkit", "mel"])
        seen = arrays["arkit"][np.isfinite(arrays["arkit"]).any(axis=1)]
        look = torch.from_numpy(np.nan_to_num(seen[np.linspace(0, len(seen) - 1, 8).round().astype(int)]))
        made = model.task.mouth(model.net, arrays["mel"], times(dataset, key), look)
        return made[which][:, MOUTH.index("jawOpen")]

    return predict


def sync_table(held: Any, expert: Any, lip: Any) -> None:
    """How well matched and shifted sound are told apart, and what refinement does to the score."""
    from dataclasses import replace

    from talkface.train.mouth import area_under_curve
    from talkface.vocab import ARKIT, MOUTH

    singles: tuple[list, list] = ([], [])
    spans: tuple[list, list] = ([], [])
    scores: dict[str, list[float]] = {"extracted": [], "shuffled clips": [], "refined": []}
    keys = [k for k in keys_of(held) if jaw(held, k) is not None]
    faces = {key: face_of(held, key) for key in keys}
    judge = expert_of(expert)
    for number, key in enumerate(keys):
        matched = cosines(judge, faces[key], 0)
        if len(matched) == 0:
            continue
        singles[0].extend(matched)
        spans[0].extend(by_span(matched))
        for shift in SHIFTS:
            wrong = cosines(judge, faces[key], shift)
            singles[1].extend(wrong)
            spans[1].extend(by_span(wrong))
        other = faces[keys[(number + 1) % len(keys)]]
        arkit = faces[key].columns["arkit"].copy()
        for column, name in enumerate(MOUTH):
            if lip.task.facts["mouth"]["valid"][column]:
                arkit[:, ARKIT.index(name)] = lip_mouth(lip, held, key)[: len(arkit), column]
        scores["extracted"].append(float(np.mean(matched)))
        swapped = cosines(judge, replace(faces[key], sound=other.sound), 0)
        scores["shuffled clips"].append(float(np.mean(swapped)) if len(swapped) else np.nan)
        scores["refined"].append(float(np.mean(cosines(judge, replace(faces[key], columns={"arkit": arkit}), 0))))
    print("\n| sync expert on held-out people, matched against shifted sound | AUC |\n|---|---|")
    print(f"| single windows of {expert.task.config.frames} frames | {area_under_curve(*singles):.3f} |")
    print(f"| averaged over {SPAN_FRAMES / RATE:.0f} s | {area_under_curve(*spans):.3f} |")
    print("\n| mouth | mean cosine with its sound |\n|---|---|")
    for name, values in scores.items():
        print(f"| {name} | {np.nanmean(values):.3f} |")


def lip_mouth(lip: Any, held: Any, key: str) -> np.ndarray:
    import torch

    arrays = held.arrays(key, ["arkit", "mel"])
    seen = arrays["arkit"][np.isfinite(arrays["arkit"]).any(axis=1)]
    look = torch.from_numpy(np.nan_to_num(seen[np.linspace(0, len(seen) - 1, 8).round().astype(int)]))
    return lip.task.mouth(lip.net, arrays["mel"], times(held, key), look)[1]


def face_of(dataset: Any, key: str) -> Any:
    """A clip as the metrics see it, at 25 frames a second."""
    from talkface.metrics.base import Face

    at = times(dataset, key)
    sound = dataset.span(key, 0, dataset.duration_ns(key), ["arkit"], sound=True)["sound"]
    return Face(key=key, pts_ns=at, columns={"arkit": dataset.column(key, "arkit", at)}, sound=sound)


def expert_of(model: Any) -> Any:
    from talkface.annotate.mel import log_mel
    from talkface.train.tasks.sync_expert import Expert

    return Expert(model.task, model.net, log_mel)


def cosines(judge: Any, face: Any, shift: int) -> np.ndarray:
    mouth, sound = judge.embeddings(face, round(shift * 1e9 / RATE))
    return (mouth * sound).sum(-1).numpy()


def by_span(values: np.ndarray) -> list[float]:
    """Means over spans of two seconds that do not overlap."""
    whole = len(values) // SPAN_FRAMES * SPAN_FRAMES
    return list(values[:whole].reshape(-1, SPAN_FRAMES).mean(axis=1)) if whole else []
