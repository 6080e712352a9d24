"""Live Link Face's CSV: timecodes of any rate, over midnight, with dropped rows; and what is refused, where."""

import csv
import io
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from talkface.clip import NS
from talkface.errors import SourceError
from talkface.motion import steady_pts
from talkface.motion.live_link import COLUMNS, LiveLink, live_link_text, parse_live_link, read_live_link
from talkface.vocab import ARKIT


@cache
def text_of(rows: int = 100, seed: int = 0, fps: float = 60) -> str:
    rng = np.random.default_rng(seed)
    arkit = rng.random((rows, 52)).astype(np.float32)
    return live_link_text(steady_pts(rows, fps), arkit, rng.uniform(-0.5, 0.5, (rows, 3)))


def cells(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def joined(rows: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def stamped(text: str, stamps: list[str]) -> str:
    head, *rows = cells(text)
    return joined([head, *([stamp, *row[1:]] for stamp, row in zip(stamps, rows, strict=True))])


def timecode(seconds: float, fps: int) -> str:
    whole, part = divmod(round(seconds * fps * 1000) / 1000, fps)
    return f"{int(whole) // 3600 % 24:02}:{int(whole) // 60 % 60:02}:{int(whole) % 60:02}:{part:06.3f}"


@settings(deadline=None, max_examples=20)
@given(
    fps=st.sampled_from([24, 25, 30, 60]),
    step=st.sampled_from([1, 2]),
    start=st.floats(0, 86_399),
    dropped=st.sets(st.integers(1, 60), max_size=10),
)
@example(fps=60, step=1, start=86_399.5, dropped=set())
def test_times_at_any_rate_over_midnight_with_rows_dropped(
    fps: int, step: int, start: float, dropped: set[int]
) -> None:
    """Some 100 rows, more than a second: what a timecode counts is seen where one second ends and the next begins."""
    kept = [i for i in range(110) if i not in dropped]
    times = np.array([i * step / fps for i in kept])
    found = parse_live_link(stamped(text_of(len(kept)), [timecode(start + t, fps) for t in times]))
    assert abs((found.start_seconds - start + 43200) % 86400 - 43200) < 0.001
    np.testing.assert_allclose(found.pts_ns / NS, times - times[0], atol=1.1e-3 / fps)


def test_rows_without_values_and_rows_that_go_back_are_left_out() -> None:
    head, *rows = cells(text_of(10))
    rows[3] = [rows[3][0], "0", *[""] * 61]
    rows[6][0] = rows[5][0]
    found = parse_live_link(joined([head, *rows]))
    assert len(found.pts_ns) == len(found.arkit) == len(found.angles) == 8
    column = COLUMNS.index("JawOpen")
    expected = [np.float32(rows[i][column]) for i in (0, 1, 2, 4, 5, 7, 8, 9)]
    np.testing.assert_array_equal(found.arkit[:, ARKIT.index("jawOpen")], expected)


def test_columns_go_by_name() -> None:
    head, *rows = cells(text_of(20))
    order = np.random.default_rng(1).permutation(len(head))
    shuffled = parse_live_link(joined([[row[i] for i in order] for row in (head, *rows)]))
    plain = parse_live_link(joined([head, *rows]))
    np.testing.assert_array_equal(shuffled.arkit, plain.arkit)
    np.testing.assert_array_equal(shuffled.angles, plain.angles)


def broken(line: int, column: str, cell: str) -> str:
    rows = cells(text_of(5))
    rows[line - 1][COLUMNS.index(column)] = cell
    return joined(rows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column Timecode and 61 more"),
        (joined([row[:-1] for row in cells(text_of(5))]), "no column RightEyeRoll"),
        (joined(cells(text_of(5))[:1]), "no row with blendshapes"),
        (broken(3, "JawOpen", "wide"), "line 3, JawOpen: 'wide' is not a number"),
        (broken(3, "JawOpen", ""), "line 3, JawOpen: '' is not a number"),
        (broken(3, "JawOpen", "nan"), "line 3, JawOpen: 'nan' is not a number"),
        (broken(4, "BlendShapeCount", "52"), "line 4 counts '52' values, expected 61"),
        (broken(2, "Timecode", "soon"), "line 2: timecode 'soon', expected HH:MM:SS:FF.fff"),
        (broken(2, "Timecode", "00:00:00;01"), "counts drop frames"),
        (broken(2, "Timecode", "00:00:00:240"), "frame 240, beyond 240 a second"),
        (joined([*cells(text_of(5)), ["00:00:01:00.000", "61", "0.5"]]), "line 7 has 3 cells, expected 63"),
    ],
)
def test_what_is_no_recording_is_refused_with_the_place(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(SourceError, match=f"a.csv: not a Live Link Face recording: .*{message}") as error:
        read_live_link(tmp_path / "a.csv")
    assert error.value.reason == "bad_recording"


def test_a_timecode_before_midnight_is_before_one_after_it() -> None:
    found = LiveLink(0.5, np.zeros(1, np.int64), np.zeros((1, 52), np.float32), np.zeros((1, 3)))
    assert found.since_ns(86399.5) == NS
    assert found.since_ns(1.0) == -NS // 2
