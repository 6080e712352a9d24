"""Motion to pictures: shapes where they belong, gaps bridged, times and sound kept, files that say what they are."""

import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from talkface.clip import NS
from talkface.datasets.reader import Dataset
from talkface.media import ClipFrames, VideoReader, read_sound
from talkface.motion import Motion, head_rows, steady_pts
from talkface.render import talk
from talkface.render.rigs import SyntheticRig
from talkface.render.synthetic import PEOPLE, make_clip, write_wav
from talkface.vocab import ARKIT, SAMPLE_RATE
from tests.conftest import Toolkit
from tests.media.making import blip, centres

SIZE = 128
AREAS = {
    "eye": (0.28, 0.58),
    "brow": (0.12, 0.55),
    "cheek": (0.3, 0.85),
    "nose": (0.25, 0.75),
    "mouth": (0.4, 1.0),
    "jaw": (0.45, 1.0),
    "tongue": (0.55, 1.0),
}
"""Rows of the picture, as shares of its height, in which a family of shapes may change it."""


@pytest.fixture(scope="module")
def rig() -> SyntheticRig:
    return SyntheticRig()


def motion(frames: int = 10, fps: float = 25.0, **about: object) -> Motion:
    arkit = np.zeros((frames, 52), np.float32)
    arkit[:, ARKIT.index("jawOpen")] = np.linspace(0, 1, frames)
    return Motion(
        pts_ns=steady_pts(frames, fps), arkit=arkit, head=head_rows(np.zeros((frames, 3))), fps=fps, provenance=about
    )


@pytest.mark.parametrize("name", ARKIT)
def test_every_shape_changes_the_picture_where_it_should(rig: SyntheticRig, name: str) -> None:
    rest = rig.picture(np.zeros(52), np.eye(3), SIZE).astype(int)
    change = np.abs(rig.picture(np.eye(52)[ARKIT.index(name)], np.eye(3), SIZE) - rest).sum(axis=2)
    assert change.sum() > 800, "it shows"
    low, high = AREAS[next(f for f in AREAS if name.startswith(f))]
    rows = change.sum(axis=1)
    assert rows[int(low * SIZE) : int(high * SIZE)].sum() > 0.97 * rows.sum()
    if name.endswith(("Left", "Right")) and not name.startswith(("jaw", "mouthLeft", "mouthRight")):
        persons_left = change[:, SIZE // 2 :].sum() / change.sum()
        assert persons_left > 0.7 if name.endswith("Left") else persons_left < 0.3


def lips(picture: np.ndarray) -> np.ndarray:
    """Middle (x, y) of the lips: what is red in the lower half."""
    red = picture[SIZE // 2 :, :, 0].astype(int) - picture[SIZE // 2 :, :, 1] > 75
    y, x = np.nonzero(red)
    return np.array([np.median(x), np.median(y)])


@pytest.mark.parametrize(("angles", "axis", "sign"), [((25, 0, 0), 0, 1), ((-25, 0, 0), 0, -1), ((0, 15, 0), 1, -1)])
def test_the_head_turns_as_its_angles_say(rig: SyntheticRig, angles: tuple, axis: int, sign: int) -> None:
    """yaw > 0: the mouth goes to the picture's right; pitch > 0: up."""
    still = motion(1)
    turned = Motion(pts_ns=still.pts_ns, arkit=still.arkit, head=head_rows(np.radians([angles])), fps=25)
    before, after = (lips(next(talk.frames(m, rig, SIZE))) for m in (still, turned))
    assert sign * (after - before)[axis] > 3


def test_gaps_are_bridged() -> None:
    whole = motion(9)
    holes = Motion(pts_ns=whole.pts_ns, arkit=whole.arkit.copy(), head=whole.head.copy(), fps=25)
    holes.arkit[3:5] = np.nan
    holes.arkit[:, ARKIT.index("tongueOut")] = np.nan
    holes.head[:2] = np.nan
    filled = talk.without_gaps(holes)
    assert np.allclose(filled.arkit, whole.arkit, atol=1e-6)
    assert np.allclose(filled.head[:, :4], whole.head[:, :4])
    assert not filled.head[:, 4:].any()
    nothing = Motion(pts_ns=whole.pts_ns, arkit=whole.arkit * np.nan, head=whole.head * np.nan)
    assert not talk.without_gaps(nothing).arkit.any()


def test_motion_at_other_times() -> None:
    slow = talk.at_times(motion(10), np.array([0, 20_000_000, 400_000_000, NS]))
    jaw = slow.arkit[:, ARKIT.index("jawOpen")]
    assert jaw == pytest.approx([0, 0.5 / 9, 1, 1], abs=1e-6)


def test_a_file_keeps_its_times_its_sound_and_says_that_it_is_synthetic(rig: SyntheticRig, tmp_path: Path) -> None:
    pts = np.array([0, 33, 70, 110, 200, 260, 300, 420, 600, 700], np.int64) * 1_000_000
    about = {"synthetic": True, "checkpoint": "3f2a", "seed": 7}
    made = motion(**about)
    made = Motion(pts_ns=pts, arkit=made.arkit, head=made.head, provenance=about)
    path = tmp_path / "talk.mp4"
    sound = blip(SAMPLE_RATE, 2.0, [0.3, 0.55])
    talk.write_video(path, talk.frames(made, rig, 96), pts, tags=talk.tags_of(made, rig.name), sound=sound)
    assert [f.pts_ns for f in VideoReader(str(path))] == pts.tolist()
    heard = read_sound(str(path), 0, 800_000_000)
    assert centres(heard.samples, [0.3, 0.55]) == pytest.approx([0.3, 0.55], abs=2e-4)
    assert heard.start_offset_ms == pytest.approx(0, abs=0.1)
    with av.open(str(path)) as container:
        tags = dict(container.metadata)
        seconds = [float(s.duration * s.time_base) for s in container.streams]
    assert seconds == pytest.approx([0.8, 0.8], abs=0.07), "sound ends with the picture"
    assert "Synthetic" in tags["comment"] and "3f2a" in tags["comment"] and tags["title"] == "Synthetic talking face"
    assert json.loads(tags["description"])["motion"] == about
    assert json.loads(tags["description"])["synthetic"] is True


def test_nothing_is_left_of_a_file_that_failed(rig: SyntheticRig, tmp_path: Path) -> None:
    def stops():
        yield np.zeros((96, 96, 3), np.uint8)
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        talk.write_video(tmp_path / "a.mp4", stops(), steady_pts(5, 25), tags={})
    assert list(tmp_path.iterdir()) == []


def test_side_by_side_shows_what_is_on_the_screen(rig: SyntheticRig) -> None:
    """A source at 50 frames/s that grows brighter, beside motion at 20 frames/s that lasts longer."""
    clip = [np.full((64, 64, 3), 4 * i, np.uint8) for i in range(20)]
    source = talk.Source(pictures=iter(clip), pts_ns=steady_pts(20, 50), motion=motion(20, 50))
    shown = list(talk.side_by_side(motion(12, 20, synthetic=True), source, rig, 64))
    assert {p.shape for p in shown} == {(64 + 2 * 96, 3 * 64, 3)}
    brightness = [int(p[50, 30, 0]) for p in shown]
    assert brightness == [4 * min(int(i * 2.5), 19) for i in range(12)]
    half = len(shown) // 2
    assert not np.array_equal(shown[half][:64, 64:128], shown[half][:64, 128:]), "two mouths, open by different amounts"


def test_sheets(rig: SyntheticRig) -> None:
    assert talk.shapes_sheet(rig, size=48).shape[1] == 9 * (48 + 16)
    assert talk.sheet(motion(30), rig, n_frames=5, size=48).ndim == 3
    assert talk.sheet(motion(2), rig, n_frames=5, size=48).ndim == 3


def test_range_of_motion_shows_every_shape_and_turn() -> None:
    moving = talk.range_of_motion()
    assert np.allclose(moving.arkit.max(axis=0), 1)
    assert np.degrees(moving.angles()).max(axis=0) == pytest.approx([35, 20, 20], abs=1)
    assert moving.is_synthetic


def test_command_on_motion_files(tmp_path: Path, toolkit: Toolkit) -> None:
    motion(12, synthetic=True, checkpoint="abc").save(tmp_path / "m.npz")
    write_wav(tmp_path / "a.wav", blip(SAMPLE_RATE, 0.48, [0.25]))
    out, png = tmp_path / "talk.mp4", tmp_path / "talk.png"
    said = toolkit(
        "render", tmp_path / "m.npz", "--out", out, "--sheet", png, "--audio", tmp_path / "a.wav", "--size", "96"
    )
    assert "12 frames" in said.stdout and "x real time" in said.stdout
    assert ClipFrames(out).get([11]).shape == (1, 96, 96, 3)
    assert centres(read_sound(str(out), 0, 480_000_000).samples, [0.25])[0] == pytest.approx(0.25, abs=2e-4)
    assert cv2.imread(str(png)) is not None


def test_what_a_csv_tells_goes_into_video_and_sheet(tmp_path: Path, toolkit: Toolkit) -> None:
    """Live Link Face's format has no place for it, yet what a model made stays what a model made."""
    about = {"synthetic": True, "checkpoint": "abc", "style": "Zoë"}
    motion(3, **about).save(tmp_path / "m.csv")
    toolkit("render", tmp_path / "m.csv", "--out", tmp_path / "m.mp4", "--sheet", tmp_path / "m.png", "--size", "64")
    with av.open(str(tmp_path / "m.mp4")) as container:
        video = container.metadata
    with Image.open(tmp_path / "m.png") as picture:
        picture.load()
        sheet = {name.lower(): text for name, text in picture.text.items()}
    for tags in (video, sheet):
        assert tags["title"] == "Synthetic talking face"
        assert "Motion of a model" in tags["comment"] and "checkpoint abc" in tags["comment"]
        assert json.loads(tags["description"])["motion"] == about


def test_a_png_says_what_any_language_calls_it(tmp_path: Path) -> None:
    talk.write_png(np.full((8, 8, 3), (250, 10, 90), np.uint8), tmp_path / "a.png", {"title": "Gesicht für ü"})
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.getpixel((3, 3)) == (250, 10, 90) and picture.text == {"Title": "Gesicht für ü"}


def test_command_on_a_dataset(demo: Path, tmp_path: Path, toolkit: Toolkit) -> None:
    dataset = Dataset(str(demo))
    key = next(k for k in dataset.keys() if "surprised" in k)  # noqa: SIM118
    out = tmp_path / "both.mp4"
    toolkit("render", key, "--data", demo, "--side-by-side", key, "--size", "64", "--out", out, "--draft")
    frames = ClipFrames(out)
    assert len(frames) == len(dataset.arrays(key, ["pts"])["pts"])
    assert frames.get([10]).shape[1:] == (64 + 2 * 96, 192, 3)
    assert np.abs(read_sound(str(out), 0, 2 * NS).samples).max() > 300
    with av.open(str(out)) as container:
        assert key in container.metadata["comment"]


def test_command_beside_a_video(tmp_path: Path, toolkit: Toolkit) -> None:
    """The clip is extracted on the way, and nothing of it stays."""
    make_clip(tmp_path / "clip.mp4", identity=PEOPLE["M003"], seconds=1.2, size=(320, 320))
    motion(12, synthetic=True, checkpoint="abc").save(tmp_path / "m.npz")
    out = tmp_path / "both.mp4"
    arguments = ("--side-by-side", tmp_path / "clip.mp4", "--offline", "--size", "64", "--draft", "--out", out)
    toolkit("render", tmp_path / "m.npz", *arguments)
    assert ClipFrames(out).get([3]).shape == (1, 64 + 2 * 96, 192, 3)
    assert np.abs(read_sound(str(out), 0, 480_000_000).samples).max() > 300
    assert sorted(p.name for p in tmp_path.iterdir()) == ["both.mp4", "clip.mp4", "clip.truth.npz", "m.npz"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["m.npz"], "--out"),
        (["m.npz", "--out", "a.mp4", "--gl", "yes"], "egl"),
        (["m.npz", "--out", "a.mp4", "--rig", "nowhere.glb"], "ICT-FaceKit"),
        (["m.npz", "--out", "a.mp4", "--side-by-side", "key"], "--data"),
        (["absent.npz", "--out", "a.mp4"], "absent.npz"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, toolkit: Toolkit, arguments: list[str], word: str) -> None:
    motion(3).save(tmp_path / "m.npz")
    said = toolkit("render", str(tmp_path / arguments[0]), *arguments[1:], code=None)
    assert said.returncode in (1, 2) and word in said.stderr
    assert len(said.stderr.strip().splitlines()) == 1
