"""A small dataset made from packs of arrays, without any video; a real browser."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from talkface.clip import ColumnSpec, FrameTable, ScoreSpec, Timeline
from talkface.config import Build, Threshold
from talkface.datasets.build.job import build
from talkface.datasets.build.packs import PackUse, Plan
from talkface.datasets.reader import Dataset
from talkface.store import PACKS, Folder, npy, write_pack

COLUMNS = (
    ColumnSpec(name="arkit", dtype="float32", shape=(52,), unit="0..1", clock="frame", description="shapes"),
    ColumnSpec(name="mel", dtype="float16", shape=(80,), unit="log", clock="sound", description="mel", rate=80.0),
)


NOTHING: dict[str, Any] = {"sound_filled_seconds": 0.0, "sound_dropped_seconds": 0.0, "share": {}, "status": {}}
"""What a clip's record says where nothing is missing and no annotator is recorded."""


def source(name: str, **labels: Any) -> dict[str, Any]:
    """A row of sources.parquet."""
    unknown = dict.fromkeys(("speaker", "emotion", "intensity", "camera", "language", "audio_uri"))
    probe = {"container": "mp4", "duration": 4.0, "video_codec": "h264", "width": 64, "height": 64, "fps": 25.0}
    sound = {"rotation": 0, "audio_codec": "aac", "audio_rate": 48000, "audio_channels": 2}
    facts = {
        "uri": f"/x/{name}",
        "name": name,
        "sha256": name.encode().hex().ljust(64, "0"),
        "size": 1,
        "layout": "plain",
    }
    return {**unknown, **facts, **probe, **sound, "licence": "CC-BY-4.0", **labels}


def clip(key: str, frames: int, score: dict[str, float], seed: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A clip record and its members, as the pipeline writes them."""
    rng = np.random.default_rng(seed)
    timeline = Timeline((np.arange(frames) * 40_000_000).astype(np.int64))
    arkit = rng.random((frames, 52), np.float32)
    arkit[::3] = np.nan
    table = FrameTable(timeline, {"arkit": arkit})
    record = {
        "key": key, "track": 0, "shot": 0, "start_ns": 0, "end_ns": frames * 40_000_000, "duration": frames * 0.04,
        "frames": frames, "fps_avg": 25.0, "is_vfr": False, "av_offset_ms": 0.0, "av_drift_ms": 0.0,
        "crop": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], "crop_size": 64, "scores": score, **NOTHING,
    }  # fmt: skip
    members = {
        "mp4": rng.bytes(900), "flac": rng.bytes(400), "pts.npy": npy(timeline.pts_ns), "valid.npy": npy(table.valid()),
        "arkit.npy": npy(arkit), "mel.npy": npy(rng.random((frames * 3, 80)).astype(np.float16)),
    }  # fmt: skip
    return record, members


def make_plan(folder: Folder, n_sources: int = 6, score: str = "coverage", **build_settings: Any) -> Plan:
    """Packs in ``folder`` (one a source, two clips each, the second of the first source with little coverage)."""
    packs = Folder(f"{folder.url}/{PACKS}")
    sources = [source(f"s{i}.mp4", speaker=f"p{i // 2}", emotion="happy", intensity=3) for i in range(n_sources)]
    for i in range(n_sources):
        about: dict[str, Any] = {"clips": [], "rejects": []}
        with write_pack(packs, f"u{i}", about) as pack:
            for j in range(2):
                record, members = clip(f"{j}", 10 + i, {score: 0.2 if (i, j) == (0, 1) else 1.0}, 10 * i + j)
                about["clips"].append(record)
                pack.add(record["key"], members)
    info = {
        "talkface": "0", "annotators": {}, "faces": (), "config": {}, "config_hash": "0",
        "fingerprint": "0", "layout": "plain", "strictest_licence": "CC-BY-4.0",
    }  # fmt: skip
    scores = [ScoreSpec(name=score, unit="0..1", description="a share")]
    packs_used = [PackUse(name=f"u{i}", source=f"s{i}.mp4", prefix=f"s{i}-") for i in range(n_sources)]
    settings = {"thresholds": {"coverage": Threshold(min=0.5)}, "shard_megabytes": 0.03} | build_settings
    return Plan(
        sources=sources, packs=packs_used, rejects=[], columns=COLUMNS, scores=scores,
        info=info, has_video=True, build=Build(**settings),
    )  # fmt: skip


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Six sources of three speakers, eleven clips in several shards; one clip below the coverage threshold."""
    folder = Folder(tmp_path / "dataset")
    build(folder, make_plan(folder))
    return Dataset(str(tmp_path / "dataset"))


FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --autoplay-policy=no-user-gesture-required --mute-audio"
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium through Playwright, one a process, as Playwright has it; skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = os.environ.get("TALKFACE_TEST_CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.skip("no Chromium: `make browser` installs it where it may")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=path, args=FLAGS.split())
        yield opened
        opened.close()
