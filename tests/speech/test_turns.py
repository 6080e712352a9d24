"""Turns change in pauses: on made-up sound and owners."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from talkface.clip import NS, runs
from talkface.speech.loudness import loudness, quiet
from talkface.speech.turns import MOVES, REACH_NS, STILL, claims, context_ns, owners, turns_of
from talkface.vocab import SAMPLE_RATE

STEP = NS // 25


def seen(*places: tuple[int, int]) -> list[tuple[int, np.ndarray]]:
    return [(first, np.ones(after - first, bool)) for first, after in places]


def turns(owner: list[int], loud: list[float], *places: tuple[int, int]) -> list[int]:
    everywhere = [(0, len(owner))] * (max(owner) + 1)
    times = np.arange(len(loud)) * STEP
    manner = {"flicker_seconds": 0.3, "silence_seconds": 0.5}
    return turns_of(np.array(owner), seen(*places or everywhere), times, np.array(loud, float), **manner).tolist()


def loud_but(quiet: dict[int, float], n: int = 60) -> list[float]:
    return [quiet.get(i, 1e6) for i in range(n + 1)]


def test_a_still_mouth_counts_against_its_face() -> None:
    moves, rests, unknown = 2 * MOVES, MOVES / 2, np.nan

    def owner(*faces: tuple[float, float]) -> int:
        return int(owners(np.stack([claims(np.array([talk], float), np.array([motion])) for talk, motion in faces]))[0])

    assert owner((2.9, rests), (0.1, moves)) == 1
    assert owner((STILL + 0.2, rests), (0.1, moves)) == 0, "in a pause the network may still be sure"
    assert owner((2.9, rests), (-0.1, moves)) == owner((2.9, rests), (np.nan, moves)) == 0, "it must be for the other"
    assert owner((9, moves), (3, moves)) == owner((9, rests), (3, rests)) == 0
    assert owner((9, unknown), (3, unknown)) == owner((2.9, unknown), (0.1, moves)) == 0
    assert owner((0.1, rests), (np.nan, moves)) == 0, "who is alone speaks with a still mouth, too"
    assert owner((np.nan, moves), (-3, moves), (0, moves)) == -1


@given(st.lists(st.tuples(st.floats(-50, 50, width=32), st.floats(0, 1, width=32) | st.just(np.nan)), min_size=1))
def test_claims_are_of_those_whose_odds_are_for_it(faces: list[tuple[float, float]]) -> None:
    talk, motion = np.array(faces, np.float32).T
    claim = claims(talk, motion)
    assert ((claim > -np.inf) == (talk > 0)).all()
    assert (claim[(talk > 0) & ~(motion < MOVES)] == talk[(talk > 0) & ~(motion < MOVES)]).all()


def test_a_change_goes_to_the_pause_near_it() -> None:
    owner = [0] * 30 + [1] * 30
    assert turns(owner, loud_but({27: 10})) == [0] * 27 + [1] * 33
    assert turns(owner, loud_but({35: 10})) == [0] * 35 + [1] * 25
    assert turns(owner, loud_but({23: 10, 37: 10})) == owner, "0.28 s is too far"
    assert turns(owner, loud_but({26: 10, 32: 19, 35: 10})) == [0] * 32 + [1] * 28, "the nearest that is as quiet"
    assert turns(owner, loud_but({26: 10, 32: 21})) == [0] * 26 + [1] * 34


def test_speech_begins_and_ends_in_pauses_too() -> None:
    owner = [-1] * 10 + [0] * 30 + [-1] * 20
    assert turns(owner, loud_but({8: 1, 43: 1})) == [-1] * 8 + [0] * 35 + [-1] * 17


def test_to_the_end_of_a_clip_is_to_its_end() -> None:
    owner = [-1] * 10 + [0] * 30 + [-1] * 20
    assert turns(owner, loud_but({12: 1, 38: 1}), (10, 40)) == owner
    assert turns(owner, loud_but({12: 1, 38: 1}), (9, 41)) == [-1] * 12 + [0] * 26 + [-1] * 22


def test_nobody_gets_a_moment_in_which_they_are_not_seen() -> None:
    owner = [0] * 30 + [1] * 30
    assert turns(owner, loud_but({27: 10}), (0, 60), (28, 60)) == owner
    assert turns(owner, loud_but({33: 10}), (0, 32), (0, 60)) == owner


def test_of_a_short_turn_half_stays() -> None:
    owner = [0] * 20 + [1] * 8 + [0] * 32
    assert turns(owner, loud_but({24: 1})) == owner
    assert turns(owner, loud_but({22: 1, 26: 1})) == [0] * 22 + [1] * 4 + [0] * 34


def test_short_silences_are_theirs_who_speak_on_both_sides() -> None:
    owner = [0] * 10 + [-1] * 12 + [0] * 10 + [-1] * 13 + [0] * 10 + [-1] * 3 + [1] * 10
    assert turns(owner, [0.0] * 69) == [0] * 32 + [-1] * 13 + [0] * 10 + [-1] * 3 + [1] * 10


def test_flicker_is_theirs_who_speak_around_it() -> None:
    quiet_always = [0.0] * 200
    for flicker in ([1] * 7, [1, 1, 0, 0, 1, 1], [-1, -1, 1, 1, -1, -1, -1], [1, -1, 2, -1, 1], [1, 0, 0] * 20):
        assert turns([0] * 20 + flicker + [0] * 20, quiet_always[: 41 + len(flicker)]) == [0] * (40 + len(flicker))
    owner = [0] * 20 + [1] * 8 + [0] * 20
    assert turns(owner, quiet_always[:49]) == owner, "0.32 s are a word"
    owner = [0] * 20 + [1] * 4 + [2] * 20
    assert turns(owner, quiet_always[:45]) == [0] * 22 + [2] * 22, "between two others it is both's"
    word = [0] * 20 + [1] * 5 + [-1] + [1] * 5 + [0] * 20
    assert turns(word, quiet_always[:52]) == [0] * 20 + [1] * 11 + [0] * 20, "a word with a moment's silence in it"
    alone = [-1] * 20 + [1] * 3 + [-1] * 20
    assert turns(alone, quiet_always[:44]) == alone


def test_no_long_silence_hides_anothers_speech() -> None:
    other = ([1] * 7 + [-1]) * 9
    manner = {"flicker_seconds": 0.3, "silence_seconds": 4.0}
    owner, times = np.array([0] * 20 + other + [0] * 20), np.arange(113) * STEP
    found = turns_of(owner, seen((0, 112), (0, 112)), times, np.zeros(113), **manner).tolist()
    assert found == [0] * 20 + [1] * 71 + [-1] + [0] * 20


def test_nobody_has_another_s_flicker_while_they_are_not_seen() -> None:
    owner = [0] * 20 + [1] * 3 + [0] * 20
    times, manner = np.arange(44) * STEP, {"flicker_seconds": 0.3, "silence_seconds": 0.0}
    blinks = np.ones(43, bool)
    blinks[20:23] = False
    found = turns_of(np.array(owner), [(0, blinks), (0, np.ones(43, bool))], times, np.zeros(44), **manner)
    assert found.tolist() == owner


@given(st.lists(st.tuples(st.integers(-1, 2), st.integers(1, 40)), min_size=1, max_size=30), st.integers(0, 2**32 - 1))
def test_what_is_far_away_changes_nothing(stretches: list[tuple[int, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    owner = np.concatenate([np.full(n, who) for who, n in stretches])
    times = np.cumsum(rng.choice([STEP, STEP // 3, 3 * STEP], len(owner) + 1))
    loud = rng.lognormal(0, 3, len(times))
    faces = [(0, rng.random(len(owner)) < 0.9) for _ in range(3)]
    for who, (_, is_seen) in enumerate(faces):
        is_seen[owner == who] = True
    manner = {"flicker_seconds": 0.3, "silence_seconds": 0.4}
    whole = turns_of(owner, faces, times, loud, **manner)
    first, after = np.sort(rng.integers(0, len(owner) + 1, 2))
    low, high = np.searchsorted(times, times[[first, after]] + np.array([-1, 1]) * context_ns(**manner))
    high = min(high, len(owner))
    around = [(0, is_seen[low:high]) for _, is_seen in faces]
    part = turns_of(owner[low:high], around, times[low : high + 1], loud[low : high + 1], **manner)
    assert part[first - low : after - low].tolist() == whole[first:after].tolist()


@given(
    st.lists(st.tuples(st.integers(-1, 2), st.integers(1, 30)), min_size=1, max_size=8),
    st.integers(0, 2**32 - 1),
)
def test_any_owners(stretches: list[tuple[int, int]], seed: int) -> None:
    """Changes keep their order and number, are moved no further than allowed, and to nothing louder."""
    owner = np.concatenate([np.full(n, who) for who, n in stretches])
    times, loud = np.arange(len(owner) + 1) * STEP, np.random.default_rng(seed).lognormal(0, 3, len(owner) + 1)
    faces = seen(*[(0, len(owner))] * 3)
    found = turns_of(owner, faces, times, loud, flicker_seconds=0, silence_seconds=0)
    assert [who for *_, who in runs(found)] == [who for *_, who in runs(owner)]
    for (_, was, _), (_, at, _) in list(zip(runs(owner), runs(found), strict=True))[:-1]:
        assert abs(times[at] - times[was]) <= REACH_NS
        assert loud[at] <= loud[was]
    for (a, b, _), (c, d, _) in zip(runs(owner), runs(found), strict=True):
        assert d - c >= (b - a) / 2
    assert all(before[1] == after[0] for before, after in pairwise(runs(found)))


def test_loudness_is_the_power_around_a_moment() -> None:
    sound = np.zeros(SAMPLE_RATE, np.int16)
    sound[4000:8000] = 100
    times = 5 * NS + np.array([0, 0.25, 0.3, 0.5, 1.0, 3.0]) * NS
    found = loudness(sound, 5 * NS, times.astype(np.int64))
    assert found == pytest.approx([0, 5000, 10000, 5000, 0, 0])
    assert loudness(np.full(16000, 7, np.int16), 0, np.array([0, NS])) == pytest.approx([49, 49]), "only what there is"


def test_the_quietest_are_those_within_3_db() -> None:
    assert quiet(np.array([5.0, 2.0, 1.0, 2.1, 1.9])).tolist() == [False, True, True, False, True]
    assert quiet(np.zeros(3)).all()
