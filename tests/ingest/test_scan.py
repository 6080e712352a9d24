"""Sources from every kind of input, on real files: labels, names, hashes, and a reject for all that is broken."""

import csv
import functools
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkface.errors import ConfigError, SourceError
from talkface.ingest.inputs import VIDEO_ENDINGS, expand, open_binary
from talkface.ingest.scan import ScanResult, scan
from tests.media.making import blip, grey, make

SOUND = [(0.0, blip(48_000, 0.4, [0.2]))]


def sha(*paths: Path) -> str:
    return hashlib.sha256(b"".join(p.read_bytes() for p in paths)).hexdigest()


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A silent video of ten small pictures."""
    pictures = [(i * 40_000, grey(20 * i)) for i in range(10)]
    return make(tmp_path_factory.mktemp("small") / "small.mp4", pictures=pictures)


@pytest.fixture(scope="session")
def loud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with sound."""
    pictures = [(i * 40_000, grey(20 * i)) for i in range(10)]
    return make(tmp_path_factory.mktemp("loud") / "loud.mov", pictures=pictures, sound=SOUND)


@pytest.fixture(scope="session")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound file."""
    return make(tmp_path_factory.mktemp("voice") / "voice.wav", sound=SOUND)


Plant = Callable[..., Path]


@pytest.fixture
def plant(tmp_path: Path, small: Path) -> Plant:
    """Copy a video to a path below the test's folder, made unique by bytes after its end that players ignore."""
    count = iter(range(1_000))

    def copy(name: str, of: Path = small, *, same: bool = False) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(of, path)
        if not same:
            with path.open("ab") as file:
                file.write((8).to_bytes(4, "big") + b"free" * 1 + bytes(next(count)))
        return path

    return copy


def names(result: ScanResult) -> list[str]:
    return [s.name for s in result.sources]


def reasons(result: ScanResult) -> dict[str, str]:
    assert all(r.stage == "scan" and r.message for r in result.rejects)
    return {r.source: r.reason for r in result.rejects}


def test_folder(plant: Plant, tmp_path: Path, voice: Path, loud: Path) -> None:
    for name in (
        "b.mp4",
        "a/z.MP4",
        "a/b/c.mkv",
        "café 'x' \"y\" #1.mp4",
        "日本.mp4",
        "[1] *.mp4",
        "a::b?c#d.mp4",
        "http:.mp4",
    ):
        plant(name)
    plant("notes.txt")
    plant(".hidden.mp4")
    plant(".cache/d.mp4")
    shutil.copyfile(voice, tmp_path / "other.wav")
    shutil.copyfile(loud, tmp_path / "loud.mov")
    result = scan([str(tmp_path)])
    assert names(result) == sorted(
        [
            "b.mp4",
            "a/z.MP4",
            "a/b/c.mkv",
            "café 'x' \"y\" #1.mp4",
            "日本.mp4",
            "[1] *.mp4",
            "a::b?c#d.mp4",
            "http:.mp4",
            "loud.mov",
        ]
    )
    assert result.rejects == ()
    assert result.layout == "plain"
    assert result.ignored == 3
    for source in result.sources:
        assert source.uri == f"{tmp_path}/{source.name}"
        assert source.sha256 == sha(Path(source.uri))
        assert source.size == Path(source.uri).stat().st_size
        assert source.probe is not None
        assert (source.probe.width, source.probe.height) == (64, 64)
        assert source.probe.duration == pytest.approx(0.4, abs=0.05)


def test_inputs_are_not_changed(plant: Plant, tmp_path: Path) -> None:
    plant("a.mp4").chmod(0o444)
    plant("b/c.mp4")
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.rglob("*.mp4")}
    scan([str(tmp_path)])
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.rglob("*") if p.is_file()} == before


def test_same_result_again_and_by_any_way_to_write_the_folder(plant: Plant, tmp_path: Path) -> None:
    for name in "badc":
        plant(f"in/{name}.mp4")
    first = scan([str(tmp_path / "in")], threads=1)
    assert scan([f"{tmp_path}/in/"], threads=8) == first
    assert scan([f"{tmp_path}/in/../in/."]) == first
    code = "from talkface.ingest.scan import scan; print(*[s.uri for s in scan(['in']).sources])"
    output = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert output.split() == [s.uri for s in first.sources]


def test_single_files_are_taken_whatever_their_ending(plant: Plant, tmp_path: Path) -> None:
    a, b = plant("x/one.dat"), plant("x/y/two")
    result = scan([str(b), str(a), str(b)])
    assert names(result) == ["one.dat", "y/two"]
    assert names(scan([str(b)])) == ["two"]


def test_patterns(plant: Plant, tmp_path: Path) -> None:
    for name in ("M1/front/a.mp4", "M1/top/b.mp4", "M2/front/c.mp4", "M2/front/d.txt", "M2/front/e.vid"):
        plant(name)
    assert names(scan([f"{tmp_path}/M*/front/*"])) == ["M1/front/a.mp4", "M2/front/c.mp4"]
    assert names(scan([f"{tmp_path}/**/*.mp4"])) == ["M1/front/a.mp4", "M1/top/b.mp4", "M2/front/c.mp4"]
    assert names(scan([f"{tmp_path}/*"])) == ["M1/front/a.mp4", "M1/top/b.mp4", "M2/front/c.mp4"]
    assert names(scan([f"{tmp_path}/M2/front/*.vid"])) == ["e.vid"]
    assert names(scan([f"{tmp_path}/M[1]/front/*.mp4"])) == ["M1/front/a.mp4"]


def test_a_name_that_looks_like_a_pattern(plant: Plant) -> None:
    assert names(scan([str(plant("clip [1].mp4"))])) == ["clip [1].mp4"]


def test_a_name_that_is_no_text(plant: Plant, tmp_path: Path) -> None:
    """As file systems with names in Latin-1 have them."""
    good = plant("in/good.mp4")
    odd = os.fsencode(tmp_path / "in") + b"/caf\xe9.mp4"
    try:
        shutil.copyfile(good, odd)
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    for inputs in ([str(tmp_path / "in")], [f"{tmp_path}/in/*.mp4"], [str(good), os.fsdecode(odd)]):
        result = scan(inputs)
        assert names(result) == ["good.mp4"]
        assert reasons(result) == {"caf\\udce9.mp4": "unreadable"}
        assert "not UTF-8. Rename it" in result.rejects[0].message


def test_several_inputs_never_share_a_name(plant: Plant, tmp_path: Path) -> None:
    for place in ("one/in", "two/in", "three/in"):
        plant(f"{place}/001.mp4")
    result = scan([str(tmp_path / place / "in") for place in ("one", "two", "three")])
    assert names(result) == ["001.mp4", "in/001.mp4", "in-2/001.mp4"]
    overlapping = scan([str(tmp_path / "one"), str(tmp_path / "one/in"), str(tmp_path / "one/in/001.mp4")])
    assert names(overlapping) == ["001.mp4"], "a file named three times is one source"


def test_names_do_not_depend_on_where_the_folder_lies(plant: Plant, tmp_path: Path) -> None:
    plant("here/a/b.mp4")
    plant("here/c.mp4")
    first = scan([str(tmp_path / "here")])
    shutil.move(tmp_path / "here", tmp_path / "there")
    second = scan([str(tmp_path / "there")])
    assert [(s.name, s.sha256, s.labels) for s in first.sources] == [
        (s.name, s.sha256, s.labels) for s in second.sources
    ]


def broken(folder: Path, loud: Path, voice: Path) -> dict[str, str]:
    """Put everything that can be wrong with a file into a folder; returns the reason that each should give."""
    (folder / "sub").mkdir()
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("this is not a video\n" * 100)
    (folder / "link.mp4").symlink_to(folder / "nowhere.mp4")
    shutil.copyfile(voice, folder / "sub/sound.mov")
    (folder / "sub/cut.mp4").write_bytes(loud.read_bytes()[:600])
    (folder / "random.avi").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "folder.mp4").mkdir()
    return {
        "empty.mp4": "empty",
        "text.mp4": "not_media",
        "link.mp4": "missing",
        "sub/sound.mov": "no_video",
        "sub/cut.mp4": "unreadable",
        "random.avi": "not_media",
    }


def test_broken_files_are_rejected_and_the_rest_goes_on(plant: Plant, tmp_path: Path, loud: Path, voice: Path) -> None:
    expected = broken(tmp_path, loud, voice)
    plant("good.mp4")
    result = scan([str(tmp_path)])
    assert reasons(result) == expected
    assert names(result) == ["good.mp4"]
    message = next(r.message for r in result.rejects if r.source == "link.mp4")
    assert "broken link" in message


AS_NOBODY = """
import os, sys
from talkface.ingest.scan import scan
scan([sys.argv[1] + "/open"])  # everything is imported while this process may read it
if os.getuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
result = scan([sys.argv[1]])
print([s.name for s in result.sources], sorted((r.source, r.reason) for r in result.rejects))
"""


def test_no_permission(plant: Plant, tmp_path: Path) -> None:
    """Root may read everything, so this looks through the eyes of a user without rights."""
    plant("open/good.mp4")
    plant("closed.mp4")
    plant("shut/inside.mp4")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        shutil.copytree(tmp_path, f"{folder}/in")
        for place, mode in {"": 0o755, "open": 0o755, "open/good.mp4": 0o644, "closed.mp4": 0, "shut": 0}.items():
            Path(folder, "in", place).chmod(mode)
        result = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, f"{folder}/in"],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        Path(folder, "in/shut").chmod(0o755)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "['open/good.mp4'] [('closed.mp4', 'unreadable'), ('shut', 'unreadable')]"


def test_links_that_go_in_circles(plant: Plant, tmp_path: Path) -> None:
    plant("in/a.mp4")
    (tmp_path / "in/again").symlink_to(tmp_path / "in")
    plant("elsewhere/b.mp4")
    (tmp_path / "in/other").symlink_to(tmp_path / "elsewhere")
    result = scan([str(tmp_path / "in")])
    assert names(result) == ["a.mp4", "other/b.mp4"]
    assert result.rejects == ()


def test_missing_inputs(plant: Plant, tmp_path: Path) -> None:
    good = plant("good.mp4")
    result = scan([str(good), str(tmp_path / "gone.mp4"), f"{tmp_path}/no*.mp4"])
    assert names(result) == ["good.mp4"]
    assert sorted(reasons(result).values()) == ["missing", "missing"]
    with pytest.raises(SourceError, match="no such file"):
        scan([str(tmp_path / "gone.mp4")])
    with pytest.raises(SourceError, match="nothing matches this pattern"):
        scan([f"{tmp_path}/no*.mp4"])


def test_nothing_in_it(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("x")
    with pytest.raises(SourceError, match=r"no videos found \(1 other files\)"):
        scan([str(tmp_path)])


def test_duplicates(plant: Plant, tmp_path: Path) -> None:
    plant("b.mp4", same=True)
    plant("a/c.mp4", same=True)
    plant("d.mp4")
    result = scan([str(tmp_path)])
    assert names(result) == ["a/c.mp4", "d.mp4"]
    assert reasons(result) == {"b.mp4": "duplicate"}
    assert "a/c.mp4" in result.rejects[0].message
    kept = scan([str(tmp_path)], duplicates="keep")
    assert names(kept) == ["a/c.mp4", "b.mp4", "d.mp4"]
    assert kept.rejects == ()


def test_mead_with_its_sound(plant: Plant, tmp_path: Path, loud: Path, voice: Path) -> None:
    cameras = ("front", "left_30", "right_60")
    for camera in cameras:
        plant(f"M003/video/{camera}/angry/level_3/001.mp4")
    plant("M003/video/front/happy/level_1/002.mp4")
    plant("M003/video/top/happy/level_1/003.mp4", of=loud)
    for name in ("angry/level_3/001.wav", "happy/level_1/003.wav"):
        (tmp_path / "M003/audio" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(voice, tmp_path / "M003/audio" / name)
    result = scan([str(tmp_path)])
    assert (result.layout, result.ignored) == ("mead", 2)
    by_name = {s.name: s for s in result.sources}
    sound = tmp_path / "M003/audio/angry/level_3/001.wav"
    for camera in cameras:
        source = by_name[f"M003/video/{camera}/angry/level_3/001.mp4"]
        assert source.audio_uri == str(sound)
        assert source.sha256 == sha(Path(source.uri), sound)
        assert source.probe is not None
        assert (source.probe.audio_codec, source.probe.audio_rate) == ("pcm_s16le", 48_000)
        assert (source.labels.camera, source.labels.emotion, source.labels.intensity) == (camera, "angry", 3)
        assert source.licence == "MEAD terms of use (non-commercial research)"
    assert by_name["M003/video/front/happy/level_1/002.mp4"].audio_uri is None
    assert by_name["M003/video/top/happy/level_1/003.mp4"].audio_uri is None, "the picture's own sound goes first"


def test_layouts_are_found_input_by_input(plant: Plant, tmp_path: Path) -> None:
    plant("mead/M003/video/front/sad/level_2/001.mp4")
    plant("mead/holiday.mp4")
    plant("hdtf/WDA_KatieHill_000.mp4")
    result = scan([str(tmp_path / "mead"), str(tmp_path / "hdtf")])
    assert result.layout == "mead, hdtf"
    found = {s.name: (s.layout, s.labels.speaker, s.licence) for s in result.sources}
    assert found["M003/video/front/sad/level_2/001.mp4"][:2] == ("mead", "M003")
    assert found["holiday.mp4"] == ("plain", None, "unknown")
    assert found["WDA_KatieHill_000.mp4"] == ("hdtf", "KatieHill", "CC-BY-4.0")
    forced = scan([str(tmp_path)], "plain")
    assert {s.layout for s in forced.sources} == {forced.layout} == {"plain"}
    assert {s.labels.speaker for s in forced.sources} == {None}
    with pytest.raises(ConfigError, match="no layout named"):
        scan([str(tmp_path)], "maed")


@pytest.mark.parametrize("beside", [False, True])
def test_celebv_hq_with_its_information_file(beside: bool, plant: Plant, tmp_path: Path) -> None:
    plant("set/M2Ohb0FAaJU_1.mp4")
    info = {"clips": {"M2Ohb0FAaJU_1": {"attributes": {"emotion": {"sep_flag": False, "labels": "fear"}}}}}
    (tmp_path / ("." if beside else "set") / "celebvhq_info.json").write_text(json.dumps(info))
    result = scan([str(tmp_path / "set")])
    assert result.layout == "celebv_hq"
    assert result.sources[0].labels.emotion == "fear"


Row = Mapping[str, object]


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(k for r in rows for k in r)))
        writer.writeheader()
        writer.writerows(rows)


def write_jsonl(path: Path, rows: Sequence[Row]) -> None:
    path.write_text("\n".join(json.dumps(r) for r in rows) + "\n\n", encoding="utf-8")


def write_parquet(path: Path, rows: Sequence[Row]) -> None:
    pq.write_table(pa.Table.from_pylist([dict(r) for r in rows]), path)


def test_columns_of_a_table_need_not_be_text(plant: Plant, tmp_path: Path) -> None:
    """As data frames store them: categories, decimals, bytes, floats with holes."""
    table = pa.table(
        {
            "path": pa.array(["a.mp4", "b.mp4"]).dictionary_encode(),
            "speaker": pa.array([Decimal("7.0"), Decimal("8.5")], pa.decimal128(4, 1)),
            "emotion": pa.array([b"sad", None], pa.binary()),
            "intensity": pa.array([3.0, None], pa.float64()),
        }
    )
    for name in ("a.mp4", "b.mp4"):
        plant(f"in/{name}")
    pq.write_table(table, tmp_path / "in" / "list.parquet")
    a, b = scan([str(tmp_path / "in" / "list.parquet")], duplicates="keep").sources
    assert (a.labels.speaker, a.labels.emotion, a.labels.intensity) == ("7", "sad", 3)
    assert (b.labels.speaker, b.labels.emotion, b.labels.intensity) == ("8.5", None, None)


WRITERS = {".csv": write_csv, ".jsonl": write_jsonl, ".parquet": write_parquet}


@pytest.mark.parametrize("ending", WRITERS)
def test_lists(ending: str, plant: Plant, tmp_path: Path, voice: Path, loud: Path) -> None:
    plant('in/sub/b, "ü".mp4')
    plant("in/a.mp4", of=loud)
    outside = plant("in/c.mp4")
    shutil.copyfile(voice, tmp_path / "in/v.wav")
    rows = [
        {"path": "sub/b, \"ü\".mp4", "speaker": "anna", "emotion": "Anger", "intensity": 2, "camera": "left",
         "language": "de", "licence": "CC0-1.0", "audio": None, "mood": "x"},
        {"path": "./a.mp4", "speaker": 7, "emotion": None, "intensity": None, "camera": None,
         "language": "", "licence": "", "audio": "v.wav", "mood": None},
        {"path": str(outside), "speaker": None},
    ]  # fmt: skip
    if ending == ".parquet":
        rows[1]["speaker"] = "7"
    WRITERS[ending](tmp_path / f"in/list{ending}", rows)
    result = scan([str(tmp_path / f"in/list{ending}")])
    assert names(result) == ["a.mp4", "c.mp4", 'sub/b, "ü".mp4']
    a, c, b = result.sources
    labels = b.labels
    assert (labels.speaker, labels.emotion, labels.intensity, labels.camera, labels.language) == (
        "anna", "angry", 2, "left", "de",
    )  # fmt: skip
    assert (b.licence, a.licence) == ("CC0-1.0", "unknown")
    assert (a.labels.speaker, a.labels.emotion) == ("7", None)
    assert a.audio_uri == str(tmp_path / "in/v.wav"), "the list's sound goes before the picture's own"
    assert a.probe is not None
    assert a.probe.audio_codec == "pcm_s16le"
    assert c.labels.speaker is None


def test_list_over_layout(plant: Plant, tmp_path: Path) -> None:
    plant("M003/video/front/sad/level_2/001.mp4")
    write_csv(tmp_path / "l.csv", [{"uri": "M003/video/front/sad/level_2/001.mp4", "emotion": "joy"}])
    source = scan([str(tmp_path / "l.csv")]).sources[0]
    assert (source.layout, source.labels.speaker, source.labels.emotion, source.labels.intensity) == (
        "mead", "M003", "happy", 2,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"path": "a.mp4", "emotion": "bored"}, "emotion 'bored' in the list is not known. Use one of angry"),
        ({"path": "a.mp4", "intensity": "4"}, "intensity '4' in the list is not 1, 2 or 3"),
        ({"path": "", "speaker": "x"}, "row 1 has no path"),
        ({"file": "a.mp4"}, "row 1 has no path"),
    ],
)
def test_mistakes_in_lists(row: Row, message: str, plant: Plant, tmp_path: Path) -> None:
    plant("a.mp4")
    write_csv(tmp_path / "l.csv", [row])
    with pytest.raises(ConfigError, match=message):
        scan([str(tmp_path / "l.csv")])


@pytest.mark.parametrize("ending", WRITERS)
@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"{\n", b"[1]\n"])
def test_damaged_lists(ending: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / f"l{ending}").write_bytes(data)
    with pytest.raises((ConfigError, SourceError)):
        scan([str(tmp_path / f"l{ending}")])
    with pytest.raises(ConfigError, match="not a list that can be read"):
        scan([str(tmp_path / f"gone{ending}")])


def test_list_names_what_is_not_there(plant: Plant, tmp_path: Path) -> None:
    plant("a.mp4")
    write_csv(tmp_path / "l.csv", [{"path": "a.mp4", "audio": "no.wav"}, {"path": "gone.mp4", "audio": ""}])
    result = scan([str(tmp_path / "l.csv"), str(plant("good.mp4"))])
    assert names(result) == ["good.mp4"]
    assert reasons(result) == {"a.mp4": "missing", "gone.mp4": "missing"}


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """Address of a server of the folder ``web``."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    (tmp_path / "web").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_http(web: str, plant: Plant, tmp_path: Path) -> None:
    path = plant("web/x/M003_level_1_sad_001.mp4")
    result = scan([f"{web}/x/M003_level_1_sad_001.mp4", f"{web}/gone.mp4"])
    assert result.sources[0].sha256 == sha(path)
    assert result.sources[0].uri == f"{web}/x/M003_level_1_sad_001.mp4"
    assert result.sources[0].name.endswith("x/M003_level_1_sad_001.mp4")
    assert result.sources[0].labels.speaker == "M003"
    assert list(reasons(result).values()) == ["missing"]
    write_csv(tmp_path / "web/l.csv", [{"path": "x/M003_level_1_sad_001.mp4", "speaker": "anna"}])
    listed = scan([f"{web}/l.csv"]).sources[0]
    assert (listed.sha256, listed.labels.speaker, listed.name) == (sha(path), "anna", "x/M003_level_1_sad_001.mp4")


def test_a_server_that_is_not_there(plant: Plant) -> None:
    result = scan(["http://127.0.0.1:9/a.mp4", str(plant("good.mp4"))])
    assert list(reasons(result).values()) == ["storage"]


def test_memory(small: Path, loud: Path, voice: Path) -> None:
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe_file("/talkface_scan/M003/video/front/sad/level_1/001.mp4", small.read_bytes())
    filesystem.pipe_file("/talkface_scan/M003/audio/sad/level_1/001.m4a", voice.read_bytes())
    filesystem.pipe_file("/talkface_scan/b.mov", loud.read_bytes())
    filesystem.pipe_file("/talkface_scan/readme.txt", b"x")
    try:
        result = scan(["memory://talkface_scan"])
        assert names(result) == ["M003/video/front/sad/level_1/001.mp4", "b.mov"]
        assert result.sources[0].audio_uri == "memory:///talkface_scan/M003/audio/sad/level_1/001.m4a"
        assert [s.sha256 for s in result.sources] == [sha(small, voice), sha(loud)]
        assert (result.ignored, result.layout) == (2, "mead")
        assert names(scan(["memory://talkface_scan/*.mov"])) == ["b.mov"]
        assert names(scan(["memory://talkface_scan/b.mov"])) == ["b.mov"]
        with pytest.raises(SourceError):
            scan(["memory://talkface_scan/nothing"])
    finally:
        filesystem.rm("/talkface_scan", recursive=True)


def read(uri: str) -> bytes:
    with open_binary(uri) as file:
        return file.read()


def test_what_is_in_an_archive(small: Path, loud: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "raw files.zip", "w") as archive:
        archive.write(small, "in/WDA_KatieHill_000.mp4")
        archive.write(loud, "in/deep/WRA_MarcoRubio_001.mov")
        archive.writestr("in/readme.txt", "x")
    for inside in ("in", "", "**/*.m*"):
        found = expand([f"zip://{inside}::{tmp_path}/raw files.zip"])[0]
        assert {f.name.rpartition("/")[2]: read(f.uri) for f in found.found} == {
            "WDA_KatieHill_000.mp4": small.read_bytes(),
            "WRA_MarcoRubio_001.mov": loud.read_bytes(),
        }


def test_storage_that_cannot_be_reached(plant: Plant, tmp_path: Path) -> None:
    (tmp_path / "broken.zip").write_bytes(b"PK not really")
    bad = [f"zip://*.mp4::{tmp_path}/broken.zip", f"zip://a.mp4::{tmp_path}/gone.zip", "nosuchprotocol://a/b.mp4"]
    result = scan([*bad, str(plant("good.mp4"))])
    assert [Path(s.uri).name for s in result.sources] == ["good.mp4"]
    assert len(result.rejects) == len(bad)
    assert set(reasons(result).values()) <= {"unreadable", "missing"}


def test_real_clips(media: Path) -> None:
    result = scan([str(media / "emotional")])
    assert (result.layout, len(result.sources), result.rejects) == ("mead", 21, ())
    labels = {s.name: s.labels for s in result.sources}
    assert labels["spectre__M003_level_1_disgusted_015.mp4"].emotion == "disgusted"
    assert labels["dreamtalk__W009_front_fear_level3_001.mp4"].camera == "front"
    assert sum(labels[n].emotion is not None for n in labels) == 19
    robust = scan([str(media / "robust")])
    assert reasons(robust) == {"EAMM__sample1.mov": "no_video"}
    talking = scan([str(media / "talking")])
    sounds = [s for s in talking.sources if s.audio_uri is not None]
    assert sounds
    assert all(s.name.startswith("styletalk") for s in sounds)
    assert all(s.audio_uri and s.audio_uri.endswith(f"{Path(s.name).stem}.wav") for s in sounds)


def test_endings_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "layouts.md").read_text()
    assert " ".join(sorted(e[1:] for e in VIDEO_ENDINGS)) in " ".join(page.split())


file_names = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=("Cs", "Cc")), min_size=1, max_size=30
).filter(lambda n: not n.startswith(".") and len(n.encode()) < 200)


@settings(deadline=None, max_examples=25)
@given(stems=st.sets(file_names, min_size=1, max_size=4))
def test_any_file_name(stems: set[str], tmp_path_factory: pytest.TempPathFactory, small: Path) -> None:
    """Whatever a file system allows in a name comes back as the name, and opens."""
    folder = tmp_path_factory.mktemp("names")
    for stem in stems:
        (folder / f"{stem}.mp4").write_bytes(small.read_bytes())
    result = scan([str(folder)], duplicates="keep")
    assert result.rejects == ()
    assert names(result) == sorted(f"{s}.mp4" for s in stems)
