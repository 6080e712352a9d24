"""Closed forms: both ways to cut sound agree, lateness is found and taken back, directions correlate."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from talkface.clip import ColumnSpec
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError
from talkface.nets.cca import centre_taps, frame_cepstra, window_cepstra, window_taps
from talkface.train.data import split
from talkface.train.inputs.audio_rows import SILENCE, own_level
from talkface.train.inputs.cca import Take, fit_cca, in_place, lateness, placed, ridge, takes_of
from talkface.train.inputs.mouth import every_window, sound_facts, sound_of
from talkface.vocab import MOUTH
from tests.train.making import make

T = 8


@pytest.fixture(scope="module")
def takes(strangers: str) -> list[Take]:
    return takes_of(Dataset(strangers), "mel", 25.0)


@pytest.fixture(scope="module")
def late(takes: list[Take]) -> dict[str, float]:
    found = in_place(takes, T)
    assert found is not None
    return found


def test_a_clip_and_a_network_see_the_same_sound(strangers: str, takes: list[Take]) -> None:
    dataset, take = Dataset(strangers), takes[0]
    rows = dataset.arrays(take.key, ["mel"])["mel"]
    times = np.arange(len(take.mouth)) * 40_000_000
    seen = sound_of(sound_facts(dataset, "mel", level="own"), rows, times, 25.0)
    # The network's rows end with its last frame, the clip's a little later.
    middle = slice(10, -20)
    assert np.allclose(frame_cepstra(seen)[0, middle], take.sound(centre_taps(2), 0)[middle], atol=2e-2)
    windows = window_cepstra(every_window(seen[0], T)).flatten(1)
    assert np.allclose(windows[middle], take.sound(window_taps(T, 80 / 25, 2), 0)[: len(windows)][middle], atol=2e-2)


def test_late_sound_is_found_and_taken_back(takes: list[Take], late: dict[str, float]) -> None:
    """The sound of one clip is moved by a tenth of a second: a model of other people says so."""
    moved = [replace(takes[0], cepstra=torch.roll(takes[0].cepstra, 8, dims=0)), *takes[1:]]
    before, found = late[takes[0].key], in_place(moved, T)
    assert found is not None and abs(before) <= 20 and abs(found[takes[0].key] - before - 100) <= 20
    assert np.allclose(
        moved[0].sound(centre_taps(2), 100)[20:-20], takes[0].sound(centre_taps(2), 0)[20:-20], atol=1e-3
    )


def test_clips_beyond_those_to_learn_from_are_put_in_their_place(
    strangers: str, takes: list[Take], late: dict[str, float]
) -> None:
    """A model of half of the clips says of the others what one of all says."""
    fit, about = placed(Dataset(strangers), "mel", 25.0, T, clips=7)
    assert len(fit) <= 7 < len(takes) and {t.key for t in fit} < {t.key for t in takes}
    assert {*about["late"], *about["unfit"]} == {t.key for t in takes}
    both = set(about["late"]) & set(late)
    assert len(both) > 10 and max(abs(about["late"][key] - late[key]) for key in both) <= 40


def test_directions_correlate_in_the_order_of_their_worth(takes: list[Take]) -> None:
    found = fit_cca(takes, dict.fromkeys((t.key for t in takes), 0.0), T)
    assert (np.diff(found.gains) <= 1e-9).all() and found.gains[0] > 0.5
    sound = takes[0].sound(window_taps(T, 80 / 25, 2), 0)[: len(takes[0].mouth) - T + 1] @ found.sound[:, 0]
    mouth = np.lib.stride_tricks.sliding_window_view(takes[0].mouth, T, axis=0).swapaxes(1, 2)
    assert np.corrcoef(mouth.reshape(len(mouth), -1) @ found.mouth[:, 0], sound)[0, 1] > 0.7


def test_the_jaw_is_what_sound_tells(takes: list[Take]) -> None:
    """Only the jaw moves with the sound of these talkers."""
    _, r = ridge(takes, dict.fromkeys((t.key for t in takes), 0.0))
    assert r.argmax() == MOUTH.index("jawOpen") and r.max() > 0.7


def test_with_few_people_clips_are_taken_as_they_are(strangers: str) -> None:
    _, held = split(strangers, "p2,p3")
    assert held is not None
    fit, about = placed(held, "mel", 25.0, T)
    assert in_place(fit, T) is None and len(fit) == len(held)
    assert set(about["late"].values()) == {0.0} and not about["unfit"]


def test_lateness_of_clips_that_nobody_judged() -> None:
    late, unfit = lateness(["a", "b", "c"], {"late": {"a": 40.0}, "unfit": ["c"]}, torch.device("cpu"))
    assert late.tolist() == [40_000_000, 0, 0] and unfit.tolist() == [False, False, True]


def test_the_own_level_is_without_silence_and_gaps() -> None:
    rows = torch.randn(1, 50, 80)
    longer = torch.cat([rows, torch.full((1, 30, 80), SILENCE - 0.5)], dim=1)
    longer[0, -1] = torch.nan
    assert torch.allclose(own_level(longer)[:, :50], own_level(rows), atol=1e-5)
    assert torch.allclose(own_level(rows * 1.0 + torch.linspace(0, 4, 80)), own_level(rows), atol=1e-4)
    assert own_level(longer)[0, -1].isnan().all() and torch.isfinite(own_level(longer)[0, :-1]).all()


def test_a_dataset_without_speech(tmp_path: Path) -> None:
    url = make(str(tmp_path), (("p0", "happy"),), silent=(0,))
    with pytest.raises(ConfigError, match="no clip of two seconds has speech and a mouth"):
        takes_of(Dataset(url), "mel", 25.0)


def test_directions_of_wide_rows_are_found_among_their_principal_components() -> None:
    """Rows of a speech encoder: here cepstra turned into 288 numbers, which hold no more than the cepstra do."""
    rng = np.random.default_rng(0)
    turn = torch.linalg.qr(torch.randn(288, 24, generator=torch.Generator().manual_seed(0))).Q
    spec = ColumnSpec(
        name="mel", dtype="float16", shape=(80,), unit="none", clock="sound", description="mel", rate=80.0,
        first_seconds=0.0,
    )  # fmt: skip
    plain = []
    for number in range(3):
        rows = gaussian_filter1d(rng.normal(size=(960, 24)), 4, axis=0) * 4
        mouth = 0.5 * rng.normal(size=(300, 27))
        mouth[:, :5] += rows[(np.arange(300) * 3.2).astype(int), :5]
        still = np.zeros(27)
        plain.append(
            Take(str(number), str(number), mouth, still, still, torch.tensor(rows, dtype=torch.float32), spec, 25.0)
        )
    late, taps = dict.fromkeys("012", 0.0), window_taps(T, 80 / 25, 2)
    wide = [replace(take, cepstra=take.cepstra @ turn.T) for take in plain]
    found, known = fit_cca(wide, late, T), fit_cca(plain, late, T)
    assert found.sound.shape == (len(taps) * 288, len(found.gains))
    one, other = (takes[0].sound(taps, 0) @ cca.sound[:, 0] for takes, cca in ((wide, found), (plain, known)))
    assert abs(np.corrcoef(one, other)[0, 1]) > 0.9
