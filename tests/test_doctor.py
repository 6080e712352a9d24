"""The doctor looks at what is there."""

from pathlib import Path

from talkface.doctor import examine
from talkface.weights import Models


def test_this_machine_is_fit(tmp_path: Path) -> None:
    findings = {f.what: f for f in examine(Models(offline=True, cache=tmp_path / "none"), tmp_path)}
    assert not [f for f in findings.values() if f.level == "bad"]
    assert findings["decoder h264"].level == "ok"
    assert findings["precision auto"].detail in ("float32", "bfloat16")
    assert "toolkit models pull face_landmarker" in findings["model face_landmarker"].detail


def test_a_damaged_model_is_bad(tmp_path: Path) -> None:
    (tmp_path / "face_landmarker.task").write_bytes(b"no model")
    findings = {f.what: f for f in examine(Models(tmp_path, offline=True), tmp_path)}
    assert findings["model face_landmarker"].level == "bad"
