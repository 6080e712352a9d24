"""Plain video files against each other: one clock, other sizes, rates and lengths told, degradations in order."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from talkface.media import VideoReader
from talkface.metrics.base import Comparison, Face
from talkface.metrics.clocks import both, nearest
from talkface.metrics.evaluate import evaluate
from talkface.metrics.faces import of_video, pair_up
from talkface.motion import steady_pts
from talkface.render.synthetic import PEOPLE, make_clip
from talkface.weights import Models
from tests.conftest import Toolkit
from tests.metrics.making import random_trunks


def numbered(frames: int, fps: float, *, shift_ns: int = 0, size: tuple[int, int] = (32, 32)) -> Face:
    """Pictures that say by their grey at which millisecond they are shown, over five."""
    pts = steady_pts(frames, fps) + shift_ns
    pictures = [np.full((*size, 3), t // 5_000_000, np.uint8) for t in pts]
    return Face(key="n", pts_ns=pts, columns={}, pictures=lambda: iter(pictures))


@pytest.mark.parametrize("fps", [12.5, 25.0, 30.0, 50.0])
def test_frames_meet_the_nearest_in_time(fps: float) -> None:
    pairs = list(both(numbered(20, 25.0), numbered(round(0.8 * fps), fps)))
    apart = [abs(int(a[0, 0, 0]) - int(b[0, 0, 0])) * 5 for a, b in pairs]
    assert len(pairs) == 20 and max(apart) <= 500 / fps + 10


def test_what_one_side_lacks_is_left_out() -> None:
    at = nearest(steady_pts(10, 25.0) + 80_000_000, steady_pts(20, 25.0))
    assert at.tolist() == [-1, -1, *range(10), *[-1] * 8]
    assert (nearest(np.zeros(0, np.int64), steady_pts(3, 25.0)) == -1).all()
    assert nearest(np.zeros(1, np.int64), steady_pts(3, 25.0)).tolist() == [0, -1, -1]


def test_rates_lengths_and_sizes_are_told() -> None:
    made, real = numbered(20, 25.0, size=(64, 64)), numbered(12, 30.0)
    found = evaluate(Comparison(generated=[made], pairs=[(made, real)]), ["pictures"], Models(offline=True))
    told = " ".join(found["notes"])
    assert "25 fps, its reference 30" in told and "0.80 s, its reference 0.40 s" in told
    assert "10 of 20 frames" in told and "the reference is scaled" in told
    assert found["values"]["psnr"]["value"] is not None


def test_another_shape_is_not_compared() -> None:
    made, real = numbered(20, 25.0, size=(32, 64)), numbered(20, 25.0)
    found = evaluate(Comparison(generated=[made], pairs=[(made, real)]), ["pictures"], Models(offline=True))
    assert found["values"]["psnr"]["value"] is None and "of another shape" in found["notes"][0]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "talk.mp4"
    make_clip(path, identity=next(iter(PEOPLE.values())), seconds=0.6)
    return path


def test_command_on_two_videos(video: Path, toolkit: Toolkit) -> None:
    found = json.loads(toolkit("evaluate", video, "--reference", video, "--offline", "--json").stdout)
    assert found["values"]["psnr"]["value"] == 100 and found["values"]["ssim"]["value"] == pytest.approx(1, abs=1e-4)
    assert "mouth_shapes" in found["skipped"] and not found["notes"]
    assert "lpips" in found["skipped"] or found["weights"]["lpips"][0]["sha256"].startswith("7be5be79")
    table = toolkit("evaluate", video.parent, "--reference", video, "--metrics", "pictures").stdout
    assert "psnr" in table and "higher" in table


def test_worse_pictures_measure_worse(video: Path, tmp_path: Path) -> None:
    """Blur and noise, each in two strengths, for every metric of pairs of pictures."""
    frames = [frame.rgb for frame in VideoReader(str(video))][:3]
    rng = np.random.default_rng(0)
    ways = {
        "blur": [lambda p, s=s: cv2.GaussianBlur(p, (0, 0), s) for s in (1.0, 4.0)],
        "noise": [lambda p, s=s: (p + rng.normal(0, s, p.shape)).clip(0, 255).astype(np.uint8) for s in (8, 40)],
    }
    real = of_frames(frames)
    models = random_trunks(tmp_path)
    for steps in ways.values():
        rows = [measured(of_frames([step(p) for p in frames]), real, models) for step in steps]
        assert 100 > rows[0]["psnr"] > rows[1]["psnr"] and 1 > rows[0]["ssim"] > rows[1]["ssim"]
        assert 0 < rows[0]["lpips_alex"] < rows[1]["lpips_alex"]


def of_frames(frames: list[np.ndarray]) -> Face:
    return Face(key="f", pts_ns=steady_pts(len(frames), 25.0), columns={}, pictures=lambda: iter(frames))


def measured(made: Face, real: Face, models: Models) -> dict[str, float]:
    given = Comparison(generated=[made], references=[real], pairs=pair_up([made], [real]))
    found = evaluate(given, ["pictures", "lpips"], models)
    assert not found["skipped"] and len(found["weights"]["lpips"][0]["sha256"]) == 64
    return {name: row["value"] for name, row in found["values"].items()}


def test_a_video_is_a_face_without_columns(video: Path) -> None:
    face = of_video(video)
    assert face.pictures is not None and len(list(face.pictures())) == len(face.pts_ns) > 10
    assert face.key == "talk" and not face.columns
