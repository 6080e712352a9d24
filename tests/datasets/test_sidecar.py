"""Columns added to a finished dataset: what lies on disk, what readers give, what is refused, and what is kept."""

import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.compute as pc
import pytest

from benchmarks._reading import bytes_within, counted
from talkface.annotate.mel import log_mel
from talkface.console import print_stale
from talkface.datasets import Dataset, open_dataset
from talkface.datasets.format import schema
from talkface.datasets.loading.loader import Loader
from talkface.datasets.loading.windows import Windows
from talkface.datasets.missing_columns import how_to_add, to_make
from talkface.datasets.selection import Selection, change_selection
from talkface.datasets.sidecars.job import Made, annotate_dataset, remake
from talkface.datasets.stats import stats, why
from talkface.datasets.verify.dataset import verify
from talkface.errors import ConfigError, DatasetError
from talkface.media import decode_flac, encode_flac
from talkface.store import Folder, from_npy, table_bytes
from talkface.weights import Models
from tests.conftest import NOT_DATA, ROOT, Toolkit, command, files_of
from tests.datasets.making import edit_base

CONFIG = """
[pack]
annotators = [{annotators}]
[pack.cut]
max_seconds = 1.5
[pack.video]
size = 128
[build]
shard_megabytes = {megabytes}
"""
BEFORE = ("box", "landmarks", "arkit", "quality")
ADDED = ("head", "mel", "voice", "emotion")


def ingested(root: Path, inputs: Path, toolkit: Toolkit, annotators: tuple[str, ...], megabytes: float = 0.3) -> Path:
    """A dataset of several shards; run again with another size, it is built anew from the same packs."""
    config = root.with_suffix(".toml")
    config.write_text(CONFIG.format(annotators=", ".join(f'"{a}"' for a in annotators), megabytes=megabytes))
    toolkit("ingest", inputs, "--out", root, "--offline", "--config", config, "--workers", "0")
    return root


@pytest.fixture(scope="module")
def inputs(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the synthetic people, with their sound."""
    folder = tmp_path_factory.mktemp("inputs")
    for person in ("M003", "W009"):
        shutil.copytree(videos / person, folder / person)
    for happy in list(folder.rglob("happy")):
        shutil.rmtree(happy)
    return folder


@pytest.fixture(scope="module")
def made(inputs: Path, tmp_path_factory: pytest.TempPathFactory, toolkit: Toolkit) -> Path:
    """A dataset without the columns that are added; never changed."""
    return ingested(tmp_path_factory.mktemp("sidecar") / "base", inputs, toolkit, BEFORE)


@pytest.fixture(scope="module")
def annotated(made: Path, tmp_path_factory: pytest.TempPathFactory, toolkit: Toolkit) -> Path:
    """The same with sidecars; never changed."""
    root = tmp_path_factory.mktemp("annotated") / "base"
    shutil.copytree(made, root)
    toolkit("annotate", root, "--with", ",".join(ADDED), "--offline", "--workers", "2")
    return root


@pytest.fixture
def base(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "base"))


@pytest.fixture
def copy(annotated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(annotated, tmp_path / "base"))


def add(url: str | Path, *names: str, **settings: dict[str, Any]) -> list[Made]:
    """Annotate here, without processes."""
    return annotate_dataset(str(url), names, settings or None, Models(offline=True), workers=0)


def data_of(root: Path) -> dict[str, str]:
    """Files of the dataset and its sidecars, packs left out."""
    return {name: digest for name, digest in files_of(root, but=NOT_DATA).items() if "/packs/" not in name}


def voiced(dataset: Dataset) -> list[str]:
    """Keys of clips with sound."""
    return [k for k in dataset.clips.column("key").to_pylist() if dataset.member(k, "flac") != silence(dataset, k)]


def silence(dataset: Dataset, key: str) -> bytes:
    return encode_flac(np.zeros_like(decode_flac(dataset.member(key, "flac"))))


def equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def test_a_sidecar_has_the_shards_and_keys_of_its_base(annotated: Path) -> None:
    dataset = Dataset(str(annotated))
    shards = [s["shard"] for s in dataset.table("shards").to_pylist()]
    assert len(shards) > 2
    for shard in shards:
        for name, members in (("mel", ["mel.npy"]), ("emotion", ["emo.npy", "emo_pts.npy"])):
            with (
                tarfile.open(annotated / shard) as tar,
                tarfile.open(annotated / shard.replace("/", f"-{name}/")) as added,
            ):
                infos = added.getmembers()
                keys = list(dict.fromkeys(n.partition(".")[0] for n in tar.getnames()))
            assert [i.name for i in infos] == [f"{key}.{member}" for key in keys for member in members]
            assert {(i.mtime, i.uid, i.gid, i.mode, i.uname) for i in infos} == {(0, 0, 0, 0o644, "")}
    assert not list(annotated.glob("*-voice")), "an annotator of scores alone has no shards"


def test_the_base_stays_as_it_is(made: Path, annotated: Path) -> None:
    before, after = files_of(made), files_of(annotated)
    assert {n for n, digest in before.items() if after[n] != digest} == {"README.md"}
    new = {n.split("/")[0] for n in after.keys() - before.keys()}
    assert all(n == "sidecars" or n.split("-")[-1] in ADDED for n in new)


def test_columns_and_scores_equal_those_of_an_ingest(
    annotated: Path, inputs: Path, toolkit: Toolkit, tmp_path: Path
) -> None:
    whole = open_dataset(str(ingested(tmp_path / "whole", inputs, toolkit, (*BEFORE, *ADDED))))
    later = open_dataset(str(annotated))
    assert set(later.members()) == set(whole.members()) and len(later) == len(whole) > 4
    assert {s.name for s in later.scores()} == {s.name for s in whole.scores()}
    place = ("source", "start_ns", "track")
    ours = {tuple(row[p] for p in place): row for row in later.clips.to_pylist()}
    columns = [s.name for s in whole.specs() if s.name != "valid"]  # its bits are those of the base's columns
    for row in whole.clips.to_pylist():
        mine = ours[tuple(row[p] for p in place)]
        one, other = later.arrays(mine["key"], columns), whole.arrays(row["key"], columns)
        assert [n for n in columns if not equal(one[n], other[n])] == []
        assert {s.name: mine[s.name] for s in whole.scores()} == {s.name: row[s.name] for s in whole.scores()}


def test_every_way_of_reading_serves_a_sidecars_columns(annotated: Path) -> None:
    dataset = open_dataset(str(annotated))
    key = voiced(dataset)[1]
    expected = log_mel(decode_flac(dataset.member(key, "flac")))
    assert equal(dataset.arrays(key, ["mel"])["mel"], expected)
    assert equal(from_npy(dataset.member(key, "mel.npy")), expected)
    sample = dataset.sample(key)
    assert equal(sample["mel.npy"], expected) and sample["emo_pts.npy"].tolist() == [0]
    span = dataset.span(key, 500_000_000, 1_000_000_000)
    assert equal(span["mel"], expected[40:80])
    at = dataset.column(key, "mel", [12_500_000 * 7])
    np.testing.assert_array_equal(at[0], expected[7])
    (window, *_) = Windows(length=8, fps=25, columns=("mel", "head", "emo")).of(dataset, key)
    np.testing.assert_array_equal(window["mel"], expected[:26].astype(np.float32))
    assert window["valid"].any() and window["emo"].shape == (1, 8)
    again = pickle.loads(pickle.dumps(dataset))
    assert equal(again.arrays(key, ["mel"])["mel"], expected)


def test_loaders_read_sidecars_with_workers_too(annotated: Path) -> None:
    dataset = open_dataset(str(annotated))
    windows = Windows(length=8, fps=25, columns=("mel", "arkit"))
    here, there = (
        [b["mel"].numpy().tobytes() for b in Loader(dataset, windows, batch_size=2, seed=3).batches(workers)]
        for workers in (0, 2)
    )
    assert here == there and len(here) > 2


def test_scores_join_the_clips_table(annotated: Path) -> None:
    dataset = open_dataset(str(annotated))
    loud = dataset.where(pc.field("loudness_lufs") > -100)
    assert 0 < len(loud) <= len(dataset)
    lowest = pc.min(dataset.clips.column("head_speed")).as_py()
    slow = dataset.where(pc.field("head_speed") <= lowest)
    assert len(slow) == 1
    assert equal(slow.arrays(slow.keys()[0], ["mel"])["mel"], dataset.arrays(slow.keys()[0], ["mel"])["mel"])
    assert stats(dataset)["scores"]["head_speed"][0] == lowest


def test_thresholds_may_bound_a_sidecars_scores(copy: Path) -> None:
    dataset = Dataset(str(copy))
    middle = float(np.median(dataset.clips.column("head_speed").to_numpy()))
    chosen = Selection.model_validate({"thresholds": {"head_speed": {"min": middle}}})
    change_selection(dataset, lambda _: chosen)
    assert 0 < len(open_dataset(str(copy))) < len(dataset)
    key = voiced(dataset)[0]
    edit_base(copy, key, "flac", silence(dataset, key))
    with pytest.raises(DatasetError, match="the sidecar head is stale: the dataset's shards were built anew"):
        open_dataset(str(copy))


def test_a_rebuild_goes_by_a_sidecars_scores_and_remembers_them(copy: Path, toolkit: Toolkit) -> None:
    """Of clips that are out of the shards no sidecar knows a score; a laxer threshold brings them back all the same."""

    def rebuilt(*how: str) -> list[str]:
        toolkit("filter", copy, *how, "--rebuild")
        toolkit("annotate", copy, "--offline", "--workers", "0")
        return Dataset(str(copy)).keys()

    clips = sorted(Dataset(str(copy)).clips.to_pylist(), key=lambda c: c["loudness_lufs"])
    middle, upper = clips[len(clips) // 2]["loudness_lufs"], clips[-2]["loudness_lufs"]
    as_built = data_of(copy)
    louder = {c["key"] for c in clips if c["loudness_lufs"] >= middle}
    assert 0 < len(louder) < len(clips)
    assert set(rebuilt("--set", f"loudness_lufs.min={middle}")) == louder
    out = [r for r in Dataset(str(copy)).table("rejects").to_pylist() if r["reason"] == "loudness_lufs_low"]
    assert {r["key"] for r in out} == {c["key"] for c in clips} - louder
    assert set(rebuilt("--set", f"loudness_lufs.min={upper}")) == {c["key"] for c in clips[-2:]}
    told = toolkit("filter", copy, "--set", f"loudness_lufs.min={middle}", "--dry-run").stdout
    assert f"{len(louder) - 2} would come back" in " ".join(told.split())
    assert set(rebuilt("--set", f"loudness_lufs.min={middle}")) == louder
    assert set(rebuilt("--reset")) == {c["key"] for c in clips}
    assert {n: d for n, d in data_of(copy).items() if n != "selection.json"} == as_built


def test_only_what_is_asked_for_is_read(copy: Path) -> None:
    """Without the base's shards a sidecar's columns are still there, and the other way round."""
    dataset = Dataset(str(copy))
    key = dataset.keys()[0]
    shard = dataset.clips.column("shard")[0].as_py()
    (copy / shard).rename(copy / "elsewhere.tar")
    assert len(dataset.arrays(key, ["mel"])["mel"])
    with pytest.raises(DatasetError, match=f"{shard}: {key}.arkit.npy: the shard is missing"):
        dataset.arrays(key, ["arkit"])
    (copy / "elsewhere.tar").rename(copy / shard)
    (copy / shard.replace("/", "-mel/")).unlink()
    dataset = Dataset(str(copy))
    assert len(dataset.arrays(key, ["arkit"])["arkit"])
    with pytest.raises(
        DatasetError, match=rf"{shard.replace('/', '-mel/')}: {key}.mel.npy: the shard is missing. Run: "
    ):
        dataset.arrays(key, ["arkit", "mel"])


def test_a_damaged_sidecar_shard_names_shard_and_member(copy: Path) -> None:
    dataset = Dataset(str(copy))
    shard = dataset.clips.column("shard")[0].as_py().replace("/", "-mel/")
    keys = dataset.where(pc.field("shard") == shard.replace("-mel", "")).keys()
    path, whole = copy / shard, (copy / shard).read_bytes()
    path.write_bytes(whole[: len(whole) // 1024 * 512])
    with pytest.raises(DatasetError, match=rf"{shard}: {keys[-1]}.mel.npy is cut short"):
        Dataset(str(copy)).arrays(keys[-1], ["mel"])
    path.write_bytes(b"\0" * 512 + whole)
    with pytest.raises(DatasetError, match=rf"{shard}: {keys[0]}.mel.npy is not where the manifest has it"):
        Dataset(str(copy)).arrays(keys[0], ["mel"])
    path.write_bytes(whole)
    (copy / "sidecars/mel/record.json").write_text("{}")
    with pytest.raises(DatasetError, match=r"sidecars/mel/record.json: not a sidecar's record .* Remove it"):
        len(Dataset(str(copy)))


def test_a_column_that_is_not_there_comes_with_its_command(base: Path) -> None:
    with pytest.raises(ConfigError, match=rf"no column 'mel'; .* Run: toolkit annotate {base} --with mel"):
        Windows(length=8, fps=25, columns=("mel",)).specs(open_dataset(str(base)))
    with pytest.raises(ConfigError, match=r"no column 'nonsense'; there are: pts, valid, box, lm, lm68, arkit\.$"):
        open_dataset(str(base)).spec("nonsense")
    with pytest.raises(ConfigError, match=r"arkit\. quality makes it of every frame .*, and no dataset keeps it\.$"):
        open_dataset(str(base)).spec("quality")


def test_what_a_dataset_cannot_have_added_comes_with_an_ingest(inputs: Path, toolkit: Toolkit, tmp_path: Path) -> None:
    """Of one without landmarks: they look at whole frames, and others need them."""
    dataset = Dataset(str(ingested(tmp_path / "d", inputs / "W009", toolkit, ("box",))))
    for column, name in (("lm", "landmarks"), ("head", "head"), ("identity", "identity")):
        with pytest.raises(
            ConfigError, match=rf"no column '{column}'; .* Run: toolkit ingest \.\.\. --with \.\.\.,{name}$"
        ):
            dataset.spec(column)
        who = name if name == "landmarks" else f"{name} needs landmarks, which"
        with pytest.raises(ConfigError, match=rf"^{who} looks at whole frames .* --with \.\.\.,{name}$"):
            to_make(dataset.held, [name])
    assert how_to_add(dataset.held, ["mel", "voice"]) == f"toolkit annotate {dataset.url} --with mel,voice"
    assert how_to_add(dataset.held, ["mel", "head"]) == "toolkit ingest ... --with ...,mel,head"


def test_a_stale_sidecar_is_refused_and_made_anew_of_what_changed(copy: Path) -> None:
    dataset = Dataset(str(copy))
    keys = dataset.keys()
    before = {key: dataset.arrays(key, ["mel"])["mel"] for key in keys}
    changed = voiced(dataset)[0]
    edit_base(copy, changed, "flac", silence(dataset, changed))
    stale = Dataset(str(copy))
    for ask in (
        lambda: stale.arrays(keys[1], ["mel"]),
        lambda: stale.member(keys[1], "mel.npy"),
        lambda: Windows(length=8, fps=25, columns=("mel",)).specs(stale),
    ):
        with pytest.raises(DatasetError, match=r"sidecar mel is stale: .* Run: toolkit annotate .* --with mel"):
            ask()
    with pytest.raises(ConfigError, match="the sidecar voice is stale"):
        stale.where(pc.field("loudness_lufs") > 0)
    assert "mel.npy" not in stale.members() and len(stale.sample(keys[1])["arkit.npy"])
    (again,) = add(copy, "mel")
    assert again.progress.clips_kept == len(keys) - 1
    fresh = Dataset(str(copy))
    after = {key: fresh.arrays(key, ["mel"])["mel"] for key in keys}
    assert [key for key in keys if not equal(after[key], before[key])] == [changed]
    assert equal(after[changed], log_mel(decode_flac(fresh.member(changed, "flac"))))


def test_a_dataset_built_anew_of_the_same_clips_keeps_all_results(
    copy: Path, inputs: Path, made: Path, toolkit: Toolkit, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other shards, equal clips: nothing is annotated again, whatever the clips' neighbours are now."""
    shards = Dataset(str(copy)).table("shards").num_rows
    ingested(copy, inputs, toolkit, BEFORE, megabytes=100)
    assert Dataset(str(copy)).table("shards").num_rows < shards
    assert "stale" in toolkit("verify", copy, code=1).stderr
    print_stale(Dataset(str(copy)))
    told = capsys.readouterr().out
    assert all(name in told for name in ADDED) and told.endswith(
        f"--models and --offline as before): toolkit annotate {copy}\n"
    )
    again = toolkit("annotate", copy, "--offline", "--workers", "0").stdout
    clips = len(Dataset(str(copy)))
    assert again.count(f"for {clips} clips, {clips} of them kept from an earlier run") == len(ADDED)
    assert verify(str(copy)) == []
    ingested(copy, inputs, toolkit, BEFORE)
    add(copy)
    assert data_of(copy).keys() >= data_of(made).keys() and verify(str(copy), readers=False) == []


def test_a_second_run_has_nothing_to_do(copy: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in copy.rglob("*") if p.is_file()}
    assert all(m.kept for m in add(copy, *ADDED))
    assert {p: p.stat().st_mtime_ns for p in copy.rglob("*") if p.is_file()} == before


def test_other_settings_run_that_annotator_alone(copy: Path) -> None:
    old = Dataset(str(copy)).clips
    mel, voice = add(copy, "mel", "voice", voice={"threshold": 0.99})
    assert mel.kept and not voice.kept and voice.progress.clips_kept == 0
    new = Dataset(str(copy)).clips
    assert new.column("speech_share") != old.column("speech_share")
    assert new.column("loudness_lufs") == old.column("loudness_lufs")
    (again,) = add(copy, "voice")
    assert again.kept and again.info.config["threshold"] == 0.99, "settings stay until others are given"


def test_any_number_of_workers_gives_the_same_bytes(base: Path, annotated: Path) -> None:
    add(base, *reversed(ADDED))
    assert data_of(base) == data_of(annotated)


def test_kill_nine_and_the_bytes_are_the_same(base: Path, annotated: Path) -> None:
    """The run dies three times on its way, then one of its workers; what is resumed equals what was never disturbed."""
    rng, died = random.Random(0), 0
    for earliest in (1, 9, 17):
        died += killed(base, earliest + rng.randrange(8), workers=0)
    killed(base, 1, workers=2)
    add(base, *ADDED)
    assert data_of(base) == data_of(annotated)
    assert not list(base.rglob("*.part"))
    assert died >= 2, f"only {died} of 3 kills hit a running process"


def killed(root: Path, wanted: int, *, workers: int) -> bool:
    """Kill -9 a run or, if it has any, its worker once so many files are there; wait for the end. False if it ended."""
    line = ("annotate", root, "--with", ",".join(ADDED), "--offline", "--workers", str(workers))
    process = subprocess.Popen(command(*line), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and sum(p.is_file() for p in root.glob("sidecars/*/**/*")) < wanted:
        time.sleep(0.002)
    if process.poll() is not None:
        return False
    victims = [process.pid]
    while workers and victims == [process.pid] and process.poll() is None:
        children = psutil.Process(process.pid).children(recursive=True)
        victims = [p.pid for p in children if "spawn_main" in " ".join(p.cmdline())] or victims
        time.sleep(0.01)
    if process.poll() is not None:
        return False
    os.kill(victims[0], signal.SIGKILL)
    process.wait(timeout=300)
    return True


def test_two_writers_are_kept_apart(base: Path, toolkit: Toolkit) -> None:
    with Folder(base).lock():
        refused = toolkit("annotate", base, "--with", "mel", "--offline", code=1)
    assert "another toolkit is writing here" in refused.stderr
    assert not (base / "sidecars").exists()


def test_sound_annotators_never_touch_pictures(base: Path) -> None:
    dataset, spans = Dataset(str(base)), counted()
    made = add(f"counting://{base}", "mel", "voice")
    assert all(not m.rejects for m in made)
    of_shards = [span for span in spans if "/packs/" not in span[0]]
    places = dataset.places.values()
    assert all(bytes_within([place["flac"]], of_shards) for place in places), "the reads are noted"
    assert bytes_within([place["mp4"] for place in places], of_shards) == 0


def test_damaged_pictures_do_not_matter_to_sound(base: Path, annotated: Path) -> None:
    for shard, offset, size in (p["mp4"] for p in Dataset(str(base)).places.values()):
        with (base / shard).open("r+b") as file:
            file.seek(offset)
            file.write(b"\0" * size)
    add(base, "mel", "voice")
    for name in data_of(annotated):
        if "mel" in name or "voice" in name:
            assert data_of(base)[name] == data_of(annotated)[name], name


def test_a_base_that_cannot_be_read_gives_no_sidecar(base: Path, annotated: Path) -> None:
    dataset = Dataset(str(base))
    key = voiced(dataset)[1]
    shard, offset, size = dataset.places[key]["flac"]
    whole = (base / shard).read_bytes()
    (base / shard).write_bytes(whole[: offset + 100] + b"\0" * (size - 100) + whole[offset + size :])
    with pytest.raises(DatasetError, match=f"mel could not read 1 clips: {shard}: {key}.flac is damaged"):
        add(base, "mel")
    assert Dataset(str(base)).sidecars == {}
    assert any("sidecars/mel: not finished" in str(p) for p in verify(str(base), readers=False))
    (base / shard).write_bytes(whole)
    (again,) = add(base, "mel")
    assert again.progress.clips_kept == len(dataset) - 1
    assert {n: d for n, d in data_of(base).items() if "mel" in n} == {
        n: d for n, d in data_of(annotated).items() if "mel" in n
    }


def test_a_clip_that_fails_is_a_reject_and_its_columns_are_missing(base: Path, toolkit: Toolkit) -> None:
    """`head` cannot do without the size of the source's frame."""
    folder = Folder(base)
    dataset = Dataset(str(base))
    source = dataset.clips.column("source")[0].as_py()
    rows = dataset.table("sources").to_pylist()
    sizeless = [row | {"height": 0} if row["name"] == source else row for row in rows]
    folder.write("manifest/sources.parquet", table_bytes(sizeless, schema.SOURCES))
    failed = toolkit("annotate", base, "--with", "head", "--offline", "--workers", "0", code=1)
    assert "head needs the frame's size" in failed.stderr
    opened = open_dataset(str(base))
    mine, others = (opened.where(e).keys() for e in (pc.field("source") == source, pc.field("source") != source))
    assert all(np.isnan(opened.arrays(k, ["head"])["head"]).all() for k in mine)
    assert all(np.isfinite(opened.arrays(k, ["head"])["head"]).any() for k in others)
    assert opened.where(pc.field("head_speed").is_null()).keys() == mine
    assert stats(opened)["rejects"]["annotate/head_internal_error"] == len(mine)
    assert sum("rejected at annotate: head_internal_error" in line for line in why(opened, source)) == len(mine)
    assert verify(str(base)) == []
    folder.write("manifest/sources.parquet", table_bytes(rows, schema.SOURCES))
    (again,) = add(base, "head")
    assert again.rejects == () and again.progress.clips_kept == len(others)
    assert np.isfinite(open_dataset(str(base)).arrays(mine[0], ["head"])["head"]).any()


def test_what_is_wrong_with_a_sidecar_is_found_and_made_anew(copy: Path, annotated: Path, toolkit: Toolkit) -> None:
    rng = random.Random(1)
    expected = data_of(annotated)
    shard = sorted(copy.glob("train-mel/*.tar"))[0]
    data = shard.read_bytes()
    for _ in range(10):
        at = rng.randrange(len(data))
        shard.write_bytes(data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :])
        assert any("train-mel/" in str(p) for p in verify(str(copy), readers=False)), f"byte {at}"
    shard.unlink()
    (copy / "train-mel/000077.tar").write_bytes(data)
    (copy / "sidecars/emotion/members.parquet").unlink()
    found = toolkit("verify", copy, code=1).stderr
    assert f"train-mel/{shard.name}: missing. Run: toolkit annotate {copy} --with mel" in found
    assert "train-mel/000077.tar: not in the manifest" in found
    assert "sidecars/emotion/members.parquet: missing" in found
    pack = sorted(copy.glob("sidecars/mel/packs/*.tar"))[0]
    held = pack.read_bytes()
    pack.write_bytes(held[:700] + bytes([held[700] ^ 1]) + held[701:])
    toolkit("verify", copy, "--repair", "--offline", "--workers", "0")
    assert data_of(copy) == expected


def test_scores_of_other_clips_are_refused(copy: Path) -> None:
    folder, name = Folder(copy), "sidecars/voice/clips.parquet"
    table = Dataset(str(copy)).sidecars["voice"].table(folder, "clips")
    rows = [{**row, "key": f"other-{i}"} for i, row in enumerate(table.to_pylist())]
    folder.write(name, table_bytes(rows, table.schema))
    with pytest.raises(DatasetError, match=f"{name} lists other clips"):
        len(open_dataset(str(copy)))
    assert any("lists other clips" in str(p) for p in verify(str(copy), readers=False))
    assert remake(str(copy), "voice", Models(offline=True), workers=0).progress.clips_kept == len(rows)
    assert verify(str(copy), readers=False) == []


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["quality"], "quality, coverage already|has sharpness"),
        (["arkit"], "has arkit, jaw_open_range already: ingest again"),
        (["gaze"], "no annotator named 'gaze'; there are: arkit, box"),
        ([], "has no sidecar to bring up to date"),
    ],
)
def test_what_cannot_be_annotated_is_refused_at_once(base: Path, names: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        add(base, *names)
    assert not (base / "sidecars").exists()


def test_what_needs_whole_frames_or_pictures_is_refused(inputs: Path, toolkit: Toolkit, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('[pack]\nannotators = ["box"]\n')
    (path,) = sorted(inputs.rglob("*.mp4"))[:1]
    toolkit("ingest", path, "--out", tmp_path / "blind", "--offline", "--config", config, "--no-video", "-j", "0")
    with pytest.raises(ConfigError, match="quality looks at whole frames of the source, of which a dataset keeps"):
        add(tmp_path / "blind", "quality")
    with pytest.raises(ConfigError, match=r"^head needs landmarks, which looks at whole frames"):
        add(tmp_path / "blind", "head")
    with pytest.raises(
        ConfigError, match=r"made without \(--no-video\)\. Run: toolkit ingest .* --with \.\.\.,fan --video$"
    ):
        add(tmp_path / "blind", "fan")


def test_the_licence_gate_stands_before_the_missing_file(base: Path, videos: Path, toolkit: Toolkit) -> None:
    """What may not be used is not asked for; what is missing is named with its licence and the way to it."""
    refused = toolkit("annotate", base, "--with", "flame", "--offline", "--licence", "commercial", code=2)
    assert "flame: its model file deca has the licence DECA licence, non-commercial research" in refused.stderr
    missing = toolkit("annotate", base, "--with", "mel,flame,wav2vec", "--offline", code=1)
    for name, words in {"flame": "deca deca_model.tar non-commercial", "wav2vec": "wav2vec wav2vec2-base"}.items():
        entry, *others = words.split()
        (line,) = [line for line in missing.stderr.splitlines() if f"{name}: {others[0]}" in line]
        assert all(w in line for w in (*others, f"toolkit models add {entry} PATH", f"leave {name} out"))
    assert not (base / "sidecars").exists(), "nothing is begun before all is there"
    bound = toolkit("annotate", base, "--with", "mel", "--offline", "--licence", "commercial", code=2)
    assert "base: its licence, MEAD terms of use (non-commercial research), forbids commercial use" in bound.stderr
    toolkit("annotate", base, "--with", "mel", "--offline", "--workers", "0")
    config = base.with_suffix(".nc.toml")
    config.write_text('[build]\nlicence = "CC-BY-NC-4.0"\n')
    video = min(videos.glob("M003/video/*/*/*/*.mp4"))
    how = ("--layout", "plain", "--config", config, "--offline", "--licence", "commercial")
    refused = toolkit("ingest", video, "--out", base.parent / "new", *how, code=2)
    assert f"{video.name}: its licence, CC-BY-NC-4.0, forbids commercial use" in refused.stderr
    assert not Folder(base.parent / "new").exists("dataset.json")


def test_the_card_lists_sidecars_and_their_terms(annotated: Path) -> None:
    card = (annotated / "README.md").read_text()
    assert "| `mel` | `mel.npy` | float16 | (rows, 80) |" in card
    assert "`voice` adds the scores has_sound, speech_share" in card
    assert re.search(r"\| voice \| \d+ \| MIT \| silero_vad \(MIT, sha256 ", card)


def test_the_examples_of_the_page_run(annotated: Path, tmp_path: Path) -> None:
    (tmp_path / "dataset").symlink_to(annotated)
    clips = Dataset(str(annotated)).clips.to_pylist()
    train = sum(c["split"] == "train" for c in clips)
    first = sum(c["shard"] == "train/000000.tar" for c in clips)
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "sidecars.md").read_text(), re.DOTALL)
    leave = "\nimport os, sys\nsys.stdout.flush()\nos._exit(0)"  # threads of `datasets` may abort a process that ends
    for code, lines in zip(examples, (first, train), strict=True):
        ran = subprocess.run(
            [sys.executable, "-c", code + leave], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
        assert len(ran.stdout.splitlines()) == lines > 0
