"""Light-ASD's layers against plain arithmetic, spans, and who speaks in a real interview."""

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from talkface.annotate.speaker import MOTION_NS, lip_motion, spans
from talkface.clip import NS
from talkface.datasets.open import open_dataset
from talkface.datasets.reader import Dataset
from talkface.datasets.stats import why
from talkface.datasets.turns import turns
from talkface.errors import WeightsError
from talkface.nets.light_asd import LENGTHS, LightASD, load_light_asd, log_odds
from talkface.speech.loudness import loudness
from talkface.speech.turns import MOVES
from talkface.vocab import ARKIT
from tests.conftest import Toolkit
from tests.hearing import pitch, rms, sound_of

STEP = NS // 25
INTERVIEW = "VisualVoice__interview.mp4"
IN_TURN_NS = 9 * NS
"""From when on they speak in turn."""
ALONE = ("EDTalk__pose_source2", "MimicTalk__German_20s", "LatentSync__demo3_video",
         "Audio-driven-TalkingFace-HeadPose__31")  # fmt: skip


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


@pytest.mark.parametrize("fps", [4, 25])
def test_lip_motion_is_what_its_sentence_says(fps: int) -> None:
    rng = np.random.default_rng(0)
    meshes, pts_ns, has = (
        rng.normal(0, 9, (80, 478, 3)),
        np.cumsum(rng.integers(NS // fps // 2, 2 * NS // fps, 80)),
        rng.random(80) > 0.3,
    )
    meshes[~has] = np.nan
    apart = [np.linalg.norm(m[13] - m[14]) / np.linalg.norm(m[33] - m[263]) for m in meshes]
    near = [[a for a, t, h in zip(apart, pts_ns, has, strict=True) if h and abs(t - at) <= MOTION_NS] for at in pts_ns]
    expected = [max(n) - min(n) if h and len(n) > 1 else np.nan for n, h in zip(near, has, strict=True)]
    assert np.isnan(expected).sum() > (~has).sum() or fps > 4
    np.testing.assert_allclose(lip_motion(meshes, pts_ns), expected, rtol=1e-5)


def test_lip_motion_depends_on_neither_size_nor_place() -> None:
    meshes, pts_ns = np.random.default_rng(0).normal(0, 9, (9, 478, 3)), np.arange(9) * STEP
    np.testing.assert_allclose(lip_motion(3 * meshes + 50, pts_ns), lip_motion(meshes, pts_ns), rtol=1e-5)


def test_a_face_without_width_has_no_lip_motion() -> None:
    meshes, pts_ns = np.random.default_rng(0).normal(0, 9, (9, 478, 3)), np.arange(9) * STEP
    meshes[4] = 7
    motion = lip_motion(meshes, pts_ns)
    assert np.isnan(motion[4]) and np.isfinite(np.delete(motion, 4)).all()


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


@pytest.fixture(scope="module")
def interview(tmp_path_factory: pytest.TempPathFactory, media: Path, models: Path, toolkit: Toolkit) -> Dataset:
    """VisualVoice's interview: both talk at once for nine seconds, then one after the other."""
    out = tmp_path_factory.mktemp("interview") / "dataset"
    how = ("--with", "arkit,speaker", "--models", models, "--offline", "--workers", "0")
    toolkit("ingest", media / "talking" / INTERVIEW, "--out", out, *how)
    return open_dataset(str(out))


class Said(NamedTuple):
    """A turn on the source's clock."""

    start_ns: int
    end_ns: int
    track: int
    key: str


@pytest.fixture(scope="module")
def said(interview: Dataset) -> list[Said]:
    clips = {clip["key"]: clip for clip in interview.clips.to_pylist()}
    found = [(clips[turn.key], turn) for turn in turns(interview, INTERVIEW)]
    return [Said(c["start_ns"] + t.start_ns, c["start_ns"] + t.end_ns, c["track"], t.key) for c, t in found]


def heard(dataset: Dataset) -> np.ndarray:
    """The interview's sound, which its clips of either face have whole."""
    clips = [clip for clip in dataset.clips.to_pylist() if clip["track"] == 1]
    return np.concatenate([sound_of(dataset, c["key"]) for c in sorted(clips, key=lambda c: c["start_ns"])])


def test_each_moment_has_one_owner(interview: Dataset, said: list[Said]) -> None:
    assert {turn.track for turn in said} == {1, 2}
    assert all(before.end_ns <= after.start_ns for before, after in pairwise(said))
    assert all(turn.end_ns - turn.start_ns >= 0.3 * NS for turn in said)
    told = [line.split() for line in why(interview, INTERVIEW) if line.endswith(" speaks")]
    assert [(float(start), float(end), key) for start, _, end, _, key, _ in told] == [
        (pytest.approx(t.start_ns / NS, abs=6e-4), pytest.approx(t.end_ns / NS, abs=6e-4), t.key) for t in said
    ]


def test_speakers_change_in_pauses(interview: Dataset, said: list[Said]) -> None:
    sound = heard(interview)
    usual = np.quantile([rms(sound[i : i + 640]) for i in range(0, len(sound) - 640, 640)], 0.2)
    changes = [b.start_ns * 16_000 // NS for a, b in pairwise(said) if a.track != b.track and b.start_ns > IN_TURN_NS]
    assert len(changes) >= 3
    assert max(rms(sound[at - 320 : at + 320]) for at in changes) < usual


def test_no_word_is_theirs_whose_jaw_rests(interview: Dataset, said: list[Said]) -> None:
    """While the other's moves, in each half second in which they speak in turn."""
    late = {c["track"]: c for c in interview.clips.to_pylist() if c["start_ns"] > IN_TURN_NS}
    (start_ns,) = {c["start_ns"] for c in late.values()}
    jaw = {
        track: interview.arrays(c["key"], ["arkit"])["arkit"][:, ARKIT.index("jawOpen")] for track, c in late.items()
    }
    owners = []
    for turn in (turn for turn in said if turn.start_ns >= start_ns):
        first, last = ((at - start_ns) // STEP for at in (turn.start_ns, turn.end_ns))
        for at in range(first, last - 11, 12):
            moves = {track: float(shape[at : at + 12].std()) for track, shape in jaw.items()}
            if min(moves.values()) < 0.01 and max(moves.values()) > 0.05:
                owners.append((turn.start_ns, moves[turn.track]))
    assert len(owners) >= 8
    assert len({start for start, _ in owners}) == 2, "a word, and five seconds"
    assert min(own for _, own in owners) > 0.05


def test_each_word_is_theirs_whose_voice_it_is(interview: Dataset, said: list[Said]) -> None:
    """Of those who speak in turn one has the higher voice, in each of two turns: a word is known without pictures."""
    sound = heard(interview)
    voices: dict[int, list[float]] = {1: [], 2: []}
    for turn in (turn for turn in said if turn.start_ns > IN_TURN_NS):
        start, end = (at * 16_000 // NS for at in (turn.start_ns, turn.end_ns))
        voices[turn.track].append(pitch(sound[start:end]))
    assert [len(pitches) for pitches in voices.values()] == [2, 2]
    assert min(voices[1]) > 1.1 * max(voices[2])


def test_lip_motion_is_known_where_the_mesh_is(interview: Dataset) -> None:
    for key in interview.keys():  # noqa: SIM118
        arrays = interview.arrays(key, ["lm", "lip_motion"])
        np.testing.assert_array_equal(np.isfinite(arrays["lip_motion"]), np.isfinite(arrays["lm"]).all(axis=(1, 2)))


def test_who_listens_is_still_and_who_speaks_is_not(
    tmp_path: Path, media: Path, models: Path, toolkit: Toolkit, interview: Dataset
) -> None:
    """What `STILL` weighs: the loud moments of four who are alone, and one listening while the other speaks."""
    clips = [media / "talking" / f"{name}.mp4" for name in ALONE]
    how = ("--with", "landmarks", "--no-video", "--models", models, "--offline")
    toolkit("ingest", *clips, "--out", tmp_path / "alone", *how)
    dataset, still = open_dataset(str(tmp_path / "alone")), []
    for key in dataset.keys():  # noqa: SIM118
        arrays = dataset.arrays(key, ["lm", "pts"])
        loud = loudness(sound_of(dataset, key).astype(np.int16), 0, arrays["pts"])
        still += (lip_motion(arrays["lm"], arrays["pts"]) < MOVES)[loud > np.quantile(loud, 0.9) / 10].tolist()
    (listens,) = [c for c in interview.clips.to_pylist() if c["track"] == 1 and c["start_ns"] > IN_TURN_NS]
    heard_ns = np.arange(11 * NS, 14 * NS, STEP) - listens["start_ns"]
    listening = interview.column(listens["key"], "lip_motion", heard_ns) < MOVES
    assert np.mean(listening) > 20 * np.mean(still)
    assert np.mean(listening) > 0.6
    assert len(still) > 500 and np.mean(still) < 0.02
