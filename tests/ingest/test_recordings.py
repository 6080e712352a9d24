"""`toolkit import`: what was recorded takes the place of what is estimated, on time; what does not fit is told."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from talkface.annotate._recording import likeness
from talkface.clip import NS
from talkface.config import Pack
from talkface.datasets import Dataset, open_dataset
from talkface.datasets.verify.dataset import verify
from talkface.ingest.recordings import with_recordings
from talkface.ingest.scan import scan
from talkface.motion import Motion, steady_pts
from talkface.motion.take import FRAME_LOG, Take
from talkface.vocab import ARKIT
from tests.conftest import Toolkit
from tests.motion.test_live_link import cells, joined, stamped, timecode

CONFIG = """
[pack]
annotators = ["box", "arkit"]
[pack.video]
size = 128
"""
EARLY = 0.2
"""Seconds that one take's recording runs before its video does."""
BEFORE_MIDNIGHT = 86_399.0
NAMES = {"take": "S_1_iPhone"}
LOST = slice(30, 45)
"""Rows in which that take's recorder did not see the face."""


def put(exported: Path, key: str, folder: Path, name: str) -> Path:
    """A take as it was exported, under another name; returns its recording."""
    folder.mkdir(parents=True)
    for ending in ("mp4", "csv"):
        shutil.copy(exported / f"{key}.{ending}", folder / f"{name}.{ending}")
    return folder / f"{name}.csv"


def as_the_app_leaves_it(recording: Path, video_pts_ns: np.ndarray) -> None:
    """Calibrated, begun before the video, over midnight, a face lost, beside a log of the video's pictures."""
    head, *rows = cells(recording.read_text())
    times = BEFORE_MIDNIGHT + video_pts_ns / NS
    lead = [[timecode(times[0] - EARLY + i / 60, 60), *rows[0][1:]] for i in range(int(EARLY * 60))]
    text = stamped(joined([head, *rows]), [timecode(t, 60) for t in times])
    kept = [row for i, row in enumerate(cells(text)[1:]) if not LOST.start <= i < LOST.stop]
    recording.with_name(f"{recording.stem}_cal.csv").write_text(joined([head, *lead, *kept]))
    recording.unlink()
    pictures = [f"V,{i},{i * 20},600,{timecode(t, 60)},0" for i, t in enumerate(times)]
    recording.with_name(FRAME_LOG).write_text("\n".join(pictures))


@pytest.fixture(scope="module")
def made(demo: Path, tmp_path_factory: pytest.TempPathFactory, toolkit: Toolkit) -> tuple[Path, dict[str, str]]:
    """Folder with ``takes``, ``config.toml`` and what came of them in ``required`` and ``preferred``; keys by take."""
    root = tmp_path_factory.mktemp("import")
    toolkit("export", demo, "--as", "livelink", "--out", root / "exported")
    keys = dict(zip(("plain", "take", "broken", "bare"), sorted(Dataset(str(demo)).keys()), strict=False))
    exported, takes = root / "exported", root / "takes"
    put(exported, keys["plain"], takes / "plain", "plain")
    recording = put(exported, keys["take"], takes / "take", NAMES["take"])
    as_the_app_leaves_it(recording, Dataset(str(demo)).arrays(keys["take"], ["pts"])["pts"])
    recording = put(exported, keys["broken"], takes / "broken", "broken")
    recording.write_text(recording.read_text().replace(",JawOpen,", ",Jaw,"))
    put(exported, keys["bare"], takes / "bare", "bare").unlink()
    (root / "config.toml").write_text(CONFIG)
    said = ("--config", root / "config.toml", "--offline", "--workers", "0")
    toolkit("import", takes, "--out", root / "required", *said, code=3)
    some = (takes / "plain", takes / "bare")
    toolkit("import", *some, "--out", root / "preferred", "--without", "estimate", *said)
    return root, keys


def clip_of(dataset: Dataset, take: str) -> str:
    (key,) = (c["key"] for c in dataset.clips.to_pylist() if Path(c["source"]).stem == NAMES.get(take, take))
    return str(key)


def test_what_was_recorded_comes_back_on_time(made: tuple[Path, dict[str, str]], demo: Path) -> None:
    """Exported, imported: equal to six digits at every frame, tongueOut too, which no estimate has."""
    root, keys = made
    dataset = open_dataset(str(root / "required"))
    for take in ("plain", "take"):
        key = clip_of(dataset, take)
        clip, arrays = dataset.clips.to_pylist()[dataset.row(key)], dataset.arrays(key, ["pts", "arkit"])
        frames = np.searchsorted(
            Dataset(str(demo)).arrays(keys[take], ["pts"])["pts"], arrays["pts"] + clip["start_ns"]
        )
        expected = Motion.load(root / "exported" / f"{keys[take]}.csv").arkit[frames]
        lost = (take == "take") & (frames >= LOST.start) & (frames < LOST.stop)
        assert len(frames) > 60 and lost.sum() == (take == "take") * 15
        assert np.isnan(arrays["arkit"][lost]).all()
        np.testing.assert_allclose(arrays["arkit"][~lost], expected[~lost], atol=2e-4)
        assert clip["recorded_share"] == pytest.approx(1 - lost.mean())
        assert clip["recorded_likeness"] ** 2 > 0.5, "it explains half of what was seen, whatever the processor"
        assert abs(clip["recorded_lag_ms"]) < 1000 / 25 / 2, "half a frame"
    assert verify(str(root / "required"), readers=False) == []


def test_sources_without_a_recording_that_fits_are_told(made: tuple[Path, dict[str, str]], toolkit: Toolkit) -> None:
    root, _ = made
    required, preferred = (open_dataset(str(root / mode)) for mode in ("required", "preferred"))
    reasons = {r["source"]: r for r in required.rejects() if r["stage"] == "scan"}
    assert reasons["bare/bare.mp4"]["reason"] == "no_recording"
    assert "bare.csv, bare_cal.csv, bare_raw.csv" in reasons["bare/bare.mp4"]["message"]
    assert reasons["broken/broken.mp4"]["reason"] == "bad_recording"
    assert "no column JawOpen" in reasons["broken/broken.mp4"]["message"]
    assert "no column JawOpen" in toolkit("why", root / "required", "broken.mp4").stdout
    estimated = preferred.arrays(clip_of(preferred, "bare"), ["arkit"])["arkit"]
    assert np.isnan(estimated[:, ARKIT.index("tongueOut")]).all() and np.isfinite(estimated[:, 0]).any()
    assert preferred.clips.to_pylist()[preferred.row(clip_of(preferred, "bare"))]["recorded_share"] == 0


def test_the_dataset_says_what_was_recorded(made: tuple[Path, dict[str, str]]) -> None:
    root, _ = made
    for mode, counted in (("required", "in 2 of 2 clips."), ("preferred", "in 1 of 2 clips; in the others they are")):
        assert f"recorded with Live Link Face {counted}" in (root / mode / "README.md").read_text()
        info = json.loads((root / mode / "dataset.json").read_text())
        assert info["annotators"]["arkit"]["config"] == {"recording": mode}
        (column,) = (c for c in info["columns"] if c["name"] == "arkit")
        assert "recorded by Live Link Face" in column["description"]
    sources = {s["name"]: s["recording"] for s in Dataset(str(root / "required")).table("sources").to_pylist()}
    assert [Path(f).name for f in sources["take/S_1_iPhone.mp4"]] == ["S_1_iPhone_cal.csv", FRAME_LOG]


def test_a_changed_recording_is_another_content(made: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    """So that its packs are made anew; a log that is added changes it too."""
    shutil.copytree(made[0] / "takes" / "plain", tmp_path / "takes")
    pack = Pack(annotate={"arkit": {"recording": "required"}})

    def content() -> str:
        (source,) = with_recordings(scan([str(tmp_path / "takes")]), pack).sources
        return source.sha256

    seen = [content()]
    path = tmp_path / "takes" / "plain.csv"
    path.write_text(path.read_text().replace("0.0000000000", "0.0000000001"))
    seen.append(content())
    (tmp_path / "takes" / FRAME_LOG).write_text("V,0,0,600,00:00:00:00.000,0")
    seen.append(content())
    (plain,) = with_recordings(scan([str(tmp_path / "takes")]), Pack()).sources
    assert len({*seen, plain.sha256}) == 4 and not plain.recording


def test_importing_without_blendshapes_is_a_mistake(toolkit: Toolkit, tmp_path: Path) -> None:
    failed = toolkit("import", tmp_path, "--out", tmp_path / "out", "--with", "box,mel", code=2)
    assert "leave arkit among the annotators" in failed.stderr


@pytest.mark.parametrize("late_ms", [-130, 0, 73])
def test_the_lag_is_how_late_a_recording_is(late_ms: int) -> None:
    times = steady_pts(200, 25)
    phases = np.arange(52)

    def shapes(ns: np.ndarray) -> np.ndarray:
        seconds = ns[:, None] / NS
        return (0.5 + 0.3 * np.sin(3 * seconds + phases) + 0.2 * np.sin(7.3 * seconds)).astype(np.float32)

    seen = shapes(times) * 0.7 + 0.1
    seen[:, -1] = np.nan
    recorded = steady_pts(600, 60) - NS
    found = likeness(Take(recorded, shapes(recorded - late_ms * 1_000_000)), seen, times)
    assert found[0] > 0.99 and abs(found[1] - late_ms) < 3
    assert np.isnan(likeness(Take(recorded, np.zeros((600, 52), np.float32)), seen, times)).all()
