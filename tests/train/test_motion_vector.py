"""The state: the same angles in torch as elsewhere, statistics of what is there, the way back to motion."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from talkface.datasets.reader import Dataset
from talkface.motion import head_angles, head_rows, steady_pts
from talkface.train.inputs.motion_vector import ROTATION, SMALLEST, UNMOVED, MotionVector, angles_of
from talkface.train.tasks.emodiff import EmoDiffConfig
from talkface.vocab import ARKIT

NAMES = EmoDiffConfig(translation=True).names()


@settings(deadline=None, max_examples=50)
@given(arrays(np.float64, (5, 3), elements=st.floats(-1.5, 1.5)), st.booleans())
def test_angles_are_those_of_the_head_column(angles: np.ndarray, flip: bool) -> None:
    quaternion = head_rows(angles)[:, :4] * (-1 if flip else 1)
    found = angles_of(torch.from_numpy(quaternion)).numpy()
    np.testing.assert_allclose(found, head_angles(quaternion), atol=1e-3)
    np.testing.assert_allclose(found, angles, atol=1e-3)


def test_missing_rotations_stay_missing() -> None:
    assert torch.isnan(angles_of(torch.full((2, 4), torch.nan))).all()


def test_statistics_are_of_what_is_there(talkers: str) -> None:
    dataset = Dataset(talkers)
    state = MotionVector.learn(dataset, NAMES)
    views = dataset.views(range(len(dataset)), ["arkit", "head"])
    arkit = np.concatenate([v["arkit"] for v in views]).astype(np.float64)
    assert not state.valid[NAMES.index("tongueOut")]
    assert state.valid.sum() == len(NAMES) - 1
    jaw, tongue = NAMES.index("jawOpen"), NAMES.index("tongueOut")
    assert state.mean[jaw] == pytest.approx(np.nanmean(arkit[:, ARKIT.index("jawOpen")]), abs=1e-6)
    assert state.std[jaw] == pytest.approx(np.nanstd(arkit[:, ARKIT.index("jawOpen")]), abs=1e-6)
    assert (state.mean[tongue], state.std[tongue]) == (0.0, np.float32(SMALLEST))
    again = MotionVector.of(state.facts())
    assert again.names == state.names
    for name in ("mean", "std", "valid"):
        np.testing.assert_array_equal(getattr(again, name), getattr(state, name))
    assert state.facts()["units"] == ["0..1"] * 52 + ["rad"] * 3 + ["cm"] * 3


def test_to_the_state_and_back(talkers: str) -> None:
    """Columns to the network's numbers to motion: as they were, but for what the model knows nothing of."""
    dataset = Dataset(talkers)
    state = MotionVector.learn(dataset, NAMES)
    columns = dataset.arrays(dataset.keys()[0], ["arkit", "head"])
    values = state.of_arrays(columns["arkit"], columns["head"])
    motion = state.motion(values, steady_pts(len(values), 25), 25.0)
    known = ARKIT.index("tongueOut") != np.arange(52)
    np.testing.assert_allclose(motion.arkit[:, known], columns["arkit"][:, known], atol=1e-5)
    assert np.isnan(motion.arkit[:, ~known]).all()
    np.testing.assert_allclose(motion.head, columns["head"][:, :7], atol=1e-4)


def test_shapes_stay_within_their_range(talkers: str) -> None:
    state = MotionVector.learn(Dataset(talkers), NAMES)
    motion = state.motion(torch.full((3, len(NAMES)), 1e4), steady_pts(3, 25), 25.0)
    assert np.nanmax(motion.arkit) == 1.0
    low = state.motion(torch.full((3, len(NAMES)), -1e4), steady_pts(3, 25), 25.0)
    assert np.nanmin(low.arkit) == 0.0


def test_the_papers_fifty() -> None:
    """49 channels and the flag: the shapes that MediaPipe moves, and the rotation."""
    names = EmoDiffConfig(channels="paper50").names()
    assert len(names) == 49
    assert set(ARKIT) - set(names) == set(UNMOVED)
    assert names[-3:] == ROTATION
