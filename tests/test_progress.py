"""A bar on a terminal, lines in a log: in real processes with a real terminal and a real file."""

import os
import pty
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

CODE = """
from talkface.progress import advance, bar
with bar("ingest", 10.0, "s", done=2.0) as shown:
    for at in (4.999999999999998, 10.0):
        advance(shown, at, f"{at:.0f} files")
        shown.refresh()
"""


def test_a_log_gets_lines(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        subprocess.run([sys.executable, "-c", CODE], stderr=log, check=True)
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line.split("%")[0] for line in lines if line] == ["ingest:  20", "ingest:  50", "ingest: 100"]
    assert any(" 5.0/10.0 s," in line for line in lines)
    assert all("\r" not in line and "|" not in line for line in lines)
    assert lines[-1].endswith("10 files")


def test_a_terminal_gets_a_bar_that_goes_away() -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    with subprocess.Popen([sys.executable, "-c", CODE], stderr=theirs) as process:
        os.close(theirs)
        seen = b""
        with suppress(OSError):  # the other end is closed
            while data := os.read(ours, 4096):
                seen += data
        process.wait()
    os.close(ours)
    assert b"\r" in seen
    assert b"100%|" in seen
    assert not seen.rstrip(b"\r").rpartition(b"\r")[2].strip(), "wiped off at the end"
