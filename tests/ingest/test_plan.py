"""What an ingest would take, from trying a little of it."""

from pathlib import Path

import pytest

from talkface.config import Ingest, Pack, Video
from talkface.errors import ConfigError
from talkface.ingest.job import ingest
from talkface.ingest.plan import forecast
from talkface.ingest.scan import scan
from talkface.store import Folder
from talkface.weights import Models

MODELS = Models(offline=True)
QUICK = Ingest(pack=Pack(annotators=("box",), video=Video(size=64)))


def test_the_forecast_is_near_what_comes(videos: Path, tmp_path: Path) -> None:
    """Disk within a factor of two; what is done already is not counted."""
    clips = [str(p) for p in sorted(videos.glob("M003/video/*/*/*/*.mp4"))[:2]]
    scanned, out = scan(clips), Folder(tmp_path / "out")
    told = forecast(scanned, out, QUICK, MODELS, workers=1, seconds=2.0)
    assert not (tmp_path / "out").exists()
    assert (told.sources, told.units, told.units_done) == (2, 2, 0)
    assert told.clip_share > 0.9
    assert told.rejects == {}
    ingest(scanned, out, QUICK, MODELS, workers=0)
    packs = sum(p.stat().st_size for p in (tmp_path / "out" / "packs").glob("*.tar"))
    assert 0.5 < told.disk_bytes / (2 * packs) < 2
    again = forecast(scanned, out, QUICK, MODELS, workers=1, seconds=0.5)
    assert (again.units_done, again.seconds_todo, again.disk_bytes) == (2, 0, 0)


def test_a_plan_without_video_refuses_what_needs_it(videos: Path, tmp_path: Path) -> None:
    pack = Pack(annotators=("quality",), keep_video=False)
    scanned = scan([str(next(videos.rglob("*.mp4")))])
    told = forecast(scanned, Folder(tmp_path / "out"), Ingest(pack=pack), MODELS, workers=1, seconds=1.0)
    full = forecast(scanned, Folder(tmp_path / "out"), QUICK, MODELS, workers=1, seconds=1.0)
    assert 0 < told.disk_bytes < full.disk_bytes
    with pytest.raises(ConfigError, match="no annotator"):
        forecast(scanned, Folder(tmp_path / "out"), Ingest(pack=Pack(annotators=("x",))), MODELS, workers=1)
