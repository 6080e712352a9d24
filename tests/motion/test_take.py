"""A recording on its video's clock: by the app's log, by the video's timecode track, by the first row."""

from pathlib import Path

import av
import numpy as np
import pytest

from talkface.clip import NS
from talkface.errors import SourceError
from talkface.motion import steady_pts
from talkface.motion.live_link import live_link_text
from talkface.motion.take import FRAME_LOG, Take, read_take, recording_names
from talkface.vocab import ARKIT
from tests.motion.test_live_link import cells, joined, timecode

JAW = ARKIT.index("jawOpen")


def video(path: Path, frames: int = 60, *, start: str = "") -> None:
    """30 pictures a second, with a timecode track where ``start`` is given."""
    with av.open(path, "w", format="mov") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        if start:
            stream.metadata["timecode"] = start
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(stream.encode())


def recording(path: Path, start: float, rows: int = 150) -> None:
    """60 rows a second whose jawOpen is the seconds since midnight less 1000, over 100."""
    arkit = np.zeros((rows, 52), np.float32)
    arkit[:, JAW] = (start - 1000 + np.arange(rows) / 60) / 100
    head, *lines = cells(live_link_text(steady_pts(rows, 60), arkit, np.zeros((rows, 3))))
    path.write_text(joined([head, *([timecode(start + i / 60, 60), *line[1:]] for i, line in enumerate(lines))]))


def log(path: Path, start: float, frames: int = 60) -> None:
    lines = [f"V,{i},{i * 20 + 7},600,{timecode(start + i / 30, 60)},0" for i in range(frames)]
    path.write_text("\n".join(["A,0,7,600,00:00:00:00.000,0", *lines]))


def test_the_log_says_when_the_first_picture_was(tmp_path: Path) -> None:
    video(tmp_path / "a.mov", start="00:00:00:00")
    recording(tmp_path / "a.csv", 999.5)
    log(tmp_path / FRAME_LOG, 1000)
    take = read_take(str(tmp_path / "a.mov"), [str(tmp_path / "a.csv"), str(tmp_path / FRAME_LOG)])
    assert abs(int(take.times_ns[0]) + NS // 2) < 20_000
    times = np.array([0, NS // 3, NS])
    np.testing.assert_allclose(take.at(times)[:, JAW], times / NS / 100, atol=1e-6)


@pytest.mark.parametrize(("start", "first_ns"), [("00:16:39:15", NS // 2), ("00:00:00:00", 0), ("", 0)])
def test_the_video_says_it_unless_it_cannot_be(start: str, first_ns: int, tmp_path: Path) -> None:
    """16 min 39.5 s at 30 frames a second; a track that the recording does not overlap is an editor's."""
    video(tmp_path / "a.mov", start=start)
    recording(tmp_path / "a.csv", 1000)
    take = read_take(str(tmp_path / "a.mov"), [str(tmp_path / "a.csv")])
    assert abs(int(take.times_ns[0]) - first_ns) <= NS // 60


def test_a_log_of_another_take_is_refused(tmp_path: Path) -> None:
    video(tmp_path / "a.mov")
    recording(tmp_path / "a.csv", 1000)
    files = [str(tmp_path / "a.csv"), str(tmp_path / FRAME_LOG)]
    for start in (990, 1010):
        log(tmp_path / FRAME_LOG, start)
        with pytest.raises(SourceError, match="its timecodes are not those of the video") as error:
            read_take(str(tmp_path / "a.mov"), files)
        assert error.value.reason == "bad_recording"
    (tmp_path / FRAME_LOG).write_text("V,0\n")
    with pytest.raises(SourceError, match="not a log of pictures"):
        read_take(str(tmp_path / "a.mov"), files)


def test_nothing_is_known_outside_and_in_gaps() -> None:
    times = np.array([0, 20, 40, 240, 260]) * 1_000_000
    arkit = np.tile(np.arange(5, dtype=np.float32)[:, None], (1, 52))
    take = Take(times, arkit)
    at = np.array([-30, -5, 0, 10, 45, 100, 240, 255, 269, 300]) * 1_000_000
    found = take.at(at)[:, JAW]
    np.testing.assert_array_equal(np.isfinite(found), [0, 1, 1, 1, 1, 0, 1, 1, 1, 0])
    np.testing.assert_allclose(found[[1, 2, 3, 6, 7]], [0, 0, 0.5, 3, 3.75], atol=1e-6)
    np.testing.assert_array_equal(Take(times[:1], arkit[:1]).at(at[2:3])[0], arkit[0])


def test_names_of_recordings() -> None:
    assert recording_names("/x/S_1_iPhone.mov") == (
        "/x/S_1_iPhone.csv",
        "/x/S_1_iPhone_cal.csv",
        "/x/S_1_iPhone_raw.csv",
    )
