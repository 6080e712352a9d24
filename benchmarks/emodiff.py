"""What a trained EmoDiff makes for people it never saw: Frechet distances, seams between windows, guidance, emotions.

toolkit train emodiff --data DATASET --out RUN --hold-out SPEAKERS ...
python -m benchmarks emodiff --emodiff-data DATASET --emodiff-run RUN --emodiff-hold-out SPEAKERS
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SHOWS = {
    "angry": ("browDownLeft", "browDownRight"),
    "disgusted": ("browDownLeft", "browDownRight", "mouthUpperUpLeft", "mouthUpperUpRight"),
    "fear": ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    "happy": ("mouthSmileLeft", "mouthSmileRight"),
    "sad": ("browInnerUp", "mouthShrugLower"),
    "surprised": ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
}
"""Shapes that a label raises. MediaPipe never moves noseSneer and cheekSquint."""


def add_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--emodiff-data", help="dataset that the run was trained on")
    group.add_argument("--emodiff-run", type=Path, help="run of emodiff")
    group.add_argument("--emodiff-hold-out", default="val", help="what it was not trained on, as told to toolkit train")
    group.add_argument("--emodiff-steps", type=int, default=50, help="denoising steps (ddim)")
    group.add_argument("--emodiff-pictures", type=Path, help="folder for curves, real above generated")


@dataclass(frozen=True)
class Clip:
    """A held-out clip: its frames with a face, and the sound to speak to."""

    key: str
    arkit: np.ndarray
    head: np.ndarray
    speech: Any
    labels: dict[str, Any]
    has_sound: bool


def main(options: argparse.Namespace) -> None:
    if options.emodiff_run is None or options.emodiff_data is None:
        print("skipped: give --emodiff-run and --emodiff-data")
        return
    import torch

    from talkface.train import checkpoint
    from talkface.train.data import split

    torch.set_num_threads(1)  # such small networks gain nothing from more
    model = checkpoint.load(options.emodiff_run, task="emodiff")
    train, held = split(options.emodiff_data, options.emodiff_hold_out)
    if held is None:
        sys.exit("nothing is held out")
    clips = [c for c in read(held, model) if len(c.arkit) > 40]
    seen = np.concatenate([c.arkit for c in read(train, model)])
    print(f"step {model.about.step}; {len(clips)} held-out clips, {sum(len(c.arkit) for c in clips) / 25:.0f} s\n")
    made = {w: generate(model, clips, options, guidance=w) for w in (0.0, 0.15, 1.0)}
    distances(made, clips, seen)
    seams(model, clips, made, options)
    emotions(model, clips, options)
    if options.emodiff_pictures:
        pictures(made[0.15], clips, options.emodiff_pictures)


def read(dataset, model) -> list[Clip]:
    """All clips at 25 frames a second, and their sound as the model hears it."""
    from talkface.clip import NS
    from talkface.train.base import Speech
    from talkface.train.sample import speech_from
    from talkface.weights import Models

    clips = []
    column = model.about.facts["sound"]["column"]["name"]
    for row in dataset.clips.to_pylist():
        key = row["key"]
        frames = int((row["end_ns"] - row["start_ns"]) * 25 // NS)
        times = np.arange(frames) * (NS // 25)
        arkit, head = (dataset.column(key, name, times) for name in ("arkit", "head"))
        samples = dataset.span(key, 0, frames * NS // 25, ["pts"], sound=True)["sound"]
        has_sound = bool(np.isfinite(dataset.arrays(key, [column])[column].astype(np.float32)).any())
        speech = speech_from(samples, [model], Models(offline=True))
        if not has_sound:
            speech = Speech(samples, {n: np.full_like(v, np.nan) for n, v in speech.columns.items()})
        labels = {k: row[k] for k in ("speaker", "emotion", "source")}
        clips.append(Clip(key, arkit, head, speech, labels, has_sound))
    return clips


def generate(model, clips: list[Clip], options: argparse.Namespace, **how: Any) -> list:
    """Motion for each clip's sound in its own style."""
    from talkface.train.sample import sample
    from talkface.train.tasks.emodiff import Sampling

    settings = Sampling(steps=options.emodiff_steps, **how)
    return [sample(model, c.speech, style_of([c]), settings, seed=i).motions[0] for i, c in enumerate(clips)]


def style_of(clips: list[Clip]):
    from talkface.train.base import Style

    arkit, head = (np.concatenate([getattr(c, n) for c in clips]) for n in ("arkit", "head"))
    seen = np.isfinite(arkit[:, :51]).all(1) & np.isfinite(head).all(1)
    return Style(arkit[seen].astype(np.float32), head[seen, :7].astype(np.float32))


def distances(made: dict[float, list], clips: list[Clip], seen: np.ndarray) -> None:
    """Frechet distances to the held-out clips: of frames, and of frames with the step that led there."""
    from talkface.metrics.expression_frechet import frechet

    known = np.isfinite(seen).any(0)
    seen = seen[:, known][np.isfinite(seen[:, known]).all(1)]
    rng = np.random.default_rng(0)
    n = sum(len(c.arkit) for c in clips)
    gaussian = np.clip(rng.normal(seen.mean(0), seen.std(0), (n, seen.shape[1])), 0, 1)
    shuffled = seen[rng.integers(0, len(seen), n)]
    own = [rng.permutation(c.arkit[:, known]) for c in clips]
    rows = {
        **{f"EmoDiff, w = {w:g}": [m.arkit[:, known] for m in motions] for w, motions in made.items()},
        "Gaussian fitted to each channel of the training clips": [gaussian],
        "training frames, shuffled": [shuffled],
        "the held-out clips' own frames, shuffled": own,
        "training clips as they are": [seen],
    }
    real = [c.arkit[:, known] for c in clips]
    print("| against the held-out clips (E-FID on ARKit's shapes) | frames | frames and steps | mean step |")
    print("|---|---|---|---|")
    for name, sides in rows.items():
        numbers = [frechet(stack(sides, steps), stack(real, steps)) for steps in (False, True)]
        print(f"| {name} | {numbers[0]:.3f} | {numbers[1]:.3f} | {mean_step(sides):.4f} |")
    print(f"| (the held-out clips themselves) | 0 | 0 | {mean_step(real):.4f} |\n")


def stack(sides: list[np.ndarray], steps: bool) -> np.ndarray:
    """Rows without a gap: frames, or frames with the step from the one before."""
    parts = [np.concatenate([s[1:], np.diff(s, axis=0)], axis=1) if steps else s for s in sides]
    rows = np.concatenate(parts).astype(float)
    return rows[np.isfinite(rows).all(1)]


def mean_step(sides: list[np.ndarray]) -> float:
    return float(np.nanmean(np.concatenate([np.abs(np.diff(s, axis=0)).mean(1) for s in sides])))


def seams(model, clips: list[Clip], made: dict[float, list], options: argparse.Namespace) -> None:
    """Steps into a new window against steps inside one, with Alg. 1 and without its feedback (Fig. 6)."""
    from talkface.metrics.base import Comparison
    from talkface.metrics.boundary import Metric
    from talkface.metrics.faces import of_motion

    without = generate(model, clips, options, guidance=0.15, feedback=False)
    print("| windows | step into a new window | step inside | ratio |\n|---|---|---|---|")
    for name, motions in (("Alg. 1", made[0.15]), ("without feedback", without)):
        found = Metric().compute(Comparison(generated=[of_motion(m, str(i)) for i, m in enumerate(motions)]))
        jump, inside, ratio = (found[k] for k in ("boundary_jump", "inside_step", "boundary_ratio"))
        print(f"| {name} | {jump:.4f} | {inside:.4f} | {ratio:.2f} |")
    follow = [correlation(m, c) for m, c in zip(made[0.15], clips, strict=True) if c.has_sound]
    print(f"\njawOpen, generated against real, {len(follow)} clips with sound: r = {np.nanmean(follow):.2f} (mean)\n")


def correlation(motion, clip: Clip) -> float:
    from talkface.vocab import ARKIT

    jaw = ARKIT.index("jawOpen")
    n = min(len(motion), len(clip.arkit))
    pair = np.stack([motion.arkit[:n, jaw], clip.arkit[:n, jaw]])
    pair = pair[:, np.isfinite(pair).all(0)]
    return float(np.corrcoef(pair)[0, 1])


def emotions(model, clips: list[Clip], options: argparse.Namespace) -> None:
    """One sound in the style of each label of each held-out speaker, against the speaker's neutral style."""
    from talkface.train.sample import sample
    from talkface.train.tasks.emodiff import Sampling
    from talkface.vocab import ARKIT

    sound = min((c for c in clips if c.has_sound), key=lambda c: abs(len(c.arkit) - 100))
    how = Sampling(steps=options.emodiff_steps)
    speakers = sorted({c.labels["speaker"] for c in clips if c.labels["emotion"] and c.labels["speaker"]})
    print("| speaker | style | shapes | in the style, against neutral | generated, against neutral |")
    print("|---|---|---|---|---|")
    for speaker in speakers:
        by_label = {c.labels["emotion"]: style_of([c]) for c in clips if c.labels["speaker"] == speaker}
        if "neutral" not in by_label:
            continue
        means = {}
        for label, style in by_label.items():
            drawn = sample(model, sound.speech, style, how, variants=2).motions
            means[label] = np.mean([m.arkit for m in drawn], axis=(0, 1))
        for label in sorted(by_label.keys() & SHOWS.keys()):
            at = [ARKIT.index(n) for n in SHOWS[label]]
            asked = (by_label[label].arkit.mean(0) - by_label["neutral"].arkit.mean(0))[at].mean()
            got = (means[label] - means["neutral"])[at].mean()
            print(f"| {speaker} | {label} | {', '.join(SHOWS[label])} | {asked:+.3f} | {got:+.3f} |")


def pictures(motions: list, clips: list[Clip], folder: Path) -> None:
    """Curves of every clip: real above generated."""
    import cv2

    from talkface.render.overlay import curves
    from talkface.vocab import ARKIT

    folder.mkdir(parents=True, exist_ok=True)
    names = ("jawOpen", "mouthSmileLeft", "browInnerUp", "eyeBlinkLeft", "browDownLeft")
    for motion, clip in zip(motions, clips, strict=True):
        both = [curves({n: of.arkit[:, ARKIT.index(n)] for n in names}, size=(1400, 260)) for of in (clip, motion)]
        cv2.imwrite(str(folder / f"{clip.key}.png"), np.concatenate(both)[..., ::-1])
