"""Columns at other times than their own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from talkface.annotate.head import Annotator as Head
from talkface.clip import ColumnSpec
from talkface.datasets.resample import quaternion_at, resample, resample_column, sound_clock

HEAD = Head.columns[0]
few = settings(deadline=None, max_examples=40)


@st.composite
def clocks(draw: st.DrawFn) -> np.ndarray:
    """Strictly rising times of a variable frame rate, from 0."""
    steps = draw(st.lists(st.integers(1_000_000, 200_000_000), min_size=1, max_size=30))
    return np.cumsum([0, *steps]).astype(np.int64)


def times_within(clock: np.ndarray, seed: int, n: int = 50) -> np.ndarray:
    times = np.random.default_rng(seed).integers(0, clock[-1], n, endpoint=True)
    return np.concatenate([times, clock])


@few
@given(clocks(), st.integers(0, 99))
def test_linear_is_exact_on_lines(clock: np.ndarray, seed: int) -> None:
    slope, offset = np.array([3.0, -0.5]), np.array([1.0, 2.0])
    times = times_within(clock, seed)
    found = resample(clock[:, None] / 1e9 * slope + offset, clock, times)
    assert np.allclose(found, times[:, None] / 1e9 * slope + offset, rtol=0, atol=1e-12)


@few
@given(clocks(), st.integers(0, 99))
def test_slerp_is_scipys(clock: np.ndarray, seed: int) -> None:
    turns = Rotation.random(len(clock), random_state=seed)
    times = times_within(clock, seed)
    wxyz = turns.as_quat()[:, [3, 0, 1, 2]] * np.random.default_rng(seed).choice([-1, 1], len(clock))[:, None]
    found = resample(wxyz, clock, times, "slerp")
    expected = Slerp(clock / 1e9, turns)(times / 1e9)
    off = (Rotation.from_quat(found[:, [1, 2, 3, 0]]) * expected.inv()).magnitude()
    assert off.max() < 1e-6
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-12)


def test_slerp_of_rotations_that_hardly_differ() -> None:
    clock = np.array([0, 100], np.int64)
    for angle in (0.0, 1e-9, 1e-5):
        ends = Rotation.from_rotvec([[0, 0, 0], [0, angle, 0]]).as_quat()[:, [3, 0, 1, 2]]
        found = resample(ends, clock, np.array([25]), "slerp")
        assert np.allclose(found, [[np.cos(angle / 8), 0, np.sin(angle / 8), 0]], rtol=1e-9, atol=3e-16)


@few
@given(clocks(), st.integers(0, 99), st.sampled_from(["linear", "nearest", "slerp"]))
def test_missing_reaches_its_neighbours_and_no_further(clock: np.ndarray, seed: int, how: str) -> None:
    rng = np.random.default_rng(seed)
    lost = rng.random(len(clock)) < 0.3
    values = rng.standard_normal((len(clock), 4))
    values[lost, 0] = np.nan
    times = times_within(clock, seed)
    found = resample(values, clock, times, how)  # type: ignore[arg-type]
    for time, row in zip(times, found, strict=True):
        low = int(np.searchsorted(clock, time, side="right")) - 1
        on_a_row = clock[low] == time
        ends = [low] if on_a_row else [low, low + 1]
        if how == "nearest" and not on_a_row:
            ends = [low + int(time - clock[low] > clock[low + 1] - time)]
        assert np.isnan(row[0]) == lost[ends].any()
        others_too = how == "slerp" and not on_a_row and lost[ends].any()
        assert np.isnan(row[1:]).all() == others_too


@few
@given(clocks(), st.sampled_from(["linear", "nearest", "slerp"]))
def test_rows_at_their_own_times_are_themselves(clock: np.ndarray, how: str) -> None:
    values = np.random.default_rng(0).standard_normal((len(clock), 4)).astype(np.float32)
    assert (resample(values, clock, clock, how) == values).all()  # type: ignore[arg-type]


def test_ends_hold_for_a_step_or_as_long_as_told() -> None:
    clock, values = np.array([0, 10, 20], np.int64), np.array([1.0, 2.0, 3.0])
    times = np.array([-11, -10, 20, 30, 31])
    assert np.array_equal(resample(values, clock, times), [np.nan, 1, 3, 3, np.nan], equal_nan=True)
    assert np.array_equal(resample(values, clock, times, hold_ns=(0, 0))[2:], [3, np.nan, np.nan], equal_nan=True)
    assert resample(values, clock, np.array([500]), "nearest", hold_ns=(0, 1000))[0] == 3
    alone = resample(values[:1], clock[:1], np.array([0, 1]))
    assert alone[0] == 1 and np.isnan(alone[1])
    assert np.isnan(resample(values[:0], clock[:0], times)).all()


def test_dtypes() -> None:
    clock, times = np.array([0, 10], np.int64), np.array([4, 6, 99])
    assert resample(np.zeros((2, 3), np.float16), clock, times).dtype == np.float32
    assert resample(np.zeros(2), clock, times).dtype == np.float64
    bits = resample(np.array([3, 5], np.uint8), clock, times, "nearest")
    assert bits.dtype == np.uint8 and bits.tolist() == [3, 5, 0]


def test_what_cannot_be_is_said() -> None:
    clock = np.array([0, 10], np.int64)
    with pytest.raises(ValueError, match="nearest"):
        resample(np.array([3, 5], np.uint8), clock, clock)
    with pytest.raises(ValueError, match=r"\(rows, 4\)"):
        resample(np.zeros((2, 3)), clock, clock, "slerp")
    with pytest.raises(ValueError, match="expected one of linear"):
        resample(np.zeros(2), clock, clock, "cubic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 rows"):
        resample(np.zeros(3), clock, clock)


def test_a_heads_rotation_turns_and_the_rest_is_linear() -> None:
    half_turn = Rotation.from_euler("y", [[0], [90]], degrees=True).as_quat()[:, [3, 0, 1, 2]]
    head = np.concatenate([half_turn, [[0, 0, 60, 0, 0, 0], [2, 4, 80, 1, 1, 1]]], axis=1).astype(np.float32)
    clock = np.array([0, 40], np.int64)
    for how in (None, "linear", "slerp"):
        found = resample_column(HEAD, head, clock, np.array([10]), how)  # type: ignore[arg-type]
        yaw = Rotation.from_quat(found[:, [1, 2, 3, 0]]).as_euler("yxz", degrees=True)[0, 0]
        assert abs(yaw - 22.5) < 1e-4
        assert np.allclose(found[0, 4:], [0.5, 1, 65, 0.25, 0.25, 0.25])
    assert (resample_column(HEAD, head, clock, np.array([10]), "nearest") == head[:1]).all()


def test_columns_by_what_they_are() -> None:
    assert quaternion_at(HEAD) == slice(0, 4)
    bits = ColumnSpec(name="valid", dtype="uint8", shape=(), unit="", clock="frame", description="")
    assert quaternion_at(bits) is None
    clock = np.array([0, 10], np.int64)
    assert resample_column(bits, np.array([3, 5], np.uint8), clock, np.array([1])).tolist() == [3]
    with pytest.raises(ValueError, match="valid holds no quaternion"):
        resample_column(bits, np.zeros(2, np.uint8), clock, clock, "slerp")


def test_the_sounds_clock() -> None:
    spec = ColumnSpec(
        name="w2v", dtype="float16", shape=(), unit="", clock="sound", description="", rate=50.0, first_seconds=0.0125
    )
    assert sound_clock(spec, 3).tolist() == [12_500_000, 32_500_000, 52_500_000]
