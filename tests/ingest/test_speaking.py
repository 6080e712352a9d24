"""Clips are where their face speaks: on made-up tracks, and in a real interview."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkface.clip import NS, runs
from talkface.config import Pack
from talkface.datasets.open import open_dataset
from talkface.datasets.reader import Dataset
from talkface.ingest.cut import CutClip, Cutter, Loudness, silent
from talkface.ingest.speaking import SpeakingCutter
from talkface.speech.turns import claims, owners, turns_of
from tests.conftest import Toolkit
from tests.hearing import rms, sound_of
from tests.ingest.test_cut import Moment, cut, face, pack, spans, steady, streams

Judge = Callable[[CutClip], np.ndarray]


def speaking(settings_: Pack, judge: Judge, loud: Loudness = silent) -> SpeakingCutter:
    return SpeakingCutter(Cutter(settings_, [], source="a.mp4"), settings_.cut, judge, loud, "a.mp4")


def said(**seconds: list[tuple[float, float]]) -> Judge:
    """Claims of tracks ``t1``, ``t2``... : 2 plus the track's number where it speaks, none elsewhere."""

    def judge(clip: CutClip) -> np.ndarray:
        at = clip.pts_ns / NS
        speaks = np.any([(a <= at) & (at < b) for a, b in seconds[f"t{clip.track}"]], axis=0)
        return np.where(speaks, 2.0 + clip.track, -np.inf)

    return judge


def test_a_clip_is_cut_to_where_its_face_speaks() -> None:
    settings_ = pack(max_seconds=8)
    cutter = speaking(settings_, said(t1=[(1, 2), (2.4, 3), (3.08, 3.2), (4, 4.12)]))
    clips = cut(cutter, steady(6, face(1)))
    assert spans(clips) == [(1, 3.2)], "a silence of 0.4 s is bridged, 0.8 s is not"
    assert [(r.reason, r.start_ns / NS, r.end_ns / NS) for r in cutter.rejects] == [
        ("not_speaking", 0, 1),
        ("not_speaking", 3.2, 6),
    ]
    assert [r.value for r in cutter.rejects] == [0, pytest.approx(0.12)]


def test_whose_claim_is_stronger_has_the_moment_and_no_silence_of_another_is_bridged_over_it() -> None:
    settings_ = pack(max_seconds=8)
    cutter = speaking(settings_, said(t1=[(0, 3)], t2=[(1, 1.4), (2.6, 4)]))
    clips = cut(cutter, steady(5, face(1), face(2, x=200)))
    found = {(c.track, *s) for c, s in zip(clips, spans(clips), strict=True)}
    assert found == {(1, 0, 1), (2, 1, 1.4), (1, 1.4, 2.6), (2, 2.6, 4)}


def test_they_take_turns_in_pauses_and_share_no_moment() -> None:
    def loud(times_ns: np.ndarray) -> np.ndarray:
        return np.where(np.isin(times_ns, [int(0.88 * NS), int(2.16 * NS), int(4.04 * NS)]), 1.0, 1e6)

    cutter = speaking(pack(max_seconds=8), said(t1=[(1, 4)], t2=[(2, 3)]), loud)
    clips = cut(cutter, steady(5, face(1), face(2, x=200)))
    assert {(c.track, *s) for c, s in zip(clips, spans(clips), strict=True)} == {
        (1, 0.88, 2.16), (2, 2.16, 3), (1, 3, 4.04)
    }  # fmt: skip


def test_where_one_face_goes_away_soon_after_another_began_to_speak_nothing_is_lost() -> None:
    def loud(times_ns: np.ndarray) -> np.ndarray:
        return np.where(np.isin(times_ns, [int(2.48 * NS), int(2.84 * NS)]), 1.0, 1e6)

    stream = [*steady(3, face(1), face(2, x=200)), *steady(3, face(2, x=200), start_ns=3 * NS)]
    for changes, at in ((2.6, 2.48), (2.7, 2.84)):
        cutter = speaking(pack(max_seconds=8), said(t1=[(0, changes)], t2=[(changes, 6)]), loud)
        clips = cut(cutter, stream)
        assert {(c.track, *s) for c, s in zip(clips, spans(clips), strict=True)} == {(1, 0, at), (2, at, 6)}


def test_a_flicker_of_the_odds_tears_nothing_apart() -> None:
    settings_ = pack(max_seconds=8, min_seconds=1)
    cutter = speaking(settings_, said(t1=[(0, 4)], t2=[(2, 2.04), (2.8, 3.08)]))
    clips = cut(cutter, steady(4, face(1), face(2, x=200)))
    assert [(c.track, *s) for c, s in zip(clips, spans(clips), strict=True)] == [(1, 0, 4)]


def test_a_face_that_is_never_heard_gives_no_clip() -> None:
    cutter = speaking(pack(), lambda clip: np.full(len(clip.pts_ns), np.nan, np.float32))
    assert cut(cutter, steady(1, face(1))) == []
    assert [r.value for r in cutter.rejects] == [0]


def test_a_clip_waits_for_those_that_were_seen_with_it() -> None:
    """The second face stays on; only when its clip closes is it known who spoke in the first one's."""
    cutter = speaking(pack(max_seconds=4), said(t1=[(0, 1)], t2=[(0.4, 3)]))
    stream = [*steady(1, face(1), face(2, x=200)), *steady(2.6, face(2, x=200), start_ns=NS)]
    clips = cut(cutter, stream)
    assert {(c.track, *s) for c, s in zip(clips, spans(clips), strict=True)} == {(1, 0, 0.4), (2, 0.4, 3)}


def test_parts_have_the_clips_own_pictures_and_end_where_the_next_frame_comes() -> None:
    pictures = [np.full((240, 320, 3), i, np.uint8) for i in range(50)]
    stream = [m._replace(picture=p) for m, p in zip(steady(2, face(1)), pictures, strict=True)]
    whole = cut(Cutter(pack(keep_video=True), [], source="a.mp4"), stream)[0]
    part = whole.part(10, 20)
    assert part is not None and part.end_ns == whole.pts_ns[20]
    expected = list(whole.crops())[10:20]
    assert len(list(part.crops())) == 10
    assert all(np.array_equal(a, b) for a, b in zip(part.crops(), expected, strict=True))
    again = part.part(5, 10)
    assert again is not None and np.array_equal(next(again.crops()), expected[5])
    assert replace(part, has_mesh=np.zeros(10, bool)).part(0, 10) is None


@settings(deadline=None, max_examples=60)
@given(streams(), st.integers(0, 2**32 - 1))
def test_any_stream(stream: list[Moment], seed: int) -> None:
    """No two tracks have one moment; each mesh is in one clip or in what was cut away; all clips are speech."""
    settings_ = pack()
    talk = {t: np.random.default_rng(seed + t).normal(0, 1, 60) for t in range(30)}

    def judge(clip: CutClip) -> np.ndarray:
        """Changes every third of a second, with flicker; at times nothing is known."""
        thirds = clip.pts_ns // (NS // 3)
        odds, motion = talk[clip.track][thirds % 60], np.abs(talk[clip.track][(thirds + 7) % 60]) / 30
        odds = np.where(clip.pts_ns % 7 == 0, -odds, odds)
        return claims(np.where(clip.pts_ns % 11 == 0, np.nan, odds), motion)

    def loud(times_ns: np.ndarray) -> np.ndarray:
        return np.random.default_rng(seed).lognormal(0, 3, 997)[times_ns // (NS // 100) % 997]

    cutter = speaking(settings_, judge, loud)
    clips = cut(cutter, stream)
    plain = cut(Cutter(settings_, [], source="a.mp4"), stream)
    assert {(c.track, c.start_ns, c.end_ns) for c in clips} == spoken(plain, judge, loud, settings_)
    for one, other in combinations(clips, 2):
        assert one.end_ns <= other.start_ns or other.end_ns <= one.start_ns
    for clip in clips:
        assert clip.has_mesh[0] and clip.has_mesh[-1]
        assert clip.end_ns - clip.start_ns >= settings_.cut.min_seconds * NS
    away = {
        (int(r.message.split()[1].rstrip(":")), r.start_ns, r.end_ns) for r in cutter.rejects if r.value is not None
    }
    for clip in plain:
        for pts_ns in clip.pts_ns[clip.has_mesh]:
            taken = sum(c.track == clip.track and pts_ns in c.pts_ns for c in clips)
            taken += sum(t == clip.track and a <= pts_ns < b for t, a, b in away)
            assert taken == 1, (pts_ns, clip.track)


def spoken(clips: list[CutClip], judge: Judge, loud: Loudness, settings_: Pack) -> set[tuple[int, int, int]]:
    """Track, start and end of what must be cut out, by the turns of the whole source at once."""
    ends = [-10 * NS, max([c.end_ns for c in clips], default=0) + 10 * NS]
    times = np.unique(np.concatenate([ends, *([*c.pts_ns, c.end_ns] for c in clips)]).astype(np.int64))
    claim = np.full((len(clips), len(times) - 1), np.nan)
    for who, clip in enumerate(clips):
        own = np.where(clip.has_mesh, judge(clip), np.nan)
        for pts_ns, until_ns, value in zip(clip.pts_ns, [*clip.pts_ns[1:], clip.end_ns], own, strict=True):
            claim[who, (pts_ns <= times[:-1]) & (times[:-1] < until_ns)] = value
    places = [np.searchsorted(times, (c.start_ns, c.end_ns)) for c in clips]
    manner = {"flicker_seconds": settings_.cut.min_seconds, "silence_seconds": settings_.cut.silence_seconds}
    seen = [(int(a), ~np.isnan(claim[who, a:b])) for who, (a, b) in enumerate(places)]
    owner = turns_of(owners(claim), seen, times, loud(times), **manner) if clips else np.zeros(0)
    found = set()
    for who, clip in enumerate(clips):
        own = owner[np.searchsorted(times, clip.pts_ns)] == who
        for start, end, speaks in runs(own):
            part = clip.part(start, end) if speaks else None
            if part is not None and part.end_ns - part.start_ns >= settings_.cut.min_seconds * NS:
                found.add((clip.track, part.start_ns, part.end_ns))
    return found


@pytest.fixture(scope="module")
def interview(media: Path, models: Path, toolkit: Toolkit, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Two people who speak in turn, some for a word only, and an actor whose clip has no sound."""
    folder = tmp_path_factory.mktemp("speaking")
    silent = min((media / "emotional").glob("dreamtalk*"))
    inputs = (media / "talking" / "VisualVoice__interview.mp4", silent)
    (folder / "config.toml").write_text("[pack.cut]\nmin_seconds = 0.4\n")
    how = ("--config", folder / "config.toml", "--speaking", "--with", "arkit", "--models", models, "--offline")
    toolkit("ingest", *inputs, "--out", folder / "dataset", *how, "--workers", "0", code=3)
    return open_dataset(str(folder / "dataset"))


def test_in_an_interview_no_moment_is_in_two_clips(interview: Dataset) -> None:
    clips = sorted(interview.clips.to_pylist(), key=lambda c: c["start_ns"])
    assert len({c["track"] for c in clips}) == 2
    assert all(a["end_ns"] <= b["start_ns"] for a, b in pairwise(clips))
    assert sum(c["duration"] for c in clips) > 10
    assert min(c["speaking_share"] for c in clips) > 0.5


def test_in_an_interview_they_take_turns_in_pauses(interview: Dataset) -> None:
    """From nine seconds on they speak in turn: each word has one owner."""
    clips = sorted(interview.clips.to_pylist(), key=lambda c: c["start_ns"])
    changes = [(a, b) for a, b in pairwise(clips) if a["track"] != b["track"] and b["start_ns"] > 9 * NS]
    assert len(changes) >= 3
    sounds = {clip["key"]: sound_of(interview, clip["key"]) for clip in clips}
    usual = [rms(s[i : i + 640]) for s in sounds.values() for i in range(0, len(s), 640)]
    for before, after in changes:
        assert after["start_ns"] - before["end_ns"] <= NS // 2
        between = np.concatenate([sounds[before["key"]][-320:], sounds[after["key"]][:320]])
        assert rms(between) < np.quantile(usual, 0.2)


def test_in_an_interview_each_word_is_its_speakers(interview: Dataset) -> None:
    """Two words that the network alone would both give to the first, who is still while the second says one."""

    def tracks(start: float, end: float) -> set[int]:
        return {
            c["track"] for c in interview.clips.to_pylist() if c["start_ns"] < end * NS and start * NS < c["end_ns"]
        }

    assert [tracks(9.92, 10.32), tracks(10.4, 10.88), tracks(11, 15.9), tracks(16.1, 17.2)] == [{2}, {1}, {2}, {1}]


def test_what_was_cut_away_is_told(interview: Dataset, toolkit: Toolkit) -> None:
    story = toolkit("why", interview.url, "VisualVoice__interview.mp4").stdout
    assert "not_speaking" in story
    rejects = [r for r in interview.table("rejects").to_pylist() if "VisualVoice" not in r["source"]]
    assert {r["reason"] for r in rejects} == {"not_speaking"}, "no sound, no clip"


def test_pictures_are_needed(tmp_path: Path, media: Path, models: Path, toolkit: Toolkit) -> None:
    source = media / "talking" / "VisualVoice__interview.mp4"
    how = ("--speaking", "--no-video", "--models", models, "--offline")
    result = toolkit("ingest", source, "--out", tmp_path / "dataset", *how, code=2)
    assert "speaker looks at the clips' pictures" in result.stderr.replace("\n", " ")
