"""What trained EmoDiffs make for people they never saw: Frechet distances, seams between windows, guidance, emotions.

python -m benchmarks emodiff [--emodiff-variants all]
python -m benchmarks emodiff --emodiff-variants none --emodiff-data DATASET --emodiff-run RUN --emodiff-hold-out PEOPLE
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._data import real_clips, trained

SHOWS = {
    "angry": ("browDownLeft", "browDownRight"),
    "disgusted": ("browDownLeft", "browDownRight", "mouthUpperUpLeft", "mouthUpperUpRight"),
    "fear": ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    "happy": ("mouthSmileLeft", "mouthSmileRight"),
    "sad": ("browInnerUp", "mouthShrugLower"),
    "surprised": ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
}
"""Shapes that a label raises. MediaPipe never moves noseSneer and cheekSquint."""


GUIDANCE = (0.0, 0.15, 1.0)

HELD_OUT = (
    "W009,LatentSync__demo3_video.mp4,MimicTalk__German_20s.mp4,SadTalker__WDA_KatieHill_000.mp4,"
    "Real3DPortrait__May_5s.mp4,styletalk__feifeili_clip1.mp4,styletalk__feifeili_clip3.mp4,video-retalking__face2.mp4"
)
"""Seven people of the real clips: a third of the labelled ones, and six who speak."""

SHORT = ("stride=2", "dropout=0.1", "training.warmup=50", "training.evaluate_every=300")
PLAIN = ("fade=0", "velocity=0")
VARIANTS: dict[str, tuple[str, ...]] = {
    "paper": (
        *PLAIN, "noise.predict=epsilon", "noise.schedule=linear", "training.optimizer=adam",
        "training.learning_rate=4e-4",
    ),
    "epsilon": (*PLAIN, "noise.predict=epsilon"),
    "v": (*PLAIN, "noise.predict=v"),
    "x0": PLAIN,
    "x0, fade": ("velocity=0",),
    "x0, velocity": ("fade=0",),
    "modern": (),
}  # fmt: skip
"""What is changed of the preset ``tiny``: all have its size and see as much. From the second on the schedule is the
cosine one, and one thing changes from row to row."""


def add_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--emodiff-data", help="dataset with labels and speech, instead of ingesting the real clips")
    group.add_argument("--emodiff-hold-out", default=HELD_OUT, help="what is not trained on, as told to toolkit train")
    group.add_argument("--emodiff-variants", default="paper,modern", help=f"of {', '.join(VARIANTS)}; or all, or none")
    group.add_argument("--emodiff-train-steps", type=int, default=900, help="steps that each variant is trained for")
    group.add_argument("--emodiff-keep", type=Path, help="folder for the runs; a temporary one unless given")
    group.add_argument("--emodiff-run", type=Path, action="append", default=[], help="another run; may be repeated")
    group.add_argument("--emodiff-steps", type=int, default=20, help="denoising steps (ddim)")
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


@dataclass(frozen=True)
class Run:
    """A trained model, and its motion for every held-out clip: by guidance, and without feedback."""

    name: str
    model: Any
    made: dict[float, list]
    alone: list


def main(options: argparse.Namespace) -> None:
    """Train what is asked for on all but the people held out, and print the tables."""
    import torch

    from talkface.train import checkpoint
    from talkface.train.data import split

    torch.set_num_threads(1)  # such small networks gain nothing from more
    with tempfile.TemporaryDirectory() as home:
        data = options.emodiff_data or real_clips(options, Path(home) / "data", ["talking", "emotional"], "--no-video")
        if data is None:
            return
        train, held = split(data, options.emodiff_hold_out)
        if held is None:
            sys.exit("nothing is held out")
        paths = variants(train, held, options.emodiff_keep or Path(home), options) + options.emodiff_run
        models = [checkpoint.load(path, task="emodiff") for path in paths]
        clips = [c for c in read(held, models) if len(c.arkit) > 40]
        seen = np.concatenate([shapes(train, row) for row in train.clips.to_pylist()])
    runs = [drawn(p.name, m, clips, options) for p, m in zip(paths, models, strict=True)]
    for run in runs:
        print(f"{run.name}: step {run.model.about.step}")
    print(f"{len(clips)} held-out clips, {sum(len(c.arkit) for c in clips) / 25:.0f} s\n")
    distances(runs, clips, seen)
    seams(runs, clips)
    emotions(runs, clips, options)
    if options.emodiff_pictures:
        pictures(runs[-1].made[0.15], clips, options.emodiff_pictures)


def variants(train, held, runs: Path, options: argparse.Namespace) -> list[Path]:
    """The runs of the variants that are asked for."""
    asked = options.emodiff_variants
    names = {"all": list(VARIANTS), "none": []}.get(asked, asked.split(","))
    steps = f"training.steps={options.emodiff_train_steps}"
    return [trained("emodiff", "tiny", (*SHORT, *VARIANTS[n], steps), train, held, runs / n) for n in names]


def drawn(name: str, model, clips: list[Clip], options: argparse.Namespace) -> Run:
    made = {w: generate(model, clips, options, guidance=w) for w in GUIDANCE}
    return Run(name, model, made, generate(model, clips, options, guidance=0.15, feedback=False))


def read(dataset, models: list) -> list[Clip]:
    """All clips at 25 frames a second, and their sound as the models hear it."""
    from talkface.clip import NS
    from talkface.generate.speech import speech_from
    from talkface.train.protocols import Speech
    from talkface.weights import Models

    clips = []
    column = models[0].about.facts["sound"]["column"]["name"]
    for row in dataset.clips.to_pylist():
        key, times = row["key"], times_of(row)
        samples = dataset.span(key, 0, len(times) * NS // 25, ["pts"], sound=True)["sound"]
        has_sound = bool(np.isfinite(dataset.arrays(key, [column])[column].astype(np.float32)).any())
        speech = speech_from(samples, models, Models(offline=True))
        if not has_sound:
            speech = Speech(samples, {n: np.full_like(v, np.nan) for n, v in speech.columns.items()})
        labels = {k: row[k] for k in ("speaker", "emotion", "source")}
        head = dataset.column(key, "head", times)
        clips.append(Clip(key, shapes(dataset, row), head, speech, labels, has_sound))
    return clips


def times_of(row: dict[str, Any]) -> np.ndarray:
    from talkface.clip import NS

    return np.arange((row["end_ns"] - row["start_ns"]) * 25 // NS) * (NS // 25)


def shapes(dataset, row: dict[str, Any]) -> np.ndarray:
    return dataset.column(row["key"], "arkit", times_of(row))


def generate(model, clips: list[Clip], options: argparse.Namespace, **how: Any) -> list:
    """Motion for each clip's sound in its own style."""
    from talkface.generate.motion import sample
    from talkface.train.tasks.emodiff import EmoDiffSampling

    settings = EmoDiffSampling(steps=options.emodiff_steps, **how)
    return [sample(model, c.speech, style_of([c]), settings, seed=i).motions[0] for i, c in enumerate(clips)]


def style_of(clips: list[Clip]):
    from talkface.train.protocols import Style

    arkit, head = (np.concatenate([getattr(c, n) for c in clips]) for n in ("arkit", "head"))
    seen = np.isfinite(arkit[:, :51]).all(1) & np.isfinite(head).all(1)
    return Style(arkit[seen].astype(np.float32), head[seen, :7].astype(np.float32))


def distances(runs: list[Run], clips: list[Clip], seen: np.ndarray) -> None:
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
        **{f"{r.name}, w = {w:g}": [m.arkit[:, known] for m in made] for r in runs for w, made in r.made.items()},
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


def seams(runs: list[Run], clips: list[Clip]) -> None:
    """Steps into a new window against steps inside one, with Alg. 1 and without its feedback (Fig. 6)."""
    from talkface.metrics.base import Comparison, Face
    from talkface.metrics.boundary import Metric
    from talkface.metrics.faces import of_motion

    rows = {}
    for run in runs:
        for name, motions in (("Alg. 1", run.made[0.15]), ("without feedback", run.alone)):
            rows[f"{run.name}, {name}"] = [of_motion(m, str(i)) for i, m in enumerate(motions)]
    pts = np.arange(10_000) * 40_000_000
    rows["real clips, at the same places"] = [
        Face(key=c.key, pts_ns=pts[: len(c.arkit)], columns={"arkit": c.arkit}) for c in clips
    ]
    print("| windows | step into a new window | step inside | ratio |\n|---|---|---|---|")
    for name, faces in rows.items():
        found = Metric().compute(Comparison(generated=faces))
        jump, inside, ratio = (found[k] for k in ("boundary_jump", "inside_step", "boundary_ratio"))
        print(f"| {name} | {jump:.4f} | {inside:.4f} | {ratio:.2f} |")
    print()
    for run in runs:
        follow = [correlation(m, c) for m, c in zip(run.made[0.15], clips, strict=True) if c.has_sound]
        print(f"{run.name}: jawOpen, generated against real, {len(follow)} clips: r = {np.nanmean(follow):.2f} (mean)")
    print()


def correlation(motion, clip: Clip) -> float:
    from talkface.vocab import ARKIT

    jaw = ARKIT.index("jawOpen")
    n = min(len(motion), len(clip.arkit))
    pair = np.stack([motion.arkit[:n, jaw], clip.arkit[:n, jaw]])
    pair = pair[:, np.isfinite(pair).all(0)]
    return float(np.corrcoef(pair)[0, 1])


def emotions(runs: list[Run], clips: list[Clip], options: argparse.Namespace) -> None:
    """One sound in the style of each label of each held-out speaker, against the speaker's neutral style."""
    sound = min((c for c in clips if c.has_sound), key=lambda c: abs(len(c.arkit) - 100))
    speakers = sorted({c.labels["speaker"] for c in clips if c.labels["emotion"] and c.labels["speaker"]})
    print(f"| speaker | style | shapes | in the style, against neutral | {' | '.join(r.name for r in runs)} |")
    print(f"|---|---|---|---|{'---|' * len(runs)}")
    for speaker in speakers:
        by_label = {c.labels["emotion"]: style_of([c]) for c in clips if c.labels["speaker"] == speaker}
        if "neutral" not in by_label:
            continue
        means = [{label: mean_face(r.model, sound, s, options) for label, s in by_label.items()} for r in runs]
        real = {label: style.arkit.mean(0) for label, style in by_label.items()}
        for label in sorted(by_label.keys() & SHOWS.keys()):
            moved = [moves(label, of) for of in (real, *means)]
            print(f"| {speaker} | {label} | {', '.join(SHOWS[label])} | {' | '.join(f'{m:+.3f}' for m in moved)} |")


def mean_face(model, sound: Clip, style, options: argparse.Namespace) -> np.ndarray:
    from talkface.generate.motion import sample
    from talkface.train.tasks.emodiff import EmoDiffSampling

    drawn = sample(model, sound.speech, style, EmoDiffSampling(steps=options.emodiff_steps), variants=2).motions
    return np.mean([m.arkit for m in drawn], axis=(0, 1))


def moves(label: str, faces: dict[str, np.ndarray]) -> float:
    """By how much the label's shapes are above the neutral face's."""
    from talkface.vocab import ARKIT

    at = [ARKIT.index(n) for n in SHOWS[label]]
    return float((faces[label] - faces["neutral"])[at].mean())


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
