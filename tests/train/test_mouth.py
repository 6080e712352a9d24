"""Mouth and sound as lip refinement sees them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from talkface.datasets.reader import Dataset
from talkface.motion import steady_pts
from talkface.nets.lip import ROWS
from talkface.train.inputs.mouth import (
    CHUNK,
    MOUTH_INDEX,
    SMALLEST,
    area_under_curve,
    average_windows,
    every_window,
    in_style,
    mouth_facts,
    mouth_of,
    of_chosen,
    sound_facts,
    sound_of,
)
from talkface.vocab import ARKIT, MOUTH


def test_the_mouth_is_jaw_and_mouth() -> None:
    assert len(MOUTH) == 27 and [ARKIT[i] for i in MOUTH_INDEX] == list(MOUTH)
    assert sum(name.startswith("jaw") for name in MOUTH) == 4


@given(st.integers(1, 40), st.integers(1, 12))
def test_windows_averaged_are_the_frames(n: int, frames: int) -> None:
    values = torch.arange(n * 3, dtype=torch.float32).reshape(n, 3)
    windows = every_window(values, min(frames, n))
    assert torch.equal(windows[0], values[: min(frames, n)])
    assert torch.allclose(average_windows(windows), values)


def test_many_windows_go_through_in_parts() -> None:
    torch.manual_seed(0)
    net, windows = torch.nn.Linear(5, 3), torch.randn(2 * CHUNK + 40, 4, 5)
    sizes = list[int]()
    net.register_forward_hook(lambda module, given, found: sizes.append(len(given[0])))
    for chosen in (torch.rand(len(windows)) < 0.9, torch.zeros(len(windows), dtype=torch.bool)):
        assert torch.allclose(of_chosen(net, windows, chosen), net(windows)[chosen], atol=1e-6)
        assert max(sizes[:-1]) <= CHUNK and sum(sizes[:-1]) == chosen.sum()
        sizes.clear()


def test_a_mouth_rests_and_moves_as_in_the_style() -> None:
    rng = np.random.default_rng(0)
    faint = 0.3 + 0.08 * rng.uniform(-1, 1, (200, 27))
    style = 0.5 + 0.2 * rng.uniform(-1, 1, (90, 27))
    told = np.linspace(0, 1, 27)
    made = in_style(faint, style, np.zeros(27), told)
    logs, wanted = np.log(made + SMALLEST), np.log(style + SMALLEST)
    assert np.allclose(logs.mean(0), wanted.mean(0), atol=1e-5)
    assert np.allclose(logs.std(0), told * wanted.std(0), rtol=0.03, atol=1e-4), (
        "3 % at most go to the noise of what is still"
    )
    assert min(np.corrcoef(made[:, i], faint[:, i])[0, 1] for i in range(1, 27)) > 0.99
    still = in_style(faint, np.full((1, 27), 0.2), np.full(27, 0.1), np.ones(27))
    assert np.log(still + SMALLEST).std(0) == pytest.approx(0.1, rel=0.03), "a still face speaks all the same"


@given(st.lists(st.integers(-5, 5), max_size=30), st.lists(st.integers(-5, 5), max_size=30))
def test_area_under_the_curve_counts_pairs(positive: list[int], negative: list[int]) -> None:
    found = area_under_curve(positive, negative)
    if not positive or not negative:
        assert np.isnan(found)
        return
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert found == pytest.approx(np.mean(pairs))


def test_what_is_missing_is_masked(talkers: str) -> None:
    facts = mouth_facts(Dataset(talkers))
    arkit = torch.full((1, 4, 52), 0.5)
    arkit[0, 1, ARKIT.index("jawOpen")] = torch.nan
    values, known = mouth_of({"arkit": arkit}, facts)
    assert not known[0, 1, MOUTH.index("jawOpen")] and known.sum() == 4 * 27 - 1
    assert values[0, 1, MOUTH.index("jawOpen")] == 0


def test_a_frame_sees_the_rows_around_its_time(talkers: str) -> None:
    """A column whose row i holds i: the mean of the 16 rows is where the frame lies on the sound's clock."""
    dataset = Dataset(talkers)
    facts = sound_facts(dataset, "mel")
    rows = np.repeat(np.arange(200.0)[:, None], 80, axis=1)
    times = steady_pts(40, 25)
    seen = sound_of(facts, rows, times, 25)[0]
    assert seen.shape == (40, ROWS * 80 + 1) and (seen[:, -1] == 1).all()
    back = seen[:, :-1].reshape(40, ROWS, 80) * torch.from_numpy(facts.std) + torch.from_numpy(facts.mean)
    centre = (times / 1e9 - facts.spec.first_seconds) * facts.spec.rate
    inside = slice(6, 34)  # the others would need rows before the sound's start, or after the last frame
    assert np.allclose(back.mean(dim=(1, 2))[inside], centre[inside], atol=1e-2)
    assert np.allclose(np.diff(back[15, :, 0]), 2, atol=1e-2), "every other row of 80 a second"
