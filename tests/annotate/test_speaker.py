"""Light-ASD's layers against plain arithmetic, spans, and who speaks in a real interview."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from talkface.annotate._light_asd import LENGTHS, LightASD, load_light_asd, log_odds
from talkface.annotate.speaker import spans
from talkface.clip import NS
from talkface.datasets.reader import open_dataset
from talkface.datasets.stats import why
from talkface.datasets.turns import turns
from talkface.errors import WeightsError
from tests.hearing import rms, sound_of

STEP = NS // 25


@pytest.fixture(scope="module")
def net(models: Path) -> LightASD:
    return load_light_asd(models / "light_asd_talkset.model")


def plain(state: dict[str, torch.Tensor], grey: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The published model from names and shapes alone; the recurrent units by their equations."""

    def step(x: torch.Tensor, block: str, name: str, **how: object) -> torch.Tensor:
        convolve = F.conv3d if x.ndim == 5 else F.conv2d
        x = convolve(x, state[f"{block}.{name}.weight"], **how)  # type: ignore[operator]
        mean, var, scale, shift = (
            state[f"{block}.bn_{name}.{part}"].reshape(1, -1, *[1] * (x.ndim - 2))
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (var + 0.001).sqrt() * scale + shift).clamp(min=0)

    x = ((torch.from_numpy(grey).float() / 255 - 0.4161) / 0.1688)[None, None]
    for i in (1, 2, 3):
        block, stride = f"model.visualEncoder.block{i}", (1, 2, 2) if i == 1 else (1, 1, 1)
        one = step(step(x, block, "s_3", stride=stride, padding=(0, 1, 1)), block, "t_3", padding=(1, 0, 0))
        two = step(step(x, block, "s_5", stride=stride, padding=(0, 2, 2)), block, "t_5", padding=(2, 0, 0))
        x = step(one + two, block, "last")
        x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1)) if i < 3 else x
    seen = x.amax(dim=(3, 4))[0].T
    y = torch.from_numpy(rows).float().T[None, None]
    for i in (1, 2, 3):
        block = f"model.audioEncoder.block{i}"
        one = step(step(y, block, "m_3", padding=(1, 0)), block, "t_3", padding=(0, 1))
        two = step(step(y, block, "m_5", padding=(2, 0)), block, "t_5", padding=(0, 2))
        y = step(one + two, block, "last")
        y = F.max_pool2d(y, (1, 3), (1, 2), (0, 1)) if i < 3 else y
    both = (seen + y.mean(dim=2)[0].T).double().numpy()
    found = []
    for length in LENGTHS:
        parts = [_unit(_unit(both[i : i + length], state, "forward")[::-1], state, "backward")[::-1]
                 for i in range(0, len(both), length)]  # fmt: skip
        weight, bias = (state[f"lossAV.FC.{part}"].double().numpy() for part in ("weight", "bias"))
        logits = np.concatenate(parts) @ weight.T + bias
        found.append(logits[:, 1] - logits[:, 0])
    return np.mean(found, axis=0)


def _unit(x: np.ndarray, state: dict[str, torch.Tensor], way: str) -> np.ndarray:
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    wi, wh, bi, bh = (state[f"model.GRU.gru_{way}.{name}"].double().numpy() for name in names)
    h, out = np.zeros(128), []
    for row in x:
        (ri, zi, ni), (rh, zh, nh) = np.split(wi @ row + bi, 3), np.split(wh @ h + bh, 3)
        reset, update = 1 / (1 + np.exp(-ri - rh)), 1 / (1 + np.exp(-zi - zh))
        h = (1 - update) * np.tanh(ni + reset * nh) + update * h
        out.append(h)
    return F.gelu(torch.from_numpy(np.stack(out))).numpy()


def test_layers_are_the_published_ones(net: LightASD) -> None:
    rng = np.random.default_rng(0)
    grey, rows = rng.integers(0, 256, (56, 112, 112), dtype=np.uint8), rng.normal(0, 8, (224, 13))
    with torch.inference_mode():
        expected = plain(net.state_dict(), grey, rows)
    np.testing.assert_allclose(log_odds(net, grey, rows), expected, atol=2e-3)


def test_pictures_beyond_the_sound_keep_the_last_value(net: LightASD) -> None:
    rng = np.random.default_rng(0)
    grey, rows = rng.integers(0, 256, (12, 112, 112), dtype=np.uint8), rng.normal(0, 8, (43, 13))
    found = log_odds(net, grey, rows)
    assert len(found) == 12
    assert found[9] == found[10] == found[11] != found[8]


def test_another_file_is_refused(tmp_path: Path) -> None:
    torch.save({"model.GRU.gru_forward.weight_ih_l0": torch.zeros(384, 128)}, tmp_path / "x.model")
    with pytest.raises(WeightsError, match="not the weights of Light-ASD"):
        load_light_asd(tmp_path / "x.model")


def test_spans_bridge_pauses_and_drop_what_is_short() -> None:
    talk = np.full(100, -2.0, np.float32)
    talk[10:30], talk[35:60], talk[80:85] = 3, 3, 3
    pts_ns = np.arange(100) * STEP
    assert spans(talk, pts_ns, 100 * STEP) == [(10 * STEP, 60 * STEP)]
    assert spans(talk, pts_ns, 100 * STEP, max_pause_seconds=0.1, min_seconds=0) == [
        (10 * STEP, 30 * STEP),
        (35 * STEP, 60 * STEP),
        (80 * STEP, 85 * STEP),
    ]
    talk[85:] = 3
    assert spans(talk, pts_ns, 101 * STEP, max_pause_seconds=0.1)[-1] == (80 * STEP, 101 * STEP)
    talk[:] = np.nan
    assert spans(talk, pts_ns, 100 * STEP) == []


def test_in_an_interview_each_moment_has_one_owner(
    tmp_path: Path, media: Path, models: Path, toolkit: Callable[..., object]
) -> None:
    """VisualVoice's interview: both talk at once for nine seconds, then one after the other.

    From nine seconds on turns change in pauses, from ten on the mouth that moves is the one that is said to speak.
    """
    out = tmp_path / "dataset"
    how = ("--with", "arkit,speaker", "--models", models, "--offline", "--workers", "0")
    toolkit("ingest", media / "talking" / "VisualVoice__interview.mp4", "--out", out, *how)
    dataset = open_dataset(str(out))
    starts = {clip["key"]: clip["start_ns"] for clip in dataset.clips.to_pylist()}
    found = sorted(
        (starts[t.key] + t.start_ns, starts[t.key] + t.end_ns, t.key)
        for t in turns(dataset, "VisualVoice__interview.mp4")
    )
    assert all(before[1] <= after[0] for before, after in pairwise(found))
    assert all(end - start >= 0.3 * NS for start, end, _ in found)
    one = [clip["key"] for clip in dataset.clips.to_pylist() if clip["track"] == 1]
    sound = np.concatenate([sound_of(dataset, key) for key in sorted(one, key=starts.__getitem__)])
    usual = np.quantile([rms(sound[i : i + 640]) for i in range(0, len(sound) - 640, 640)], 0.2)
    changes = [b[0] * 16_000 // NS for a, b in pairwise(found) if a[2] != b[2] and b[0] > 9 * NS]
    assert len(changes) >= 3
    assert max(rms(sound[at - 320 : at + 320]) for at in changes) < usual
    told = [line.split() for line in why(dataset, "VisualVoice__interview.mp4") if line.endswith(" speaks")]
    assert [(float(start), float(end), key) for start, _, end, _, key, _ in told] == [
        (pytest.approx(start / NS, abs=6e-4), pytest.approx(end / NS, abs=6e-4), key) for start, end, key in found
    ]
    late = [key for key, start in starts.items() if start > 9 * NS]
    assert len(late) == 2
    moves = {key: dataset.arrays(key, ["arkit"])["arkit"][:, 17] for key in late}
    right = total = 0
    for start, end, key in found:
        if key in late:
            first, last = ((at - starts[key]) // STEP for at in (max(start, 10 * NS), end))
            for at in range(first, last - 12, 12):
                still = {k: float(jaw[at : at + 12].std()) for k, jaw in moves.items()}
                if max(still.values()) > 3 * min(still.values()):
                    total, right = total + 1, right + (max(still, key=still.__getitem__) == key)
    assert total >= 6
    assert right >= 0.9 * total
