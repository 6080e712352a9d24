"""Turns of a source whose faces overlap, against all of their log-odds side by side."""

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from talkface.annotate.speaker import Annotator
from talkface.clip import NS, ns_to_samples, runs
from talkface.datasets.build.job import build
from talkface.datasets.reader import Dataset
from talkface.datasets.turns import STEP_NS, Turn, turns
from talkface.errors import ConfigError
from talkface.media import encode_flac
from talkface.speech.loudness import loudness
from talkface.speech.turns import claims, owners, turns_of
from talkface.store import PACKS, Folder, npy, write_pack
from talkface.vocab import SAMPLE_RATE
from tests.datasets.conftest import clip, make_plan

STARTS_NS = (0, 1_010_000_000, 1_010_000_000, 2_333_000_000, 9_000_000_000)
SOURCES = 30
FRAMES = (60, 100, 40, 100, 1)
WORDS = np.tile(np.repeat([3000, 3000, 3], SAMPLE_RATE // 10), 34)
SOUND = (WORDS * np.random.default_rng(1).normal(0, 1, len(WORDS))).astype(np.int16)
"""Words of 0.2 s with pauses of 0.1 s between."""


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return made(tmp_path_factory.mktemp("faces"), "talk", "lip_motion")


def made(path: Path, *names: str) -> Dataset:
    """Some sources of five clips each, most of which overlap; the last is one frame after a gap."""
    folder, rng = Folder(path), np.random.default_rng(0)
    plan = make_plan(folder, SOURCES)
    for used in plan.packs:
        about: dict[str, Any] = {"clips": [], "rejects": []}
        with write_pack(Folder(f"{folder.url}/{PACKS}"), used.name, about) as pack:
            for track, (start, frames) in enumerate(zip(STARTS_NS, FRAMES, strict=True)):
                record, members = clip(str(track), frames, {"coverage": 1.0}, track)
                record |= {"track": track, "start_ns": start, "end_ns": start + record["end_ns"]}
                about["clips"].append(record)
                sound = SOUND[ns_to_samples(start) : ns_to_samples(record["end_ns"])]
                columns = {"talk": words(frames, rng), "lip_motion": motion(frames, rng)}
                members |= {f"{name}.npy": npy(columns[name]) for name in names}
                pack.add(record["key"], members | {"flac": encode_flac(sound)})
    specs = [spec for spec in Annotator.columns if spec.name in names]
    build(folder, dataclasses.replace(plan, columns=(*plan.columns, *specs)))
    return Dataset(folder.url)


def words(frames: int, rng: np.random.Generator) -> np.ndarray:
    """Log-odds that change every ten frames and flicker between, NaN in one of fifty."""
    talk = np.repeat(rng.normal(0, 2, frames // 10 + 1), 10)[:frames] + rng.normal(0, 0.5, frames)
    talk[rng.random(frames) < 0.02] = np.nan
    return talk.astype(np.float32)


def motion(frames: int, rng: np.random.Generator) -> np.ndarray:
    """A mouth that moves or rests for twenty frames on end."""
    return np.repeat(rng.uniform(0, 0.04, frames // 20 + 1), 20)[:frames].astype(np.float32)


@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_turns_are_those_of_all_log_odds_side_by_side(faces: Dataset, seconds: float) -> None:
    clips = [c for c in faces.clips.to_pylist() if c["source"] == "s1.mp4"]
    end_ns = max(c["end_ns"] for c in clips)
    times = np.arange(0, end_ns + STEP_NS, STEP_NS)
    shown = [
        [faces.column(c["key"], name, times[:-1] - c["start_ns"]) for name in ("talk", "lip_motion")] for c in clips
    ]
    claim = np.stack(
        [np.where(times[:-1] < c["end_ns"], claims(*both), np.nan) for c, both in zip(clips, shown, strict=True)]
    )
    assert {*owners(claim).tolist()} >= {-1, 0, 1, 2, 3}
    places = [np.searchsorted(times, (c["start_ns"], c["end_ns"])) for c in clips]
    loud = loudness(SOUND[: ns_to_samples(end_ns)], 0, np.minimum(times, end_ns))
    seen = [(int(a), ~np.isnan(own[a:b])) for own, (a, b) in zip(claim, places, strict=True)]
    owner = turns_of(owners(claim), seen, times, loud, flicker_seconds=seconds, silence_seconds=0.3)
    assert turns(faces, "s1.mp4", min_seconds=seconds) == [
        Turn(c["key"], start * STEP_NS - c["start_ns"], min(end * STEP_NS, c["end_ns"]) - c["start_ns"])
        for start, end, c in ((start, end, clips[who]) for start, end, who in runs(owner) if who >= 0)
        if min(end * STEP_NS, c["end_ns"]) - start * STEP_NS >= seconds * NS
    ]


def test_no_turn_goes_beyond_its_clip_and_none_overlap(faces: Dataset) -> None:
    starts = {c["key"]: c["start_ns"] for c in faces.clips.to_pylist()}
    found = turns(faces, "s0.mp4") + turns(faces, "s1.mp4")
    assert all(0 <= turn.start_ns < turn.end_ns <= faces.duration_ns(turn.key) for turn in found)
    times = [(starts[turn.key] + turn.start_ns, starts[turn.key] + turn.end_ns) for turn in turns(faces, "s0.mp4")]
    assert all(before[1] <= after[0] for before, after in pairwise(times))


def test_of_a_source_without_clips_there_are_no_turns(faces: Dataset) -> None:
    assert turns(faces, "none.mp4") == []


def test_where_one_face_follows_another_the_sound_is_quiet(faces: Dataset) -> None:
    """Of the changes between two faces that are both seen half a second before and after, most lie in a pause.

    A third of the sound is pauses. A change after few words, or near a gap in what is seen, may find none."""
    clips = {c["key"]: c for c in faces.clips.to_pylist()}
    levels = []
    found = [turn for i in range(SOURCES) for turn in turns(faces, f"s{i}.mp4", min_seconds=0.3)]
    for before, after in pairwise(found):
        at = clips[before.key]["start_ns"] + before.end_ns
        seen = all(clips[t.key]["start_ns"] + NS // 2 < at < clips[t.key]["end_ns"] - NS // 2 for t in (before, after))
        if seen and before.key != after.key and at == clips[after.key]["start_ns"] + after.start_ns:
            around = SOUND[ns_to_samples(at) - 200 : ns_to_samples(at) + 200]
            levels.append(float(np.abs(around).mean()))
    assert len(levels) >= 10
    assert np.mean(np.array(levels) < 300) > 0.7


def test_without_lip_motion_log_odds_alone_tell_and_without_them_nothing_does(faces: Dataset, tmp_path: Path) -> None:
    """A dataset that was made before there was lip motion."""
    before = made(tmp_path / "before", "talk")
    assert turns(before, "s0.mp4") and turns(before, "s0.mp4") != turns(faces, "s0.mp4")
    with pytest.raises(ConfigError, match=r"no column 'talk'.* --with .*speaker"):
        turns(made(tmp_path / "never"), "s0.mp4")
