"""Train the model of the sync annotator, and judge it on people that it has not seen.

    toolkit ingest CLIPS/talking CLIPS/emotional --out DATASET --with landmarks,voice
    python scripts/train_sync.py --dataset DATASET --manifest CLIPS/MANIFEST.tsv --out talkface/annotate/data

MANIFEST.tsv has columns ``file`` and ``repository_licence``: clips under MIT or Apache-2.0 train. Every figure that is
printed comes from a model that has not seen the person in the clip, people take turns in being left out, but for the
three coefficients of the confidence, which are fitted on all pairs that are printed. The model that is written has seen
all who may train. Clips whose sound is off would teach the wrong thing: first a model of other
people finds each offset, clips that fit none are left out, and the rest train with their sound in place.
One core needs a minute or two. Same dataset, same weights.
"""

import argparse
import csv
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from scipy.optimize import minimize
from scipy.stats import rankdata

from talkface.annotate._sync import (
    HZ,
    LAGS,
    Model,
    Offset,
    curve,
    evidence,
    fit,
    mel_rows,
    mouth_rows,
    offset_of,
    projections,
)
from talkface.annotate.mel import log_mel
from talkface.datasets.open import open_dataset
from talkface.datasets.reader import Dataset
from talkface.vocab import SAMPLE_RATE

LICENCES = ("MIT", "Apache-2.0")
SAME_PERSON = {"M003": r"_M003_", "M030": r"_M030_", "W036": r"_W036_", "feifeili": r"feifeili"}
"""Pattern of the clips that show one person; any other clip is a person of its own."""
SKIPPED = r"VisualVoice"
"""Two people who talk in turn: whose the sound is changes within a clip."""
LEAST_SPEECH, MOST_SILENCE = 0.2, 0.9
IN_PLACE = r"EDTalk__pose_source2|German_20s|LatentSync__demo3|Audio-driven.*__31"
"""Clips that are known to be in sync within two frames."""
FRAME_MS: Final = 40
FARTHEST = 12
"""Rows by which a clip's sound may be off and the clip still train."""
FIRST_ODDS: Final = np.array([4.9, 0.35, -9.2])
"""Confidence of the first round, before any has been fitted."""


@dataclass(frozen=True)
class Take:
    """A clip's mouth and sound as the model sees them."""

    source: str
    trains: bool
    mouth: np.ndarray
    mel: np.ndarray
    sound: np.ndarray

    @property
    def person(self) -> str:
        """Who it shows."""
        return next((who for who, pattern in SAME_PERSON.items() if re.search(pattern, self.source)), self.source)

    def moved(self, rows: int) -> "Take":
        """With its sound this many rows earlier."""
        n = min(len(self.mouth), len(self.mel)) - abs(rows)
        mouth, mel = self.mouth[max(0, -rows) :][:n], self.mel[max(0, rows) :][:n]
        return replace(self, mouth=mouth, mel=mel)


def takes_of(dataset: Dataset, licences: Mapping[str, str]) -> list[Take]:
    """All clips with speech."""
    takes = []
    for clip in dataset.clips.to_pylist():
        talks = clip["has_sound"] and clip["speech_share"] >= LEAST_SPEECH and clip["silence_share"] <= MOST_SILENCE
        if not talks or re.search(SKIPPED, clip["source"]):
            continue
        whole = dataset.span(clip["key"], 0, dataset.duration_ns(clip["key"]), ["lm"], sound=True)
        mel = mel_rows(log_mel(whole["sound"]))
        mouth = mouth_rows(whole["lm"], whole["pts"], len(mel))
        if mouth is not None:
            takes.append(Take(clip["source"], licences.get(clip["source"]) in LICENCES, mouth, mel, whole["sound"]))
    return takes


def trained(takes: Sequence[Take], odds: np.ndarray = FIRST_ODDS) -> Model:
    """A model of these clips; each person counts by the root of their time."""
    time: dict[str, float] = defaultdict(float)
    for take in takes:
        time[take.person] += len(take.mouth)
    weights = [1 / np.sqrt(time[take.person]) for take in takes]
    return Model(*fit([t.mouth for t in takes], [t.mel for t in takes], weights), odds=odds)


def in_place(takes: Sequence[Take], folds: int = 5) -> list[Take]:
    """Those whose sound fits by a model of other people, moved to where it fits."""
    people = sorted({take.person for take in takes})
    found = []
    for fold in range(folds):
        left_out = people[fold::folds]
        model = trained([take for take in takes if take.person not in left_out])
        for take in (t for t in takes if t.person in left_out):
            offset = judged(model, take, take)
            rows = round(offset.ms * HZ / 1000)
            if model.confidence(offset) > 0 and abs(rows) <= FARTHEST:
                found.append(take.moved(rows))
    return found


def judged(model: Model, picture: Take, sound: Take) -> Offset:
    """Where one clip's sound fits under another's picture."""
    heights = curve(*projections(model, picture.mouth, sound.mel), model.gains)
    return offset_of(heights, min(len(picture.mouth), len(sound.mel)))


def cross_validated(takes: Sequence[Take]) -> dict[str, Model]:
    """For each person a model of all the others that may train."""
    may = [take for take in takes if take.trains]
    people = sorted({take.person for take in takes})
    return {who: trained(in_place([t for t in may if t.person != who])) for who in people}


def odds_of(own: Sequence[Offset], foreign: Sequence[Offset]) -> np.ndarray:
    """Coefficients of the log-odds, both kinds counted alike (logistic regression)."""
    x = np.array([evidence(o) for o in [*own, *foreign]])
    sign = np.repeat([1, -1], [len(own), len(foreign)])
    weight = np.repeat([1 / len(own), 1 / len(foreign)], [len(own), len(foreign)])
    return minimize(lambda c: weight @ np.logaddexp(0, -sign * (x @ c)) + 1e-4 * c @ c, np.zeros(3)).x


def auc(own: Sequence[float], foreign: Sequence[float]) -> float:
    """Share of pairs in which a clip's own sound scores above a foreign one."""
    ranks = rankdata([*own, *foreign])[: len(own)]
    return float((ranks.sum() - len(own) * (len(own) + 1) / 2) / len(own) / len(foreign))


def joined(takes: Sequence[Take], model: Model, move: Callable[[Take], Take] = lambda take: take) -> float:
    """Offset in ms of a source from the curves of all its clips."""
    heights = np.zeros(len(LAGS))
    for take in map(move, takes):
        heights += curve(*projections(model, take.mouth, take.mel), model.gains) * len(take.mouth)
    return offset_of(heights, 1).ms


def late(take: Take, frames: int) -> Take:
    """With its sound later by so many frames at 25 a second, silence where there is none."""
    by = frames * FRAME_MS * SAMPLE_RATE // 1000
    sound = np.zeros_like(take.sound)
    sound[max(0, by) : len(sound) + min(0, by)] = take.sound[max(0, -by) : len(sound) - max(0, by)]
    return replace(take, mel=mel_rows(log_mel(sound)))


def report(takes: Sequence[Take], models: Mapping[str, Model], odds: np.ndarray) -> None:
    """Each clip; the known sources whole, with their sound moved; own against foreign sound."""
    print(f"{'clip':44} {'s':>5} {'offset ms':>9} {'z':>5} {'margin':>6} {'confidence':>10}")
    for take in takes:
        offset = judged(models[take.person], take, take)
        said = f"{offset.ms:9.0f} {offset.z:5.1f} {offset.margin:6.2f} {odds @ evidence(offset):10.1f}"
        print(f"{take.source[:44]:44} {len(take.mouth) / HZ:5.1f} {said}")
    print("\nsources known to be in place, all their clips together, by a model of other people")
    for source in sorted({t.source for t in takes if re.search(IN_PLACE, t.source)}):
        clips = [t for t in takes if t.source == source]
        model = models[clips[0].person]
        whole = joined(clips, model)
        errors = [joined(clips, model, lambda t, k=k: late(t, k)) - whole - k * FRAME_MS for k in range(-10, 11)]
        singly = [
            judged(model, late(t, k), late(t, k)).ms - judged(model, t, t).ms - k * FRAME_MS
            for t in clips
            for k in (-10, -5, 5, 10)
        ]
        print(
            f"{source[:44]:44} offset {whole / FRAME_MS:5.1f} frames; sound moved by -10 to 10: follows within "
            f"{max(map(abs, errors)) / FRAME_MS:.2f}, {np.mean(np.abs(singly) <= FRAME_MS):.0%} of its clips within 1"
        )


def pairs(takes: Sequence[Take], models: Mapping[str, Model]) -> tuple[list[Offset], list[Offset]]:
    """Every picture over its own sound, and over every other's."""
    own = [judged(models[t.person], t, t) for t in takes]
    foreign = [judged(models[a.person], a, b) for a in takes for b in takes if a is not b]
    return own, foreign


def main() -> None:
    """Train, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", nargs="+", required=True, help="with lm, sound and the scores of voice")
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="folder for sync.npz; without it only the figures are printed")
    options = parser.parse_args()
    with options.manifest.open(newline="") as file:
        licences = {Path(row["file"]).name: row["repository_licence"] for row in csv.DictReader(file, delimiter="\t")}
    takes = [take for url in options.dataset for take in takes_of(open_dataset(url), licences)]
    models = cross_validated(takes)
    own, foreign = pairs(takes, models)
    odds = odds_of(own, foreign)
    report(takes, models, odds)
    scores = [[float(odds @ evidence(o)) for o in offsets] for offsets in (own, foreign)]
    print(
        f"\n{len(takes)} clips of {len(models)} people, {len(foreign)} pairs with foreign sound: "
        f"AUC of the confidence {auc(*scores):.3f}; above 0: {np.mean(np.array(scores[0]) > 0):.0%} of own, "
        f"{np.mean(np.array(scores[1]) > 0):.0%} of foreign"
    )
    if options.out is not None:
        model = trained(in_place([take for take in takes if take.trains]), odds)
        arrays = {name: np.asarray(value, np.float32) for name, value in vars(model).items()}
        np.savez(options.out / "sync.npz", **arrays)
        print(f"written: {options.out / 'sync.npz'}")


if __name__ == "__main__":
    main()
