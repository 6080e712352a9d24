"""The nouns check themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from talkface.clip import ColumnSpec, FrameTable, Labels, Timeline, ns_to_samples, samples_to_ns
from talkface.vocab import ARKIT, MOUTH, VALID_ARKIT, VALID_FACE


def test_the_words() -> None:
    assert len(ARKIT) == len(set(ARKIT)) == 52
    assert len(MOUTH) == 27
    assert ARKIT.index("jawOpen") == 17


def test_times_must_rise() -> None:
    with pytest.raises(ValueError, match="frame 2 at 5 is not after 5"):
        Timeline(np.array([0, 5, 5]))
    with pytest.raises((ValueError, TypeCheckError), match=r"[Ii]nt64"):  # the annotation says it too, in tests
        Timeline(np.array([0.0, 1.0]))


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=50))
def test_rate_is_frames_over_time(steps: list[int]) -> None:
    timeline = Timeline(np.cumsum([0, *steps]))
    assert timeline.fps == pytest.approx(len(steps) / (sum(steps) / 1e9))
    assert timeline.is_variable == any(abs(s - np.median(steps)) > 0.1 * np.median(steps) for s in steps)


def test_validity_bits_follow_finite_rows() -> None:
    box, arkit = np.zeros((3, 5), np.float32), np.zeros((3, 52), np.float32)
    box[1], arkit[1:] = np.nan, np.nan
    arkit[2, 51] = 0.5
    table = FrameTable(Timeline(np.arange(3)), {"box": box, "arkit": arkit})
    assert table.valid().tolist() == [VALID_FACE | VALID_ARKIT, 0, VALID_FACE | VALID_ARKIT]
    with pytest.raises(ValueError, match="box: expected 3 rows, got 2"):
        FrameTable(Timeline(np.arange(3)), {"box": box[:2]})


def test_a_column_that_breaks_its_promise_is_named() -> None:
    spec = ColumnSpec(name="x", dtype="float32", shape=(2,), unit="", clock="frame", description="")
    spec.check(np.zeros((3, 2), np.float32), frames=3)
    for wrong in (np.zeros((3, 2)), np.zeros((3, 3), np.float32), np.zeros((4, 2), np.float32)):
        with pytest.raises(AssertionError, match="x: expected"):
            spec.check(wrong, frames=3)


def test_labels_speak_one_vocabulary() -> None:
    with pytest.raises(ValueError, match="'joy' is not one of"):
        Labels(emotion="joy")
    with pytest.raises(ValueError, match="intensity 4"):
        Labels(intensity=4)


@given(st.integers(0, 10**12))
def test_samples_and_nanoseconds(samples: int) -> None:
    assert ns_to_samples(samples_to_ns(samples)) == samples
