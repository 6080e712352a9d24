"""Clips and their truth: exact timestamps, determinism, performances that do what they say, the demo's tree."""

import json
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkface.clip import NS
from talkface.media import ClipFrames, probe
from talkface.render.identity import Identity
from talkface.render.performance import MOTIONS, blinks, perform
from talkface.render.synthetic import PEOPLE, make_clip, make_demo, steady, truth_path, two_people
from talkface.vocab import ARKIT, EMOTIONS, SAMPLE_RATE

SMALL = (128, 128)


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> tuple[Path, list[Path]]:
    folder = tmp_path_factory.mktemp("demo")
    return folder, make_demo(folder, seconds=0.6)


def test_steady_has_no_drift() -> None:
    assert steady(1.0).tolist() == [i * 40_000_000 for i in range(25)]
    assert steady(3600, 30)[-1] == round((3600 * 30 - 1) * NS / 30)


def test_variable_timestamps_are_kept(tmp_path: Path) -> None:
    pts = np.cumsum([0, 40, 33, 70, 21, 40, 125, 40]) * 1_000_000
    acted = make_clip(tmp_path / "v.mp4", identity=Identity(), pts=pts, seconds=0.5, size=SMALL)
    assert np.array_equal(ClipFrames(tmp_path / "v.mp4").pts_ns, pts)
    with np.load(truth_path(tmp_path / "v.mp4")) as truth:
        assert np.array_equal(truth["pts_ns"], pts)
        assert np.array_equal(truth["arkit"], acted.arkit.astype(np.float32))


def test_same_arguments_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_clip(tmp_path / f"{name}.mp4", identity=PEOPLE["W009"], emotion="happy", seed=9, seconds=0.6, size=SMALL)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    with np.load(truth_path(tmp_path / "a.mp4")) as a, np.load(truth_path(tmp_path / "b.mp4")) as b:
        assert a.files == b.files
        assert all(np.array_equal(a[name], b[name]) for name in a.files)


def test_truth_agrees_with_itself(tmp_path: Path) -> None:
    make_clip(tmp_path / "t.mp4", identity=Identity(), seconds=1.2, size=SMALL, motion="look_around")
    with np.load(truth_path(tmp_path / "t.mp4")) as truth:
        n = len(truth["pts_ns"])
        assert truth["arkit"].shape == (n, 52) and truth["box"].shape == (n, 4) and truth["quaternion"].shape == (n, 4)
        assert truth["arkit"].min() >= 0 and truth["arkit"].max() <= 1
        nose = truth["rotation"] @ np.array([0, 0, 1.0])
        assert np.allclose(np.degrees(np.arctan2(nose[:, 0], nose[:, 2])), truth["yaw_degrees"])
        jaw = truth["arkit"][:, ARKIT.index("jawOpen")]
        assert np.corrcoef(jaw, truth["mouth_open"])[0, 1] > 0.8
        assert int(truth["sample_rate"]) == SAMPLE_RATE
        box = truth["box"]
        assert (box[:, 2:] > box[:, :2]).all() and box.min() > 0 and box.max() < 128


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 1000), st.sampled_from(EMOTIONS), st.integers(1, 3), st.sampled_from(MOTIONS))
def test_performance_is_a_function_of_time(seed: int, emotion: str, intensity: int, motion) -> None:
    """Taking every second frame of a clip gives every second row of its truth, and all values are in range."""
    act = {"emotion": emotion, "intensity": intensity, "seed": seed, "seconds": 2.0}
    whole = perform(steady(2.0), Identity(), motion=motion, **act)
    half = perform(steady(2.0)[::2], Identity(), motion=motion, **act)
    assert np.allclose(whole.arkit[::2], half.arkit) and np.allclose(whole.translation[::2], half.translation)
    assert whole.arkit.min() >= 0 and whole.arkit.max() <= 1
    assert np.abs(whole.yaw_degrees).max() < 40 and np.abs(whole.pitch_degrees).max() < 25


def test_intensity_strengthens_the_expression() -> None:
    smile = [ARKIT.index("mouthSmileLeft"), ARKIT.index("mouthSmileRight")]
    means = [
        perform(steady(3), Identity(), emotion="happy", intensity=i, seed=1).arkit[:, smile].mean() for i in (1, 2, 3)
    ]
    assert means[0] < means[1] < means[2] and means[2] > 0.5


def test_motions_do_what_they_are_called() -> None:
    spread = {
        m: {
            a: np.ptp(getattr(perform(steady(4), Identity(), motion=m, seed=2), f"{a}_degrees"))
            for a in ("yaw", "pitch", "roll")
        }
        for m in MOTIONS
    }
    assert max(spread["still"].values()) < 8
    assert spread["nod"]["pitch"] > 10 and spread["shake"]["yaw"] > 20
    assert spread["sway"]["roll"] > 18 and spread["look_around"]["yaw"] > 25


def test_unknown_emotion_is_refused() -> None:
    with pytest.raises(ValueError, match="joyful"):
        perform(steady(1), Identity(), emotion="joyful")


def test_blinks_shut_and_open_again() -> None:
    t = np.arange(0, 20, 0.005)
    closed = blinks(t, 20.0, np.random.default_rng(0))
    shut = np.flatnonzero(np.diff((closed > 0.99).astype(int)) == 1)
    assert 5 <= len(shut) <= 16
    assert 0.05 < (closed > 0.1).mean() < 0.25


def test_demo_is_a_mead_tree(demo) -> None:
    folder, paths = demo
    assert all(p.is_file() for p in paths) and len(paths) == len(set(paths)) == 11
    angry = folder / "M003/video/front/angry/level_3/001.mp4"
    assert angry in paths
    assert probe(str(angry)).audio_codec is None
    with wave.open(str(folder / "M003/audio/angry/level_3/001.wav")) as sound:
        assert (sound.getframerate(), sound.getnchannels()) == (SAMPLE_RATE, 1)
        assert sound.getnframes() == round(0.6 * SAMPLE_RATE)
    assert probe(str(folder / "W009/video/front/happy/level_3/001.mp4")).audio_codec == "aac"
    assert "no video" in paths[-1].read_text()


def test_two_people_talk_in_turn(tmp_path: Path) -> None:
    with np.load(truth_path(two_people(tmp_path / "two.mp4", seconds=3.0))) as truth:
        first, second = truth["box"], truth["second_box"]
        assert (first[:, 2] < second[:, 0]).all()
        jaw = ARKIT.index("jawOpen")
        turn = len(first) // 2
        assert truth["arkit"][:turn, jaw].max() > 0.2 > truth["arkit"][turn + 5 :, jaw].max()
        assert truth["second_arkit"][turn:, jaw].max() > 0.2 > truth["second_arkit"][: turn - 2, jaw].max()


def test_a_clip_says_that_it_is_synthetic(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    make_clip(path, identity=PEOPLE["M003"], seconds=0.2, size=SMALL)
    with av.open(str(path)) as container:
        assert json.loads(container.metadata["description"])["synthetic"] is True
