"""Lip refinement and the sync expert on people who were held out, taking turns: jawOpen against baselines, matched
against shifted sound, and what refinement does to a mouth that does not follow the sound and to EmoDiff's.

python -m benchmarks lip [--dataset DATASET] [--folds 5] [--lip-set a.b=c ...] [--expert-set a.b=c ...]
"""

import argparse
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._data import real_clips, trained

RATE = 25.0
CONTEXT = np.arange(-15, 16, 2)
"""Rows of mel (80 a second) around a frame that the ridge regressions see."""
PENALTY, OWN_PENALTY = 1e3, 1e4
SPAN_FRAMES = 50
SHIFTS = (-15, -12, -9, -6, -4, 4, 6, 9, 12, 15)
"""Frames by which sound is shifted to be wrong."""
IN_SYNC_MS = 80
LEAST_SPEECH = 0.2
SAME_PERSON = (r"feifeili",)
"""Pattern of the sources that show one person; any other source, or speaker, is a person of its own."""

Predict = Callable[[Any, str], np.ndarray]


def add_arguments(parser: Any) -> None:
    """Options of this benchmark."""
    parser.add_argument("--folds", type=int, default=5, help="into so many groups people are dealt")
    parser.add_argument("--some-folds", type=int, help="only the first so many groups are held out, one by one")
    parser.add_argument("--lip-set", nargs="*", default=[], help="configuration of lip, a.b=c")
    parser.add_argument("--expert-set", nargs="*", default=[], help="configuration of sync_expert, a.b=c")
    parser.add_argument("--lip-preset", default="modern")
    parser.add_argument("--expert-preset", default="modern")
    parser.add_argument("--emodiff-set", nargs="*", default=["dropout=0.1"], help="configuration of emodiff's tiny")
    parser.add_argument("--sound", default="mel", help="column that lip and the expert listen to: mel or speech")
    parser.add_argument("--keep", type=Path, help="folder for the runs; a temporary one unless given")


def main(options: argparse.Namespace) -> None:
    """Train both for each fold on the people who are left, and print the tables."""
    import torch

    torch.set_num_threads(1)
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as home:
        data = options.dataset or real_clips(options, Path(home) / "data", ["talking"], "--no-video")
        if data is None:
            return
        runs, groups = options.keep or Path(home), list(folds(str(data), options.folds))
        for number, (train, held) in enumerate(groups[: options.some_folds]):
            models = Models(train, groups[(number + 1) % len(groups)][1], runs / str(number), options)
            keys = [key for key in speaking(held) if jaw(held, key) is not None]
            found["jaw"].append(jaws(train, held, keys, models))
            found["sync"].append(syncs(held, keys, models.expert))
            found["refined"].append(refinement(held, keys, models))
            found["reach"].append(reach(held, keys, models))
            found["smile"].append(smile(held, keys, models))
            found["size"].append({"clips": len(keys), "trained": len(train)})
            print(f"fold {number + 1}: {found['size'][-1]}", file=sys.stderr, flush=True)
    report(found)


class Models:
    """What is trained on a fold's people: the sync expert, lip refinement without and with an expert as its teacher,
    and EmoDiff. A teacher has to be tried on people it has not seen, those of the next fold: ``taught`` is None where
    it has not learned enough to teach."""

    def __init__(self, train: Any, next_held: Any, runs: Path, options: argparse.Namespace) -> None:
        import pyarrow.compute as pc

        from talkface.errors import ConfigError

        others = train.where(~pc.field("key").isin(next_held.clips.column("key")))
        expert = (options.expert_preset, [f"sound={options.sound}", *options.expert_set])
        lip = [f"sound={options.sound}", *options.lip_set]
        teacher = trained("sync_expert", *expert, others, next_held, runs / "teacher")
        self.expert = last(trained("sync_expert", *expert, train, None, runs / "sync_expert"))
        self.lip = last(trained("lip", options.lip_preset, lip, train, None, runs / "lip"))
        taught = [*lip, f"sync_run={teacher}"]
        try:
            self.taught = last(trained("lip", options.lip_preset, taught, train, None, runs / "taught"))
        except ConfigError as error:
            print(error, file=sys.stderr, flush=True)
            self.taught = None
        self.emodiff = last(trained("emodiff", "tiny", options.emodiff_set, train, None, runs / "emodiff"))


def last(run: Path) -> Any:
    """A model after its last step: nothing of who is held out chooses a checkpoint."""
    from talkface.train import checkpoint

    return checkpoint.load(run, which="last")


def report(found: dict[str, list[dict[str, float]]]) -> None:
    """The tables: means over folds, and the least and the most of them."""
    sizes = ", ".join(str(int(fold["clips"])) for fold in found["size"])
    print(f"\nPeople take turns in being held out: {len(found['size'])} folds of {sizes} clips with speech\n")
    heads = (
        ("jaw", "jawOpen on held-out people", "r, mean over clips, then folds"),
        ("sync", "sync expert on held-out people, matched against shifted sound", "AUC, mean over folds"),
        ("refined", "mouth", "mean cosine with its sound"),
        ("reach", "how far jawOpen moves", "deviation, in the clip's own"),
        ("smile", "mouthSmileLeft, mean over the clip", "distance from the clip's own"),
    )
    for name, what, unit in heads:
        print(f"| {what} | {unit} | least and most of the folds |\n|---|---|---|")
        for row in dict.fromkeys(row for fold in found[name] for row in fold):
            values = [fold[row] for fold in found[name] if row in fold]
            row += "" if len(values) == len(found[name]) else f" ({len(values)} folds)"  # noqa: PLW2901
            print(f"| {row} | {np.nanmean(values):.3f} | {np.nanmin(values):.3f} to {np.nanmax(values):.3f} |")
        print()


def folds(url: str, count: int) -> Iterator[tuple[Any, Any]]:
    """People who speak, dealt into groups by name: all clips but a group's, and the group's."""
    import pyarrow.compute as pc

    from talkface.datasets import open_dataset

    dataset = open_dataset(url)
    people: dict[str, set[str]] = defaultdict(set)
    for row in dataset.clips.to_pylist():
        people[person(row)].add(row["key"])
    heard = sorted({person(row) for row in dataset.clips.to_pylist() if (row["speech_share"] or 0) > LEAST_SPEECH})
    for number in range(count):
        keys = sorted(set().union(*(people[who] for who in heard[number::count])))
        chosen = pc.field("key").isin(keys)
        yield dataset.where(~chosen), dataset.where(chosen)


def person(row: dict[str, Any]) -> str:
    """Who a clip shows."""
    name: str = row["speaker"] or row["source"]
    return next((pattern for pattern in SAME_PERSON if re.search(pattern, name)), name)


def speaking(dataset: Any) -> list[str]:
    return [row["key"] for row in dataset.clips.to_pylist() if (row["speech_share"] or 0) > LEAST_SPEECH]


def jaws(train: Any, held: Any, keys: list[str], models: Models) -> dict[str, float]:
    """r of predicted and extracted jawOpen, mean over clips in which it moves."""
    fits: dict[str, Predict] = {
        "constant mean": lambda dataset, key: np.zeros(len(times(dataset, key))),
        "sound energy, fitted gain": regression(train, energy, 1e-3),
        "ridge regression from mel": regression(train, around, PENALTY),
        "the same, mel at each clip's own level": regression(train, around_own, OWN_PENALTY),
        **of_speech(train),
        "lip before its first step (ridge, sound in place)": made(untrained(models.lip), 0),
        "lip, Audio2BS alone": made(models.lip, 0),
        "lip, with residue": made(models.lip, 1),
        "EmoDiff": generated(models.emodiff),
        "EmoDiff, then refined": generated(models.emodiff, models.lip),
    }
    if models.taught is not None:
        fits["lip taught by an expert, with residue"] = made(models.taught, 1)
    if not hasattr(models.lip.net.neutral, "weights"):
        del fits["lip before its first step (ridge, sound in place)"]
    found = {}
    for name, predict in fits.items():
        rs = []
        for key in keys:
            real, guess = jaw(held, key), predict(held, key)
            known = np.isfinite(real) & np.isfinite(guess)
            if known.sum() >= RATE and real[known].std() >= 0.01:
                still = guess[known].std() < 1e-9
                rs.append(0.0 if still else float(np.corrcoef(real[known], guess[known])[0, 1]))
        found[name] = float(np.mean(rs))
    return found


def of_speech(train: Any) -> dict[str, Predict]:
    """Ridge regressions from five rows of the column speech, where the dataset has it."""
    if "speech" not in {spec.name for spec in train.specs()}:
        return {}
    return {"ridge regression from speech, at each clip's own level": regression(train, around_speech, OWN_PENALTY)}


def around_speech(dataset: Any, key: str) -> np.ndarray:
    """Five rows of speech around each frame, less the clip's mean and in its deviations."""
    rows, spec = dataset.arrays(key, ["speech"])["speech"].astype(np.float64), dataset.spec("speech")
    rows = (rows - rows.mean(axis=0)) / (rows.std(axis=0) + 1e-2)
    at = (times(dataset, key) / 1e9 - spec.first_seconds) * spec.rate
    index = (at[:, None] + np.arange(-2, 3)).round().astype(int).clip(0, len(rows) - 1)
    return rows[index].reshape(len(index), -1)


def untrained(model: Any) -> Any:
    """A model as it was before its first step."""
    return type(model)(model.task, model.task.build().eval(), model.about, "")


def jaw(dataset: Any, key: str) -> Any:
    """jawOpen at 25 frames a second; None without sound."""
    from talkface.vocab import ARKIT

    if np.isnan(dataset.arrays(key, ["mel"])["mel"]).all():
        return None
    return dataset.column(key, "arkit", times(dataset, key))[:, ARKIT.index("jawOpen")]


def times(dataset: Any, key: str) -> np.ndarray:
    from talkface.motion import steady_pts

    return steady_pts(int(dataset.duration_ns(key) * RATE / 1e9), RATE)


def around(dataset: Any, key: str, *, own: bool = False) -> np.ndarray:
    """Rows of mel around each frame, one after the other."""
    import torch

    from talkface.train.inputs.audio_rows import own_level

    mel = dataset.arrays(key, ["mel"])["mel"].astype(np.float64)
    if own:
        mel = own_level(torch.from_numpy(mel)[None])[0].numpy()
    index = (times(dataset, key)[:, None] / 1e9 * 80 + CONTEXT).round().astype(int).clip(0, len(mel) - 1)
    return mel[index].reshape(len(index), -1)


def around_own(dataset: Any, key: str) -> np.ndarray:
    return around(dataset, key, own=True)


def energy(dataset: Any, key: str) -> np.ndarray:
    """Loudness at each frame: the mean of log-mel over three rows."""
    mel = dataset.arrays(key, ["mel"])["mel"].astype(np.float64)
    index = (times(dataset, key) / 1e9 * 80)[:, None] + (-1, 0, 1)
    return mel[index.round().astype(int).clip(0, len(mel) - 1)].mean(axis=(1, 2))[:, None]


def regression(train: Any, features: Callable[[Any, str], np.ndarray], penalty: float) -> Predict:
    """Ridge regression on all frames of the training clips that speak."""
    xs, ys = [], []
    for key in speaking(train):
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


def look_of(dataset: Any, key: str) -> Any:
    """Eight frames of the clip, evenly spaced."""
    import torch

    arkit = dataset.arrays(key, ["arkit"])["arkit"]
    seen = arkit[np.isfinite(arkit).any(axis=1)]
    return torch.from_numpy(np.nan_to_num(seen[np.linspace(0, len(seen) - 1, 8).round().astype(int)]))


def made(model: Any, which: int) -> Predict:
    """jawOpen of a lip model: the neutral mouth (0) or the refined one (1), in the clip's own style."""
    from talkface.vocab import MOUTH

    def predict(dataset: Any, key: str) -> np.ndarray:
        column = model.task.config.sound
        rows = dataset.arrays(key, [column])[column]
        mouths = model.task.mouth(model.net, rows, times(dataset, key), look_of(dataset, key))
        return mouths[which][:, MOUTH.index("jawOpen")]

    return predict


def generated(emodiff: Any, lip: Any = None) -> Predict:
    """jawOpen of EmoDiff's motion for the clip's sound in the clip's style, refined if there is a lip model."""
    from talkface.vocab import ARKIT

    def predict(dataset: Any, key: str) -> np.ndarray:
        jaw_open = motion_of(dataset, key, emodiff, lip).arkit[:, ARKIT.index("jawOpen")]
        n = len(times(dataset, key))
        return np.concatenate([jaw_open, np.full(max(n - len(jaw_open), 0), np.nan)])[:n]

    return predict


def motion_of(dataset: Any, key: str, emodiff: Any, lip: Any = None) -> Any:
    """What is made for a clip's sound in its own style; the same draw each time."""
    from talkface.generate.motion import sample
    from talkface.train.tasks.emodiff import EmoDiffSampling

    speech = speech_of(dataset, key, emodiff, lip)
    return sample(emodiff, speech, style_of(dataset, key), EmoDiffSampling(steps=20), lip=lip).motions[0]


def speech_of(dataset: Any, key: str, *models: Any) -> Any:
    """A clip's sound with the columns that some models listen to."""
    from talkface.train.base import Speech

    columns = list(dict.fromkeys(model.task.config.sound for model in models if model is not None))
    return Speech(face_of(dataset, key).sound, dataset.arrays(key, columns))


def style_of(dataset: Any, key: str) -> Any:
    """The clip's own frames with a face."""
    from talkface.generate.style import read_style
    from talkface.weights import Models as Files

    return read_style(key, Files(offline=True), data=dataset)


def syncs(held: Any, keys: list[str], expert: Any) -> dict[str, float]:
    """Areas under the curve, before training and after."""
    from dataclasses import replace

    from talkface.train.inputs.mouth import area_under_curve

    found = {}
    judges = {"after training": expert}
    if hasattr(expert.net, "log_worth"):
        judges = {"closed form alone": untrained(expert), **judges}
    faces = {key: face_of(held, key) for key in keys}
    for name, model in judges.items():
        judge = expert_of(model)
        matched = {key: cosines(judge, face, 0) for key, face in faces.items()}
        wrong = {s: [cosines(judge, face, s) for face in faces.values()] for s in SHIFTS}
        wrong[0] = [
            cosines(judge, replace(faces[a], sound=faces[b].sound), 0)
            for a, b in zip(keys, [*keys[1:], keys[0]], strict=True)
        ]
        right, spans = np.concatenate(list(matched.values())), spans_of(matched.values())

        def auc(shifts: Any, right: Any = right, spans: Any = spans, wrong: Any = wrong) -> tuple[float, float]:
            chosen = [v for s in shifts for v in wrong[s]]
            return (
                area_under_curve(right, np.concatenate(chosen)),
                area_under_curve(spans, spans_of(chosen)),
            )

        one, two = auc(SHIFTS)
        found[f"{name}: single windows of {expert.task.config.frames} frames"] = one
        found[f"{name}: averaged over {SPAN_FRAMES / RATE:.0f} s"] = two
    near = [number for number, key in enumerate(keys) if in_sync(held, key)]
    found[f"the same, clips within {IN_SYNC_MS} ms of sync by the annotator"] = area_under_curve(
        spans_of(matched[keys[i]] for i in near), spans_of(wrong[s][i] for s in SHIFTS for i in near)
    )
    for size in sorted({abs(s) for s in SHIFTS}):
        found[f"the same, shifted by {size} frames alone"] = auc((-size, size))[1]
    found["the same, sound of another clip"] = auc((0,))[1]
    return found


def in_sync(dataset: Any, key: str) -> bool:
    """Whether the annotator `sync`, which knows some of these people, finds the sound in place."""
    from talkface.annotate._sync import estimate, load_model

    if "lm" not in {spec.name for spec in dataset.specs()}:
        return False
    arrays = dataset.arrays(key, ["lm", "pts", "mel"])
    offset = estimate(load_model(), arrays["lm"], arrays["pts"], arrays["mel"])
    return offset is not None and abs(offset.ms) <= IN_SYNC_MS and load_model().confidence(offset) > 0


def refinement(held: Any, keys: list[str], models: Models) -> dict[str, float]:
    """Mean cosine of mouths with their sound: the real one, the real one half a clip later, which does not follow the
    sound, and EmoDiff's. `refine` puts another in its place, and everything else must stay as it is."""
    scores = defaultdict(list)
    for key in keys:
        real, made = real_motion(held, key), motion_of(held, key, models.emodiff)
        strayed = moved_mouth(real)
        mouths = {
            "as extracted": real,
            "of another moment": strayed,
            "of another moment, then refined": refined(held, key, strayed, models.lip),
            "EmoDiff's": made,
            "EmoDiff's, then refined": refined(held, key, made, models.lip),
        }
        if models.taught is not None:
            mouths["EmoDiff's, then refined by lip that an expert taught"] = refined(held, key, made, models.taught)
        for name, motion in mouths.items():
            scores[name].append(score(models.expert, held, key, motion))
    return {name: float(np.nanmean(values)) for name, values in scores.items()}


def reach(held: Any, keys: list[str], models: Models) -> dict[str, float]:
    """How far the jaw of made motion moves, all clips together, in the style of each clip itself."""
    real = sum(np.nanstd(values) for values in shapes(held, keys, "jawOpen", real_motion))
    rows = in_levels(held, keys, models, "jawOpen")
    return {name: float(sum(np.std(values) for values in made) / real) for name, made in rows.items()}


def smile(held: Any, keys: list[str], models: Models) -> dict[str, float]:
    """How far the mean smile of made motion is from that of the clip whose style it has, mean over clips."""
    real = [np.nanmean(values) for values in shapes(held, keys, "mouthSmileLeft", real_motion)]
    rows = in_levels(held, keys, models, "mouthSmileLeft")
    return {name: float(np.mean([abs(m.mean() - r) for m, r in zip(made, real, strict=True)]))
            for name, made in rows.items()}  # fmt: skip


def in_levels(held: Any, keys: list[str], models: Models, shape: str) -> dict[str, list[np.ndarray]]:
    """A shape of EmoDiff's motion for each clip, and of that motion refined in both ways."""
    rows = {"EmoDiff's": shapes(held, keys, shape, lambda d, k: motion_of(d, k, models.emodiff))}
    for level in ("data", "style"):
        lip = at_level(models.lip, level)
        rows[f"EmoDiff's, then refined, level={level}"] = shapes(
            held, keys, shape, lambda d, k, lip=lip: motion_of(d, k, models.emodiff, lip)
        )
    return rows


def at_level(lip: Any, level: str) -> Any:
    """The same model with another setting of where refined mouths rest."""
    task = type(lip.task)(lip.task.config.model_copy(update={"level": level}), lip.task.facts)
    return type(lip)(task, lip.net, lip.about, lip.digest)


def shapes(held: Any, keys: list[str], shape: str, motion: Callable[[Any, str], Any]) -> list[np.ndarray]:
    from talkface.vocab import ARKIT

    return [motion(held, key).arkit[:, ARKIT.index(shape)] for key in keys]


def real_motion(dataset: Any, key: str) -> Any:
    """The clip's shapes at 25 frames a second, its head at rest."""
    from talkface.motion import Motion

    arkit = face_of(dataset, key).columns["arkit"].astype(np.float32)
    return Motion(pts_ns=times(dataset, key), arkit=arkit, head=np.zeros((len(arkit), 7), np.float32), fps=RATE)


def moved_mouth(motion: Any) -> Any:
    """The motion with the mouth that it has half its length later."""
    from dataclasses import replace

    from talkface.vocab import ARKIT, MOUTH

    mouth, arkit = [ARKIT.index(name) for name in MOUTH], motion.arkit.copy()
    arkit[:, mouth] = np.roll(arkit, len(arkit) // 2, axis=0)[:, mouth]
    return replace(motion, arkit=arkit)


def refined(dataset: Any, key: str, motion: Any, lip: Any) -> Any:
    """The motion with the mouth that a lip model makes for the clip's sound."""
    from talkface.vocab import ARKIT, MOUTH

    speech = speech_of(dataset, key, lip)
    better = lip.task.refine(lip.net, motion, speech, style_of(dataset, key))
    others = [i for i, name in enumerate(ARKIT) if name not in MOUTH]
    assert np.array_equal(better.arkit[:, others], motion.arkit[:, others], equal_nan=True)
    return better


def score(expert: Any, dataset: Any, key: str, motion: Any) -> float:
    """Mean cosine over all windows."""
    from dataclasses import replace

    face = replace(face_of(dataset, key), pts_ns=motion.pts_ns, columns={"arkit": motion.arkit})
    return float(np.mean(cosines(expert_of(expert), face, 0)))


def face_of(dataset: Any, key: str) -> Any:
    """A clip as the metrics see it, at 25 frames a second."""
    from talkface.metrics.base import Face

    at = times(dataset, key)
    sound = dataset.span(key, 0, dataset.duration_ns(key), ["arkit"], sound=True)["sound"]
    return Face(key=key, pts_ns=at, columns={"arkit": dataset.column(key, "arkit", at)}, sound=sound)


def expert_of(model: Any) -> Any:
    """A trained expert, and the ear that it was trained with."""
    from talkface.train.tasks.sync_expert import Expert

    name = model.task.config.sound
    return Expert(model.task, model.net, lambda sound: heard(name, sound.tobytes()))


@cache
def heard(column: str, samples: bytes) -> np.ndarray:
    """A column of sound: each clip's is asked for once a shift."""
    from talkface.annotate.mel import log_mel
    from talkface.annotate.speech import Annotator, SpeechEncoderConfig
    from talkface.weights import Models as Files

    sound = np.frombuffer(samples, np.int16)
    if column == "mel":
        return log_mel(sound)
    ear = Annotator(SpeechEncoderConfig())
    ear.open(Files(offline=True))
    return ear.states(sound)


def cosines(judge: Any, face: Any, shift: int) -> np.ndarray:
    mouth, sound = judge.embeddings(face, round(shift * 1e9 / RATE))
    return (mouth * sound).sum(-1).numpy()


def spans_of(clips: Iterable[np.ndarray]) -> list[float]:
    return [mean for values in clips for mean in by_span(values)]


def by_span(values: np.ndarray) -> list[float]:
    """Means over spans of two seconds that do not overlap."""
    whole = len(values) // SPAN_FRAMES * SPAN_FRAMES
    return list(values[:whole].reshape(-1, SPAN_FRAMES).mean(axis=1)) if whole else []
