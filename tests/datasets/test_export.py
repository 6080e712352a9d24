"""Exports hold what the dataset holds, read back by those they are for."""

import json
import wave
from pathlib import Path

import datasets as hf
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from talkface.datasets import Dataset, open_dataset
from talkface.datasets.export import FORMS, export, motion_of, nested
from talkface.errors import ConfigError, DatasetError
from talkface.motion import Motion
from talkface.store import from_npy
from talkface.vocab import ARKIT
from tests.conftest import Toolkit
from tests.datasets.making import make, sound_of, steady, variable

CLIPS = [
    steady("a-25", 40, seed=1, speaker="anna", emotion="happy"),
    variable("b-vfr", 50, seed=2, speaker="anna", emotion="sad"),
    steady("c-30", 31, 30000 / 1001, seed=3, speaker="ben", emotion="happy"),
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(make(tmp_path_factory.mktemp("export") / "dataset", CLIPS, video=True))


def test_parquet_is_read_by_hugging_face_with_every_type(dataset: Dataset, tmp_path: Path) -> None:
    assert export(dataset, str(tmp_path / "out"), "parquet") == len(CLIPS)
    found = hf.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert [s["__key__"] for s in found] == dataset.keys()
    for sample in found:
        expected = dataset.sample(sample["__key__"])
        for ext, value in expected.items():
            if isinstance(value, np.ndarray):
                got = np.array(sample[ext], value.dtype).reshape(value.shape)
                assert np.array_equal(got, value, equal_nan=value.dtype.kind == "f"), ext
            elif ext == "json":
                assert sample[ext].items() <= value.items() and len(sample[ext]) > 10
            else:
                assert sample[ext] == value, ext


def test_live_link_recordings_hold_the_motion(dataset: Dataset, tmp_path: Path) -> None:
    export(dataset, str(tmp_path), "livelink")
    for clip in CLIPS:
        ours, theirs = motion_of(dataset, clip.key), Motion.load(tmp_path / f"{clip.key}.csv")
        assert np.abs(ours.pts_ns - theirs.pts_ns).max() <= 10_000, "the timecode counts thousandths of a 60th"
        seen = np.isfinite(ours.arkit[:, 0])
        assert np.allclose(ours.arkit[seen][:, :51], theirs.arkit[seen][:, :51], atol=1e-6)
        assert (theirs.arkit[:, ARKIT.index("tongueOut")] == 0).all()
        assert np.allclose(ours.angles(), theirs.angles(), atol=1e-6)
        assert (tmp_path / f"{clip.key}.mp4").read_bytes() == dataset.member(clip.key, "mp4")
        with wave.open(str(tmp_path / f"{clip.key}.wav")) as file:
            assert (file.getframerate(), file.getnchannels()) == (16000, 1)
            assert np.array_equal(np.frombuffer(file.readframes(file.getnframes()), "<i2"), sound_of(clip))


def test_folders_hold_every_member(dataset: Dataset, tmp_path: Path) -> None:
    export(dataset, str(tmp_path), "folders")
    for key in dataset.keys():  # noqa: SIM118
        folder = tmp_path / "train" / key
        assert json.loads((folder / "clip.json").read_bytes()) == dataset.sample(key, ["json"])["json"]
        for member in dataset.info.members():
            if member.endswith(".npy"):
                assert (folder / member).read_bytes() == dataset.member(key, member)
        assert (folder / "video.mp4").read_bytes() == dataset.member(key, "mp4")
        with wave.open(str(folder / "audio.wav")) as file:
            assert file.getnframes() > 0


def test_an_export_never_covers_something_else(dataset: Dataset, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    export(dataset, out, "folders")
    with pytest.raises(ConfigError, match="export of another form"):
        export(dataset, out, "livelink")
    assert export(dataset, out, "folders") == len(CLIPS)
    with pytest.raises(ConfigError, match="a talkface dataset lies there"):
        export(dataset, dataset.url, "folders")
    with pytest.raises(ConfigError, match="no form named 'csv'; there are: parquet, livelink, folders"):
        export(dataset, out, "csv")


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_dataset_ends_the_export_without_its_marker(form: str, tmp_path: Path) -> None:
    url = make(tmp_path / "dataset", CLIPS)
    shard = sorted((tmp_path / "dataset" / "train").glob("*.tar"))[-1]
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2 // 512 * 512])
    with pytest.raises(DatasetError, match=shard.name):
        export(open_dataset(url), str(tmp_path / "out"), form)
    assert not (tmp_path / "out" / "export.json").exists()


def test_the_command(dataset: Dataset, tmp_path: Path, toolkit: Toolkit) -> None:
    done = toolkit("export", dataset.url, "--as", "folders", "--out", tmp_path / "out", "--split", "train")
    assert f"{len(CLIPS)} clips as folders" in done.stdout
    failed = toolkit("export", dataset.url, "--as", "csv", "--out", tmp_path / "out", code=2)
    assert failed.stderr.startswith("ConfigError: no form named 'csv'")


@given(hnp.arrays(st.sampled_from([np.float32, np.float16, np.int64]), hnp.array_shapes(max_dims=4, min_side=0)))
def test_nested_lists_are_the_array(array: np.ndarray) -> None:
    row = nested(array)
    assert len(row) == 1
    found = np.array(row.to_pylist()[0], array.dtype).reshape(array.shape)
    assert np.array_equal(found, array, equal_nan=array.dtype.kind == "f")
    assert pa.types.is_list(row.type)


def test_arrays_come_back_with_their_dtype(dataset: Dataset, tmp_path: Path) -> None:
    export(dataset, str(tmp_path), "folders")
    key = dataset.keys()[0]
    assert from_npy((tmp_path / "train" / key / "mel.npy").read_bytes()).dtype == np.float16
