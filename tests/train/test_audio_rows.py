"""Sound at the picture's frames: by the clock, not by counting."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from talkface.annotate.mel import Annotator as Mel
from talkface.clip import NS, ColumnSpec
from talkface.datasets.loading.windows import Windows
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError
from talkface.train.inputs.audio_features import SoundFacts, speech_of
from talkface.train.inputs.audio_rows import rows_around, window_rows
from talkface.weights import Models
from tests.train.making import COLUMNS, TALKERS, make

W2V = ColumnSpec(
    name="w2v", dtype="float16", shape=(1,), unit="", clock="sound", description="", rate=50.0, first_seconds=0.0125
)


@pytest.mark.parametrize("spec", [Mel.columns[0], W2V], ids=["mel", "w2v"])
@pytest.mark.parametrize("first", [0, 1, 7, 31, 400])
def test_rows_of_a_ramp_are_the_frames_times(spec: ColumnSpec, first: int) -> None:
    """A column whose row is its own time gives each frame's time, wherever its window starts."""
    windows = Windows(length=32, fps=25, columns=("arkit",))
    rows = torch.arange(3000, dtype=torch.float64)[:, None] / spec.rate + spec.first_seconds
    times = torch.from_numpy(windows.times_ns(first))[None]
    cut = window_rows(rows, spec, int(times[0, 0]), 32, 25.0)
    found = rows_around(cut[None], spec.rate, spec.first_seconds, times, (0,))[0, :, 0, 0]
    inside = slice(1, -1)  # the window's first and last row hold beyond it
    torch.testing.assert_close(found[inside], times[0].double()[inside] / NS, atol=1e-9, rtol=0)
    before = rows_around(cut[None], spec.rate, spec.first_seconds, times, (-1,))[0, :, 0, 0]
    torch.testing.assert_close(before[2:-1], times[0].double()[2:-1] / NS - 1 / spec.rate, atol=1e-9, rtol=0)


def test_a_whole_sound_is_cut_as_the_loader_cuts_clips(talkers: str) -> None:
    """Training and sampling see the same numbers for the same window."""
    dataset = Dataset(talkers)
    windows = Windows(length=32, fps=25, columns=("arkit", "head", "mel"), stride=8)
    facts = SoundFacts.learn(dataset, "mel")
    key = dataset.keys()[-1]
    whole = dataset.arrays(key, ["mel"])["mel"]
    for window, first in zip(windows.of(dataset, key), range(0, 60, 8), strict=False):
        seen = facts.of_window(torch.from_numpy(window["mel"])[None], torch.from_numpy(window["times_ns"])[None])
        again = facts.of_sound(whole, first, windows, torch.device("cpu"))
        torch.testing.assert_close(again, seen)


def test_missing_sound_is_zero_and_says_so(talkers: str) -> None:
    facts = SoundFacts.learn(Dataset(talkers), "mel")
    assert np.isfinite(facts.mean).all(), "the clip without sound has no part in the mean"
    times = torch.from_numpy(Windows(length=32, fps=25, columns=("mel",)).times_ns(0))[None]
    seen = facts.of_window(torch.full((1, 102, 80), torch.nan), times)
    assert seen.shape == (1, 32, facts.width)
    assert (seen == 0).all()
    assert (facts.of_window(torch.zeros(1, 102, 80), times)[..., -1] == 1).all()


def test_speech_has_the_columns_of_the_annotator(talkers: str) -> None:
    """What is sampled from hears what was trained on; silence follows."""
    dataset = Dataset(talkers)
    facts = SoundFacts.of(SoundFacts.learn(dataset, "mel").facts())
    key = dataset.keys()[-1]
    samples = dataset.span(key, 0, 10 * NS, ["pts"], sound=True)["sound"]
    speech = speech_of(samples, [facts], Models(offline=True))
    stored = dataset.arrays(key, ["mel"])["mel"]
    rows = len(stored) - 3  # the last windows see beyond the end
    np.testing.assert_array_equal(speech.columns["mel"][:rows], stored[:rows])
    assert len(speech.columns["mel"]) > len(stored) + 200
    assert speech.frames(25) == 90


def test_rows_with_layers_and_a_margin(tmp_path: Path) -> None:
    """Wav2vec's layers: normalised each for itself, whole around a window's first and last frame."""
    layers = replace(W2V, shape=(3, 2), rate=50.0)
    dataset = Dataset(make(tmp_path / "data", TALKERS[:2], columns=(*COLUMNS, layers)))
    windows = Windows(length=8, fps=25, columns=("arkit", "w2v"), stride=20, sound_margin=0.1)
    offsets = [k * 2.0 for k in range(-2, 3)]
    facts = SoundFacts.of(json.loads(json.dumps(
        SoundFacts.learn(dataset, "w2v", offsets=offsets, margin=windows.sound_margin).facts()
    )))  # fmt: skip
    assert facts.mean.shape == (3, 2) and facts.width == 5 * 6 + 1
    key = dataset.keys()[0]
    whole = dataset.arrays(key, ["w2v"])["w2v"].astype(np.float32)
    window = list(windows.of(dataset, key))[2]
    rows, times = (torch.from_numpy(window[n])[None] for n in ("w2v", "times_ns"))
    found = facts.around(rows, times)
    assert found.shape == (1, 8, 5, 3, 2) and torch.isfinite(found).all()
    # Two rows a frame: each offset is another frame's own row, in the window or beside it.
    at = (window["times_ns"][:, None] / NS + np.arange(-2, 3) / 25 - W2V.first_seconds) * 50
    low = np.floor(at).astype(int)
    share = (at - low)[..., None, None].astype(np.float32)
    expected = (whole[low] * (1 - share) + whole[low + 1] * share - facts.mean) / facts.std
    np.testing.assert_allclose(found[0].numpy(), expected, atol=2e-3)
    again = facts.of_sound(whole, 40, windows, torch.device("cpu"))
    torch.testing.assert_close(again, facts.of_window(rows, times))
    with pytest.raises(ConfigError, match="clock of the frame"):
        SoundFacts.learn(dataset, "arkit")
