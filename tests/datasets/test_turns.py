"""Turns of a source whose faces overlap, against all of their log-odds side by side."""

import dataclasses
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from talkface.annotate._turns import owners, runs
from talkface.annotate.speaker import Annotator
from talkface.clip import NS
from talkface.datasets.build import build
from talkface.datasets.reader import Dataset
from talkface.datasets.turns import STEP_NS, Turn, steadied, turns
from talkface.store import PACKS, Folder, npy, write_pack
from tests.datasets.conftest import clip, make_plan

STARTS_NS = (0, 1_010_000_000, 1_010_000_000, 2_333_000_000, 9_000_000_000)
FRAMES = (60, 100, 40, 100, 1)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Two sources of five clips each, most of which overlap; the last is one frame after a gap."""
    folder, rng = Folder(tmp_path_factory.mktemp("faces")), np.random.default_rng(0)
    plan = make_plan(folder, 2)
    for used in plan.packs:
        about: dict[str, Any] = {"clips": [], "rejects": []}
        with write_pack(Folder(f"{folder.url}/{PACKS}"), used.name, about) as pack:
            for track, (start, frames) in enumerate(zip(STARTS_NS, FRAMES, strict=True)):
                record, members = clip(str(track), frames, {"coverage": 1.0}, track)
                record |= {"track": track, "start_ns": start, "end_ns": start + record["end_ns"]}
                about["clips"].append(record)
                pack.add(record["key"], members | {"talk.npy": npy(words(frames, rng))})
    build(folder, dataclasses.replace(plan, columns=(*plan.columns, *Annotator.columns)))
    return Dataset(folder.url)


def words(frames: int, rng: np.random.Generator) -> np.ndarray:
    """Log-odds that change every ten frames and flicker between, NaN in a tenth of the frames."""
    talk = np.repeat(rng.normal(0, 2, frames // 10 + 1), 10)[:frames] + rng.normal(0, 0.5, frames)
    talk[rng.random(frames) < 0.1] = np.nan
    return talk.astype(np.float32)


@pytest.mark.parametrize("min_seconds", [0.0, 0.3])
def test_turns_are_those_of_all_log_odds_side_by_side(faces: Dataset, min_seconds: float) -> None:
    clips = [c for c in faces.clips.to_pylist() if c["source"] == "s1.mp4"]
    times = np.arange(0, max(c["end_ns"] for c in clips), STEP_NS)
    shown = [faces.column(c["key"], "talk", times - c["start_ns"]) for c in clips]
    talk = np.stack([np.where(times < c["end_ns"], odds, np.nan) for c, odds in zip(clips, shown, strict=True)])
    assert {*owners(talk).tolist()} >= {-1, 0, 1, 2, 3}
    owner = steadied(owners(talk), round(min_seconds * NS / STEP_NS))
    assert turns(faces, "s1.mp4", min_seconds=min_seconds) == [
        Turn(c["key"], start * STEP_NS - c["start_ns"], min(end * STEP_NS, c["end_ns"]) - c["start_ns"])
        for start, end, c in ((start, end, clips[who]) for start, end, who in runs(owner) if who >= 0)
    ]


def test_no_turn_goes_beyond_its_clip_and_none_overlap(faces: Dataset) -> None:
    starts = {c["key"]: c["start_ns"] for c in faces.clips.to_pylist()}
    found = turns(faces, "s0.mp4") + turns(faces, "s1.mp4")
    assert all(0 <= turn.start_ns < turn.end_ns <= faces.duration_ns(turn.key) for turn in found)
    times = [(starts[turn.key] + turn.start_ns, starts[turn.key] + turn.end_ns) for turn in turns(faces, "s0.mp4")]
    assert all(before[1] <= after[0] for before, after in pairwise(times))


def test_of_a_source_without_clips_there_are_no_turns(faces: Dataset) -> None:
    assert turns(faces, "s7.mp4") == []
