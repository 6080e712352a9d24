"""A whole ingest in this process: which packs are made, kept and shared, and what counts as a failure."""

import json
import shutil
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from typer.testing import CliRunner, Result

from talkface.annotate.emotion import Annotator as Emotion
from talkface.cli import app
from talkface.config import Build, Ingest, Pack, Video
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError, RunError, TalkfaceError, WeightsError
from talkface.ingest.job import IngestResult, ingest, units_of
from talkface.ingest.scan import ScanResult, scan
from talkface.store import PACKS, Folder, read_pack_index
from talkface.weights import Models
from tests.conftest import NOT_DATA, Toolkit, files_of
from tests.media.serving import served

Options = tuple[str | Path, ...]

QUICK = Ingest(pack=Pack(annotators=("box", "emotion"), video=Video(size=64)))
MODELS = Models(offline=True)
TOML = '[pack]\nannotators = ["box", "emotion"]\n[pack.video]\nsize = 64\n'


@pytest.fixture
def two(videos: Path, tmp_path: Path) -> Path:
    """Two synthetic clips whose names say nothing."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number, clip in enumerate(sorted(videos.glob("M003/video/*/*/*/*.mp4"))[:2]):
        shutil.copy(clip, folder / f"{number}.mp4")
    return folder


@pytest.fixture
def quick(tmp_path: Path) -> Options:
    """Options of an ingest that is soon done."""
    (tmp_path / "config.toml").write_text(TOML)
    return ("--offline", "--workers", "0", "--config", tmp_path / "config.toml")


def toolkit_here(*arguments: str | Path, code: int = 0) -> Result:
    """Run the command in this process; checks the exit code."""
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == code, f"{result.output}\n{result.exception}"
    return result


def run(scanned: ScanResult, out: Path) -> IngestResult:
    return ingest(scanned, Folder(out), QUICK, MODELS, workers=0)


def packs(out: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in (out / PACKS).glob("*.tar")}


def test_units_are_named_by_content_and_keyed_by_name(two: Path) -> None:
    shutil.copy(two / "0.mp4", two / "again.mp4")
    kept = {s.name: s for s in scan([str(two)], duplicates="keep").sources}
    units = {name: units_of(source, 1.0, "f") for name, source in kept.items()}
    assert [u.name for u in units["0.mp4"]] == [u.name for u in units["again.mp4"]]
    assert not {u.key for u in units["0.mp4"]} & {u.key for u in units["again.mp4"]}
    assert [u.start_ns for u in units["0.mp4"]] == [0, 10**9, 2 * 10**9]
    assert units["0.mp4"][0].name != units_of(kept["0.mp4"], 1.0, "g")[0].name


def test_a_clip_that_an_annotator_cannot_do_is_a_reject_and_another_run_tries_again(two: Path, tmp_path: Path) -> None:
    """`head` cannot do without the size of the frame. The other file's clips are whole."""
    out, scanned = Folder(tmp_path / "out"), scan([str(two)])
    config = Ingest(pack=Pack(annotators=("box", "head"), video=Video(size=64)))
    sizeless = replace(scanned.sources[0], probe=replace(scanned.sources[0].probe, height=0))
    broken = replace(scanned, sources=(sizeless, *scanned.sources[1:]))
    result = ingest(broken, out, config, MODELS, workers=0)
    (failure,) = result.failures
    assert failure.startswith("0.mp4: head_internal_error: ") and "head needs the frame's size" in failure
    indexes = [read_pack_index(Folder(f"{out.url}/{PACKS}"), unit.name) for unit in result.units]
    assert [len(i["clips"]) for i in indexes if i] == [0, 1]
    (reject,) = [r for i in indexes if i for r in i["rejects"]]
    assert (reject["stage"], reject["reason"], reject["start_ns"]) == ("annotate", "head_internal_error", 0)
    again = ingest(scanned, out, config, MODELS, workers=0)
    assert again.failures == () and again.progress.units_kept == 1
    indexes = [read_pack_index(Folder(f"{out.url}/{PACKS}"), unit.name) for unit in again.units]
    assert [(len(i["clips"]), i["rejects"]) for i in indexes if i] == [(1, []), (1, [])]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_model_that_cannot_be_opened_ends_the_run(two: Path, tmp_path: Path, workers: int) -> None:
    """It would fail for every source; a dataset without a clip is no answer."""
    (tmp_path / "face").mkdir()
    (tmp_path / "face" / "own.onnx").write_bytes(b"no network")
    pack = Pack(
        annotators=("identity",), annotate={"identity": {"model": str(tmp_path / "face")}}, video=Video(size=64)
    )
    with pytest.raises(WeightsError, match="not a network that OpenCV reads"):
        ingest(scan([str(two)]), Folder(tmp_path / "out"), Ingest(pack=pack), MODELS, workers=workers)


def test_a_retry_that_fails_keeps_the_clips_that_were_there(two: Path, tmp_path: Path) -> None:
    """A pack of which a clip failed is made again; its source has gone meanwhile."""
    out, scanned = Folder(tmp_path / "out"), scan([str(two)])
    first = ingest(scanned, out, QUICK, MODELS, workers=0)
    name = next(u.name for u in first.units if u.source.name == "0.mp4")
    index = Folder(f"{out.url}/{PACKS}")
    index.write(f"{name}.json", json.dumps(json.loads(index.read(f"{name}.json")) | {"failed": 1}).encode())
    (two / "0.mp4").rename(two / "gone.mp4")
    second = ingest(scanned, out, QUICK, MODELS, workers=0)
    assert [u.source.name for u in second.units] == ["0.mp4", "1.mp4"]
    assert any(f.startswith("0.mp4: ") for f in second.failures) and not second.rejects
    (two / "gone.mp4").rename(two / "0.mp4")
    third = ingest(scanned, out, QUICK, MODELS, workers=0)
    assert third.failures == () and third.progress.units_kept == 1
    assert json.loads(index.read(f"{name}.json"))["failed"] == 0


def test_the_strictest_licence_is_of_what_went_in(two: Path, tmp_path: Path) -> None:
    def told(*licences: str, default: str = "unknown") -> str:
        scanned = scan([str(two)])
        sources = tuple(replace(s, licence=licence) for s, licence in zip(scanned.sources, licences, strict=True))
        config = QUICK.model_copy(update={"build": Build(licence=default)})
        result = ingest(replace(scanned, sources=sources), Folder(tmp_path / "out"), config, MODELS, workers=0)
        return str(result.info["strictest_licence"])

    assert told("CC0-1.0", "CC-BY-4.0") == "CC-BY-4.0", "a default that no source has is none of its terms"
    assert told("unknown", "CC-BY-4.0") == "unknown"
    assert told("unknown", "CC0-1.0", default="CC-BY-NC-4.0") == "CC-BY-NC-4.0"


def test_sources_of_equal_content_share_a_pack(two: Path, tmp_path: Path) -> None:
    shutil.copy(two / "0.mp4", two / "again.mp4")
    result = run(scan([str(two)], duplicates="keep"), tmp_path / "out")
    assert len(result.units) == 3
    assert len(packs(tmp_path / "out")) == 2


def test_a_corrected_label_and_a_new_name_decode_nothing(two: Path, tmp_path: Path, quick: Options) -> None:
    """And the bytes are those of a run that had them right from the start."""
    listed = two / "list.csv"
    listed.write_text("path,speaker,emotion\n0.mp4,ann,sad\n1.mp4,ben,happy\n")
    toolkit_here("ingest", listed, "--out", tmp_path / "out", *quick)
    before = packs(tmp_path / "out")
    (two / "0.mp4").rename(two / "zero.mp4")
    listed.write_text("path,speaker,emotion\nzero.mp4,ann,angry\n1.mp4,bob,happy\n")
    toolkit_here("ingest", listed, "--out", tmp_path / "out", *quick, "--replace")
    assert packs(tmp_path / "out") == before
    toolkit_here("ingest", listed, "--out", tmp_path / "fresh", *quick)
    assert files_of(tmp_path / "out", but=NOT_DATA) == files_of(tmp_path / "fresh", but=NOT_DATA)
    assert hasattr(Emotion, "labelled")


def test_workers_cannot_reach_this_processs_memory(two: Path) -> None:
    with pytest.raises(ConfigError, match="--workers 0"):
        ingest(scan([str(two)]), Folder("memory://out"), QUICK, MODELS, workers=2)
    assert not fsspec.filesystem("memory").exists("/out")


@pytest.fixture
def refused() -> Iterator[str]:
    """An address at which nobody listens."""
    with closing(socket.socket()) as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


def test_a_server_that_is_down_is_a_failure_not_a_finding(two: Path, tmp_path: Path, refused: str) -> None:
    scanned = scan([str(two / "1.mp4"), f"{refused}/a.mp4"])
    assert [(r.stage, r.reason) for r in scanned.rejects] == [("scan", "storage")]
    result = run(scanned, tmp_path / "out")
    assert len(result.failures) == 1
    assert refused in result.failures[0]
    assert len(result.units) == 1


def test_a_dataset_does_not_lose_what_cannot_be_read_now(
    two: Path, tmp_path: Path, refused: str, quick: Options
) -> None:
    options = ("--out", tmp_path / "out", *quick)
    listed = two / "list.csv"
    listed.write_text("path\n0.mp4\n1.mp4\n")
    toolkit_here("ingest", listed, *options)
    before = files_of(tmp_path / "out")
    listed.write_text(f"path\n{refused}/0.mp4\n1.mp4\n")
    result = CliRunner().invoke(app, ["ingest", str(listed), *map(str, options)])
    assert isinstance(result.exception, RunError | ConfigError)
    assert "0.mp4" in str(result.exception)
    assert files_of(tmp_path / "out") == before


def test_a_dataset_among_its_videos_is_no_input(two: Path, quick: Options) -> None:
    options = ("--out", two / "dataset", *quick)
    toolkit_here("ingest", two, *options)
    shutil.copy(two / "0.mp4", two / "dataset" / "seen.mp4")
    before = files_of(two / "dataset", but=NOT_DATA)
    assert "2 sources, 0 rejected" in toolkit_here("ingest", two, *options).stdout
    assert files_of(two / "dataset", but=NOT_DATA) == before


def test_nothing_is_written_where_the_videos_are(two: Path, tmp_path: Path, quick: Options, toolkit: Toolkit) -> None:
    """A folder that may only be read: its own time would tell of a file that came and went."""
    two.chmod(0o555)
    try:
        before = (files_of(two), two.stat().st_mtime_ns)
        toolkit("ingest", two, "--out", tmp_path / "out", *quick, "--workers", "1")
        assert (files_of(two), two.stat().st_mtime_ns) == before
    finally:
        two.chmod(0o755)


def test_from_the_web(two: Path, tmp_path: Path, quick: Options, toolkit: Toolkit) -> None:
    """Files by their urls and lists of urls give the bytes of files on this disk."""
    listed, urls = two / "list.csv", tmp_path / "urls.csv"
    listed.write_text("path,speaker\n0.mp4,ann\n1.mp4,ben\n")
    toolkit_here("ingest", listed, "--out", tmp_path / "disk", *quick)
    with served(two) as address:
        toolkit("ingest", f"{address}/list.csv", "--out", tmp_path / "list", *quick, "--workers", "1")
        urls.write_text(f"path,speaker\n{address}/0.mp4,ann\n{address}/1.mp4?token=a.b/c,ben\n")
        toolkit_here("ingest", urls, "--out", tmp_path / "urls", *quick)
        some = (f"{address}/0.mp4", f"{address}/gone.mp4")
        toolkit_here("ingest", *some, "--out", tmp_path / "one", *quick, code=3)
    but = (*NOT_DATA, "manifest/sources.parquet")
    assert len(Dataset(str(tmp_path / "disk"))) == 2
    for name in ("list", "urls"):
        assert files_of(tmp_path / name, but=but) == files_of(tmp_path / "disk", but=but)
    assert [c["source"] for c in Dataset(str(tmp_path / "one")).clips.to_pylist()] == ["0.mp4"]
    assert "rejected at scan: missing" in toolkit_here("why", tmp_path / "one", "gone.mp4").stdout


def test_a_refused_run_leaves_nothing_behind(two: Path, tmp_path: Path, quick: Options) -> None:
    out = tmp_path / "new" / "dataset"
    (two / "list.csv").write_text("path,emotion\n0.mp4,hungry\n")
    for words in ([two / "gone.mp4"], [two, "--with", "none"], [two, "--layout", "x"], [two / "list.csv"]):
        result = CliRunner().invoke(app, ["ingest", *map(str, [*words, "--out", out, *quick])])
        assert isinstance(result.exception, TalkfaceError), words
        assert not out.parent.exists()
