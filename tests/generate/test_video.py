"""Video from a portrait: as a command, frame by frame, by a task that lies outside the package."""

import json
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from talkface.errors import MediaError, SourceError
from talkface.generate.extract import read_portrait
from talkface.media import ClipFrames, VideoReader
from talkface.motion import Motion, head_rows, steady_pts
from talkface.render.rigs import SyntheticRig
from talkface.render.synthetic import two_people
from talkface.train import checkpoint
from talkface.weights import Models
from tests.conftest import Toolkit
from tests.generate.test_motion import write_sound

PUPPET = "tests.train.outside.puppet:Task"


@pytest.fixture(scope="module")
def puppet(talkers: str, tmp_path_factory: pytest.TempPathFactory, toolkit: Toolkit) -> Path:
    out = tmp_path_factory.mktemp("puppet") / "run"
    toolkit("train", PUPPET, "--data", talkers, "--out", out, "--preset", "tiny", "--workers", "0", "--cpu")
    return out


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of the built-in head in the middle of a larger one."""
    path = tmp_path_factory.mktemp("face") / "face.png"
    picture = np.full((480, 640, 3), 90, np.uint8)
    picture[60:444, 100:484] = SyntheticRig().picture(np.zeros(52, np.float32), np.eye(3), 384)
    cv2.imwrite(str(path), picture[:, :, ::-1])
    return path


def test_a_portrait_is_cropped_as_clips_are(face: Path, models: Path) -> None:
    portrait = read_portrait(str(face), Models(models, offline=True))
    assert portrait.picture.shape == (512, 512, 3) and portrait.lm.shape == (478, 3)
    x0, y0, x1, y1 = portrait.box[:4]
    longer = max(x1 - x0, y1 - y0)
    assert 0.45 < longer / 512 < 0.65, "the crop is 1.8 faces wide"
    assert abs((x0 + x1) / 2 - 256) < 26 and abs((y0 + y1) / 2 - 256) < 52
    assert (portrait.lm[:, :2].min(0) >= [x0 - 1, y0 - 1]).all() and (
        portrait.lm[:, :2].max(0) <= [x1 + 1, y1 + 1]
    ).all()
    assert np.isfinite(portrait.columns["arkit"][:51]).all() and np.isfinite(portrait.columns["head"][:7]).all()
    small = portrait.resized(128)
    np.testing.assert_allclose(small.lm, portrait.lm / 4, rtol=1e-5)


def test_pictures_without_one_face(tmp_path: Path, models: Path) -> None:
    store = Models(models, offline=True)
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((256, 256, 3), 128, np.uint8))
    with VideoReader(str(two_people(tmp_path / "two.mp4", seconds=0.2))) as frames:
        cv2.imwrite(str(tmp_path / "two.png"), next(iter(frames)).rgb[:, :, ::-1])
    (tmp_path / "text.png").write_text("no picture")
    for name, error, line in (
        ("grey.png", SourceError, "no face found"),
        ("two.png", SourceError, "2 faces found"),
        ("text.png", MediaError, "not a picture"),
        ("gone.png", MediaError, "cannot be read"),
    ):
        with pytest.raises(error, match=line):
            read_portrait(str(tmp_path / name), store)


def test_a_portrait_speaks(puppet: Path, face: Path, models: Path, tmp_path: Path, toolkit: Toolkit) -> None:
    sound, out = write_sound(tmp_path / "a.wav", 1.5), tmp_path / "talk.mp4"
    given = ("--run", puppet, "--audio", sound, "--picture", face, "--models", models, "--offline")
    said = toolkit("sample", *given, "--out", out, "--set", "gain=2").stdout
    assert "38 frames" in said and "synthetic" in said
    with av.open(str(out)) as container:
        told = json.loads(container.metadata["description"])
        assert len(container.streams.audio) == 1 and "Synthetic" in container.metadata["comment"]
    assert told["synthetic"] is True
    made = told["video"]
    assert made["checkpoint"] == checkpoint.load(puppet).digest and made["sampling"] == {"gain": 2.0}
    assert made["picture"] == "face.png" and len(made["picture_sha256"]) == len(made["sound_sha256"]) == 64
    lights = [picture.mean() for picture in ClipFrames(out)]
    assert len(lights) == 38
    # The sound of the test is on in the first half of each third of a second: 4 loud frames, 4 silent ones, ...
    assert np.mean(lights[0:4]) > 1.1 * np.mean(lights[5:8])
    for wrong, line in (
        (("--out", tmp_path / "m.npz"), "written as .mp4"),
        (("--out", out, "--set", "gian=2"), "gain"),
    ):
        assert line in toolkit("sample", *given, *wrong, code=2).stderr


def test_what_does_not_fit_is_one_line(
    puppet: Path, face: Path, talkers: str, tmp_path: Path, toolkit: Toolkit
) -> None:
    sound = write_sound(tmp_path / "a.wav", 0.5)
    said = toolkit("sample", "--run", puppet, "--audio", sound, "--out", tmp_path / "m.npz", code=2).stderr
    assert said.count("\n") == 1 and "--picture" in said


def test_a_portrait_follows_motion(puppet: Path, face: Path, models: Path, tmp_path: Path, toolkit: Toolkit) -> None:
    n = 30
    turns = np.stack([0.4 * np.sin(np.arange(n) / 5), np.zeros(n), np.zeros(n)], axis=1)
    motion = Motion(
        pts_ns=steady_pts(n, 25), arkit=np.zeros((n, 52), np.float32), head=head_rows(turns), fps=25.0,
        provenance={"synthetic": True},
    )  # fmt: skip
    motion.save(tmp_path / "m.npz")
    sound, out = write_sound(tmp_path / "a.wav", 1.0), tmp_path / "talk.mp4"
    given = ("transfer", "--run", puppet, "--picture", face, "--models", models, "--offline", "--out", out)
    assert "30 frames" in toolkit(*given, "--driving", tmp_path / "m.npz", "--audio", sound).stdout
    with av.open(str(out)) as container:
        told = json.loads(container.metadata["description"])["video"]
        assert len(container.streams.audio) == 1
    assert told["driving"] == "m.npz" and told["motion"] == {"synthetic": True}
    assert "30 frames" in toolkit(*given, "--driving", out).stdout, "a video drives, too"
    assert "no such file" in toolkit(*given, "--driving", "nothing", code=2).stderr


LONG = """
import resource, sys
import numpy as np
from talkface.generate.video import Video
from talkface.motion import steady_pts

frames = int(sys.argv[1])
noise = np.random.default_rng(0).integers(0, 256, (8, 128, 128, 3), np.uint8)

def pictures():
    for i in range(frames):
        yield noise[i % 8]

about = {"task": "puppet", "checkpoint": "0"}
sound = np.zeros(frames * 640, np.int16)
video = Video(pictures=pictures, pts_ns=steady_pts(frames, 25), provenance=about, sound=sound)
video.save(sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    """Half a minute and two and a half of noise: as much memory for both."""
    used = []
    for frames in (800, 3600):
        run = [sys.executable, "-c", LONG, str(frames), str(tmp_path / "long.mp4")]
        used.append(int(subprocess.run(run, check=True, capture_output=True, text=True).stdout))
    size = (tmp_path / "long.mp4").stat().st_size >> 20
    assert size > 30, "else it shows nothing"
    assert used[1] - used[0] < 16, f"{used} MB for a file of {size} MB"
