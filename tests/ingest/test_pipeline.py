"""One work unit from file to pack, where things go wrong."""

import json
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import fsspec
import numpy as np
import pytest
from fsspec.implementations.local import LocalFileOpener, LocalFileSystem

from talkface.annotate.base import require_fit
from talkface.clip import Source
from talkface.config import Cut, Pack, Video
from talkface.errors import ConfigError, StorageError, WeightsError
from talkface.ingest.inputs import content_of
from talkface.ingest.pipeline import make_annotators, process, settings_fingerprint
from talkface.ingest.unit import Settings, Unit
from talkface.media import ClipFrames, VideoReader, decode_flac, probe
from talkface.store import Folder, from_npy, read_pack_index
from talkface.weights import Models
from tests.media.making import blip, centres, make

WHOLE_READS = 0.6
"""Share of a file after which a failing disk fails."""


class FailingFile(LocalFileOpener):
    """A file whose later part cannot be read as long as its disk has failures left."""

    def read(self, length: int = -1) -> bytes:
        if FailingFileSystem.left and self.tell() > WHOLE_READS * self.size:
            FailingFileSystem.left -= 1
            raise OSError(5, "Input/output error")
        return super().read(length)


class FailingFileSystem(LocalFileSystem):
    """A disk that fails ``left`` times in the middle of its files."""

    protocol = "failing"
    left = 0

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        return FailingFile(path, mode, fs=self)


@pytest.fixture(scope="module")
def clip(videos: Path) -> Path:
    return sorted(videos.glob("M003/video/*/*/*/*.mp4"))[0]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    pack = Pack(annotators=("box", "quality"), video=Video(size=64))
    models = Models(offline=True)
    return Settings(
        pack=pack,
        packs_url=str(tmp_path / "packs"),
        models=models,
        fingerprint=settings_fingerprint(pack, models),
    )


def unit_of(clip: Path, name: str, uri: str | None = None) -> Unit:
    sha256, size = content_of([str(clip)])
    source = Source(uri=uri or str(clip), name=name, sha256=sha256, size=size, layout="plain", probe=probe(str(clip)))
    return Unit(name=name, key=name, source=source, start_ns=0, end_ns=None)


def index_of(settings: Settings, name: str) -> dict[str, Any]:
    index = read_pack_index(Folder(settings.packs_url), name)
    assert index is not None
    return index


def contents(settings: Settings, name: str) -> dict[str, bytes]:
    """Bytes of the members of a pack with one clip, by extension."""
    with tarfile.open(f"{settings.packs_url}/{name}.tar") as tar:
        files = {info.name.partition(".")[2]: tar.extractfile(info) for info in tar}
        return {ext: file.read() for ext, file in files.items() if file is not None}


@pytest.mark.parametrize("hiccups", [1, 10**9])
def test_a_disk_that_fails_is_read_again_and_leaves_no_pack(clip: Path, settings: Settings, hiccups: int) -> None:
    fsspec.register_implementation("failing", FailingFileSystem, clobber=True)
    FailingFileSystem.left = hiccups
    unit = unit_of(clip, "later", f"failing://{clip}")
    if hiccups > 1:
        with pytest.raises(StorageError, match="Input/output error"):
            process(settings, unit)
        assert read_pack_index(Folder(settings.packs_url), "later") is None
        FailingFileSystem.left = 0
    process(settings, unit)
    process(settings, unit_of(clip, "whole"))
    assert index_of(settings, "later") == index_of(settings, "whole")


def test_a_file_that_changes_during_the_run_is_no_finding(clip: Path, settings: Settings, tmp_path: Path) -> None:
    unit = unit_of(clip, "gone", str(tmp_path / "gone.mp4"))
    with pytest.raises(StorageError, match="cannot be read"):
        process(settings, unit)
    (tmp_path / "gone.mp4").write_text("not any more")
    with pytest.raises(StorageError, match="changed during the run"):
        process(settings, unit)
    assert read_pack_index(Folder(settings.packs_url), "gone") is None


def test_what_is_seen_of_a_damaged_file_becomes_a_clip(clip: Path, settings: Settings, tmp_path: Path) -> None:
    """The same file gives the same bytes wherever it lies: no path of this machine is in its pack."""
    whole = clip.read_bytes()
    for folder in ("a", "b"):
        damaged = tmp_path / folder / "damaged.mp4"
        damaged.parent.mkdir()
        damaged.write_bytes(whole[: round(0.6 * len(whole))])
        process(settings, unit_of(damaged, folder))
        assert str(tmp_path) not in json.dumps(index_of(settings, folder))
    assert index_of(settings, "a") == index_of(settings, "b")
    assert len(index_of(settings, "a")["clips"]) == 1


def test_a_video_of_no_frames_says_so(settings: Settings, tmp_path: Path) -> None:
    """Its headers promise pictures; sound is all there is."""
    with av.open(str(tmp_path / "none.mkv"), "w") as out:
        picture, sound = out.add_stream("libx264", rate=25), out.add_stream("pcm_s16le", rate=16_000, layout="mono")
        picture.width = picture.height = 64
        picture.pix_fmt = "yuv420p"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 16_000
        out.mux([*sound.encode(frame), *sound.encode(None)])
    process(settings, unit_of(tmp_path / "none.mkv", "none"))
    index = index_of(settings, "none")
    assert index["clips"] == []
    assert [(r["stage"], r["reason"]) for r in index["rejects"]] == [("decode", "no_frames")]


@pytest.mark.parametrize("kind", ["late", "silent"])
def test_sound_lies_at_its_picture_and_gaps_are_told(clip: Path, settings: Settings, tmp_path: Path, kind: str) -> None:
    """Sound from 0 to 2 s, picture from 1 s on; a picture is lighter where the sound clicks, at 1.5 s."""
    frames = [frame.rgb for frame in VideoReader(str(clip))][:50]
    frames[13] = np.clip(frames[13].astype(int) + 25, 0, 255).astype(np.uint8)
    pictures = [(1_000_000 + 40_000 * i, rgb) for i, rgb in enumerate(frames)]
    sound = [(0.0, blip(48_000, 2.0, [1.52]))] if kind == "late" else []
    made = make(tmp_path / "late.mkv", pictures=pictures, sound=sound)
    pack = settings.pack.model_copy(update={"annotators": ("box", "mel")})
    fingerprint = settings_fingerprint(pack, settings.models)
    process(replace(settings, pack=pack, fingerprint=fingerprint), unit_of(made, "late"))
    (record,) = index_of(settings, "late")["clips"]
    if kind == "silent":
        assert record["status"] == {"box": "ok", "mel": "no_sound"}
        assert record["sound_filled_seconds"] == pytest.approx(record["duration"], abs=0.001)
        return
    members = contents(settings, "late")
    light = np.array([picture.mean() for picture in ClipFrames(members["mp4"])])
    flash = float(from_npy(members["pts.npy"])[1 + int(np.argmax(2 * light[1:-1] - light[:-2] - light[2:]))] / 1e9)
    (click,) = centres(decode_flac(members["flac"]), [flash])
    assert click == pytest.approx(flash, abs=0.005)
    assert flash == pytest.approx(0.52, abs=0.001)
    assert record["status"] == {"box": "ok", "mel": "partial"}
    assert record["sound_filled_seconds"] == pytest.approx(record["duration"] - 1.0, abs=0.01)
    assert record["share"]["mel"] == pytest.approx(1 / record["duration"], abs=0.01)


def test_threads_of_one_process_do_not_disturb_each_other(clip: Path, settings: Settings) -> None:
    """Workers of a cluster that exists may have several threads."""
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda name: process(settings, unit_of(clip, name)), ("a", "b", "c")))
    made = [contents(settings, name) for name in ("a", "b", "c")]
    assert made[0] == made[1] == made[2]
    assert len(made[0]) == 5, "one clip: mp4, flac, pts, valid, box"


def test_settings_of_no_annotator_are_refused() -> None:
    with pytest.raises(ConfigError, match="no annotator named 'qualty'"):
        make_annotators(Pack(annotate={"qualty": {}}))


@pytest.mark.parametrize(
    ("named", "way"),
    [
        (("mel",), r"drop --speaking \(pack\.cut\.speaking\)"),
        (("mel", "speaker"), r"drop --speaking \(pack\.cut\.speaking\) and leave speaker out"),
    ],
)
def test_a_missing_file_of_what_an_option_asks_for_names_the_option(
    tmp_path: Path, named: tuple[str, ...], way: str
) -> None:
    pack, here = Pack(annotators=named, cut=Cut(speaking=True)), Models(offline=True, cache=tmp_path)
    said = rf"^speaker: light_asd_talkset\.model .*\. To go on without talk, lip_motion, speaking_share, {way}\.$"
    with pytest.raises(WeightsError, match=said):
        settings_fingerprint(pack, here)
    with pytest.raises(WeightsError, match=said):
        require_fit(make_annotators(pack)[-1:], here, "commercial", pack.how_to_leave_out)
    without = Pack(annotators=("mel", "speaker"))
    with pytest.raises(WeightsError, match=r"speaking_share, leave speaker out\.$"):
        settings_fingerprint(without, here)


def test_options_that_ask_for_an_annotator() -> None:
    moved = Pack(annotators=("mel",), annotate={"sync": {"fix_offset": True}})
    assert moved.wanted == ("mel", "sync")
    assert moved.how_to_leave_out("sync") == "drop --fix-offset (pack.annotate.sync.fix_offset)"
    assert moved.how_to_leave_out("mel") == "leave mel out"
    assert moved.how_to_leave_out("landmarks") == "leave landmarks out", "which sync needs"
