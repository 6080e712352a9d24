"""The whole pipeline against the synthetic faces' known truth: times, boxes, head rotation, mouth and blinks."""

from pathlib import Path

import numpy as np
import pytest

from talkface.annotate.head import euler_degrees
from talkface.datasets.reader import Dataset, Sample
from talkface.render.synthetic import truth_path
from talkface.vocab import ARKIT
from tests.conftest import Toolkit

Pairs = list[tuple[Sample, dict[str, np.ndarray]]]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory, videos: Path, models: Path, toolkit: Toolkit) -> Pairs:
    """Clips made with the real models, each with the rows of truth for its frames."""
    out = tmp_path_factory.mktemp("truth") / "dataset"
    quick = ("--offline", "--workers", "2", "--no-video", "--with", "box,landmarks,arkit,head,mel")
    toolkit("ingest", videos, "--out", out, "--models", models, *quick, code=3)
    samples = [s for s in Dataset(str(out)) if "two_people" not in s["json"]["source"]]
    return [(s, truth_of(s, videos)) for s in samples]


def truth_of(sample: Sample, videos: Path) -> dict[str, np.ndarray]:
    with np.load(truth_path(videos / sample["json"]["source"])) as file:
        truth = dict(file)
    times = sample["pts.npy"] + sample["json"]["start_ns"]
    rows = np.searchsorted(truth["pts_ns"], times - 1000)
    return {k: v[rows] for k, v in truth.items() if v.ndim and len(v) == len(truth["pts_ns"])}


def test_timestamps_are_exact(pairs: Pairs) -> None:
    """To the microsecond that mp4 holds here."""
    assert len(pairs) >= 9
    for sample, truth in pairs:
        np.testing.assert_allclose(sample["pts.npy"] + sample["json"]["start_ns"], truth["pts_ns"], atol=1000)


def test_boxes_cover_the_face(pairs: Pairs) -> None:
    for sample, truth in pairs:
        assert np.mean([iou(a[:4], b) for a, b in zip(sample["box.npy"], truth["box"], strict=True)]) > 0.8


def iou(a: np.ndarray, b: np.ndarray) -> float:
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = max(width, 0) * max(height, 0)
    return float(shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared))


def test_yaw_is_within_five_degrees_with_the_right_sign(pairs: Pairs) -> None:
    far = 0
    for sample, truth in pairs:
        yaw = euler_degrees(sample["head.npy"][:, :4])[:, 0]
        assert np.abs(yaw - truth["yaw_degrees"]).max() < 5
        turned = np.abs(truth["yaw_degrees"]) > 10
        far += int(turned.sum())
        assert (np.sign(yaw[turned]) == np.sign(truth["yaw_degrees"][turned])).all()
    assert far > 50


def test_angular_velocity_is_that_of_the_truth(pairs: Pairs) -> None:
    """About the vertical axis, which head turns of the synthetic faces are mostly about."""
    measured = np.concatenate([s["head.npy"][1:-1, 8] for s, _ in pairs])
    turning = np.concatenate([np.gradient(t["yaw_degrees"], t["pts_ns"] / 1e9)[1:-1] for _, t in pairs])
    assert correlation(measured, np.radians(turning)) > 0.9
    assert 0.8 < np.linalg.norm(measured) / np.linalg.norm(np.radians(turning)) < 1.2


@pytest.mark.parametrize(("shape", "known"), [("jawOpen", "mouth_open"), ("eyeBlinkLeft", "blink")])
def test_mouth_and_blinks_follow_the_truth(pairs: Pairs, shape: str, known: str) -> None:
    found = [correlation(s["arkit.npy"][:, ARKIT.index(shape)], t[known]) for s, t in pairs]
    print(shape, np.round(found, 3))
    assert np.median(found) > 0.9
    assert min(found) > 0.8


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def test_the_sound_is_on_the_picture_s_clock(pairs: Pairs) -> None:
    """Loudness of the stored sound follows the true mouth best without any shift."""
    best = []
    for sample, truth in pairs:
        energy = sample["mel.npy"].astype(np.float32).mean(axis=1)
        at = np.interp(sample["pts.npy"] / 1e9, np.arange(len(energy)) / 80, energy)
        lags = range(-6, 7)
        best.append(
            lags[int(np.argmax([correlation(np.roll(at, lag)[6:-6], truth["mouth_open"][6:-6]) for lag in lags]))]
        )
    assert abs(np.median(best)) <= 1, best
