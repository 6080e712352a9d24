"""Motion files: what is written comes back; Live Link Face's own recording is understood."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jaxtyping import TypeCheckError

from talkface.annotate.head import euler_degrees
from talkface.errors import SourceError
from talkface.motion import Motion, head_angles, head_rows, steady_pts
from talkface.motion.live_link import COLUMNS
from talkface.vocab import ARKIT

RECORDING = "arkit/LiveLinkFace-CSV-Retarget-For-Motionbuilder__alex_rom_3.csv"


def make_motion(frames: int = 40, seed: int = 0) -> Motion:
    rng = np.random.default_rng(seed)
    arkit = rng.random((frames, 52)).astype(np.float32)
    head = head_rows(rng.uniform(-0.8, 0.8, (frames, 3)), rng.normal(size=(frames, 3)))
    about = {"synthetic": True, "checkpoint": "abc"}
    return Motion(pts_ns=steady_pts(frames, 25), arkit=arkit, head=head, fps=25.0, provenance=about)


@pytest.mark.parametrize("frames", [0, 1, 40])
def test_npz_gives_back_what_was_saved(tmp_path: Path, frames: int) -> None:
    motion = make_motion(frames)
    motion.arkit[::3, ARKIT.index("tongueOut")] = np.nan
    motion.save(tmp_path / "m.npz")
    again = Motion.load(tmp_path / "m.npz")
    for name in ("pts_ns", "arkit", "head"):
        np.testing.assert_array_equal(getattr(again, name), getattr(motion, name))
    assert (again.fps, again.provenance, again.is_synthetic) == (25.0, motion.provenance, True)


def test_equal_motion_gives_equal_bytes(tmp_path: Path) -> None:
    for name in "ab":
        make_motion().save(tmp_path / f"{name}.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_live_link_gives_back_what_was_saved(tmp_path: Path) -> None:
    motion = make_motion(2000)
    motion.save(tmp_path / "m.csv")
    again = Motion.load(tmp_path / "m.csv")
    np.testing.assert_allclose(again.arkit, motion.arkit, atol=1e-6)
    np.testing.assert_allclose(again.angles(), motion.angles(), atol=1e-6)
    np.testing.assert_allclose(again.pts_ns, motion.pts_ns, atol=1e4)  # timecodes end in thousandths of a frame
    assert json.loads((tmp_path / "m.csv.json").read_text())["checkpoint"] == "abc"
    assert again.is_synthetic and again.provenance == motion.provenance


def test_live_link_of_a_recording_has_nothing_beside_it(tmp_path: Path) -> None:
    """Not even what was told of motion that had the name before."""
    motion = make_motion(3)
    motion.save(tmp_path / "m.csv")
    replace(motion, provenance={"synthetic": False}).save(tmp_path / "m.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["m.csv"]
    assert not Motion.load(tmp_path / "m.csv").is_synthetic


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[1]"])
def test_a_damaged_provenance_is_refused_with_a_sentence(tmp_path: Path, content: bytes) -> None:
    make_motion(3).save(tmp_path / "m.csv")
    (tmp_path / "m.csv.json").write_bytes(content)
    with pytest.raises(SourceError, match="not the provenance"):
        Motion.load(tmp_path / "m.csv")


def test_live_link_gaps_are_bridged_and_unknown_shapes_are_zero(tmp_path: Path) -> None:
    motion = make_motion(5)
    motion.arkit[:, 0] = [0, np.nan, np.nan, 0.6, np.nan]
    motion.arkit[:, 51] = np.nan
    motion.head[2] = np.nan
    motion.save(tmp_path / "m.csv")
    again = Motion.load(tmp_path / "m.csv")
    np.testing.assert_allclose(again.arkit[:, 0], [0, 0.2, 0.4, 0.6, 0.6], atol=1e-6)
    assert (again.arkit[:, 51] == 0).all()
    np.testing.assert_allclose(again.angles()[2], motion.angles()[[1, 3]].mean(axis=0), atol=1e-6)


def test_a_real_recording(media: Path, tmp_path: Path) -> None:
    """Its columns are the ones we write; by name, not by position; eyes turn the way the shapes say."""
    with (media / RECORDING).open() as file:
        rows = list(csv.reader(file))
    assert tuple(rows[0]) == COLUMNS
    motion = Motion.load(media / RECORDING)
    assert len(motion) == len(rows) - 1
    assert 29.9 < motion.fps < 30.1
    column = rows[0].index("JawRight")
    theirs = np.array([float(r[column]) for r in rows[1:]], np.float32)
    np.testing.assert_array_equal(motion.arkit[:, ARKIT.index("jawRight")], theirs)
    assert theirs.std() > 0.01
    motion.save(tmp_path / "again.csv")
    with (tmp_path / "again.csv").open() as file:
        ours = list(csv.reader(file))
    for name in ("LeftEyeYaw", "RightEyeYaw", "LeftEyePitch", "RightEyePitch"):
        at = rows[0].index(name)
        real, made = (np.array([float(r[at]) for r in of[1:]]) for of in (rows, ours))
        assert np.corrcoef(real, made)[0, 1] > 0.98
        assert np.abs(real - made).max() < 0.15  # a phone is near: real eyes converge by 0.06 rad more
    for name in ("JawRight", "MouthLeft", "BrowInnerUp", "TongueOut"):
        at = rows[0].index(name)
        np.testing.assert_allclose([float(r[at]) for r in ours[1:]], [float(r[at]) for r in rows[1:]], atol=1e-6)


ANGLES = arrays(np.float64, st.tuples(st.integers(1, 8), st.just(3)), elements=st.floats(-1.5, 1.5))


@settings(deadline=None, max_examples=50)
@given(ANGLES)
def test_angles_and_rotations(angles: np.ndarray) -> None:
    rows = head_rows(angles)
    np.testing.assert_allclose(head_angles(rows[:, :4]), angles, atol=1e-4)
    np.testing.assert_allclose(np.degrees(head_angles(rows[:, :4])), euler_degrees(rows[:, :4]), atol=1e-6)
    assert ((rows[1:, :4] * rows[:-1, :4]).sum(1) >= 0).all()
    assert np.isnan(rows[:, 4:]).all()


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("a.npz", b"", "not a motion file"),
        ("a.npz", b"PK\x03\x04broken", "cannot be read|not a motion file"),
        ("a.csv", b"", "no column Timecode and 61 more"),
        ("a.csv", b"time,jaw\n0,1\n", "no column Timecode and 61 more"),
        ("a.csv", b"Timecode,EyeBlinkLeft\nnever,0.5\n", "no column EyeLookDownLeft and 59 more"),
        ("a.csv", b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_other_files_are_refused_with_a_sentence(tmp_path: Path, name: str, content: bytes, word: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=word):
        Motion.load(tmp_path / name)


def test_a_missing_file(tmp_path: Path) -> None:
    for name in ("no.npz", "no.csv"):
        with pytest.raises(SourceError, match="cannot be read"):
            Motion.load(tmp_path / name)


def test_arrays_must_fit_together() -> None:
    motion = make_motion()
    with pytest.raises((ValueError, TypeCheckError), match="head"):
        Motion(pts_ns=motion.pts_ns, arkit=motion.arkit, head=motion.head[1:])
    with pytest.raises((ValueError, TypeCheckError), match="arkit"):
        Motion(pts_ns=motion.pts_ns, arkit=motion.arkit.astype(np.float64), head=motion.head)
