"""Checkpoints: whole or not there, strict about what they hold, and plain about what is wrong."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from talkface.datasets.reader import Dataset
from talkface.datasets.sidecars.job import annotate_dataset
from talkface.errors import ConfigError, WeightsError
from talkface.train import checkpoint
from talkface.train.base import configure
from talkface.train.data import split
from talkface.train.ema import Average
from talkface.train.loop import train
from talkface.train.provenance import commit
from talkface.train.start import fill
from talkface.weights import Models
from tests.train.making import COLUMNS, TALKERS, make


@pytest.fixture(scope="module")
def run(talkers: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    clips, held = split(talkers)
    config = configure("emodiff", "tiny", None, ("width=32", "layers=1", "heads=2", "stride=8", "training.steps=2",
                                                 "training.batch_size=4", "training.evaluate_batches=1"))  # fmt: skip
    train("emodiff", config, clips, held, out, say=lambda text: None)
    return out


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def edit(run: Path, **values: object) -> None:
    path = checkpoint.find(run) / "checkpoint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_what_it_records(run: Path, talkers: str) -> None:
    about = checkpoint.About.read(checkpoint.find(run))
    state = about.facts["state"]
    assert about.task == "emodiff" and about.step == 2 and about.data["url"] == talkers
    assert state["names"][17] == "jawOpen" and state["units"][17] == "0..1" and state["units"][-1] == "rad"
    assert len(state["mean"]) == len(state["std"]) == len(state["valid"]) == 55
    assert about.facts["noise"]["steps"] == 500 and about.facts["sound"]["column"]["rate"] == 80.0
    assert about.talkface and about.config["width"] == 32
    assert set(about.files) == {"model", "averaged", "optimizer"}


def test_a_model_comes_back_with_its_averaged_weights(run: Path) -> None:
    model = checkpoint.load(run)
    about = model.about
    averaged = checkpoint.tensors(checkpoint.find(run), "averaged", about)
    assert all(torch.equal(v, averaged[k]) for k, v in model.net.state_dict().items())
    assert model.digest == about.files["averaged"] and not model.net.training


def test_other_weights_are_refused(copy: Path) -> None:
    """Nothing is loaded in part: missing, surplus and other shapes are named."""
    model = checkpoint.load(copy)
    state = dict(model.net.state_dict())
    first = next(iter(state))
    for change, word in (
        ({k: v for k, v in state.items() if k != first}, f"missing: {first}"),
        (state | {"more": torch.zeros(1)}, "not of this network: more"),
        (state | {first: torch.zeros(1)}, f"of another shape: {first}"),
    ):
        with pytest.raises(WeightsError, match=word):
            fill(model.net, change, "here")
    edit(copy, config=model.about.config | {"width": 64})
    with pytest.raises(WeightsError, match="another network"):
        checkpoint.load(copy)


def test_damage_is_found(copy: Path) -> None:
    path = checkpoint.find(copy) / "averaged.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="damaged"):
        checkpoint.load(copy)
    path.unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        checkpoint.load(copy)


def test_versions_and_tasks(copy: Path) -> None:
    with pytest.raises(WeightsError, match="where one of lip is needed"):
        checkpoint.load(copy, task="lip")
    about = checkpoint.About.read(checkpoint.find(copy))
    edit(copy, task_version=99)
    with pytest.raises(WeightsError, match="version 99"):
        checkpoint.load(copy)
    edit(copy, task_version=about.task_version, facts=about.facts | {"noise": {"steps": 7, "alphas_cumprod": "0"}})
    with pytest.raises(WeightsError, match="noise schedule"):
        checkpoint.load(copy)
    written = checkpoint.find(copy) / "checkpoint.json"
    edit(copy, format=99)
    with pytest.raises(WeightsError, match="newer"):
        checkpoint.load(copy)
    written.write_text("{")
    with pytest.raises(WeightsError, match="damaged"):
        checkpoint.load(copy)


def test_another_commit_is_told_on_resuming_and_another_version_refused(copy: Path, talkers: str) -> None:
    about = checkpoint.About.read(checkpoint.find(copy))
    assert about.commit == commit() and checkpoint.other_code(about) == ""
    edit(copy, commit="0123456789abcdef")
    clips, held = split(talkers)
    said = list[str]()
    train("emodiff", checkpoint.config_of(about), clips, held, copy, resume=True, say=said.append)
    assert any("which commit 0123456789ab made; this is" in line for line in said)
    edit(copy, talkface="0.0.9")
    with pytest.raises(ConfigError, match=r"made by talkface 0\.0\.9, and this is"):
        train("emodiff", checkpoint.config_of(about), clips, held, copy, resume=True, say=said.append)
    assert checkpoint.load(copy).about.talkface == "0.0.9", "what another version made can still be used"


def test_other_data_are_refused_and_what_an_older_talkface_recorded_is_not_called_so(copy: Path, talkers: str) -> None:
    about = checkpoint.About.read(checkpoint.find(copy))
    clips, held = split(talkers)
    for version, line in ((checkpoint.FORMAT, "was trained on other data"), (1, "an older talkface made it")):
        edit(copy, format=version, data=about.data | {"hash": "0" * 16})
        with pytest.raises(ConfigError, match=line):
            train("emodiff", checkpoint.config_of(about), clips, held, copy, resume=True, say=lambda text: None)


@pytest.fixture
def with_mel(tmp_path: Path) -> Path:
    """A dataset whose mel is a sidecar."""
    columns = tuple(c for c in COLUMNS if c.name != "mel")
    url = make(tmp_path / "data", TALKERS[:2], columns=columns)
    annotate_dataset(url, ["mel"], None, Models(offline=True), workers=0)
    return Path(url)


def test_a_dataset_is_its_clips_their_labels_and_the_columns_that_are_read(with_mel: Path) -> None:
    """Also of a sidecar: annotated again, by another annotator or of other contents, it is another dataset."""

    def found(*columns: str) -> str:
        return checkpoint.dataset_hash(Dataset(str(with_mel)), columns)

    before, without = found("arkit", "mel"), found("arkit")
    assert before != without and before == found("arkit", "mel")
    record, clips = with_mel / "sidecars/mel/record.json", with_mel / "manifest/clips.parquet"
    whole = json.loads(record.read_text())
    for what in ("fingerprint", "shards"):
        record.write_text(json.dumps(whole | {what: "0" * 64}))
        assert found("arkit", "mel") != before and found("arkit") == without
    record.write_text(json.dumps(whole))
    assert found("arkit", "mel") == before
    table = pq.read_table(clips)
    sad = pa.array(["sad"] * len(table))
    pq.write_table(table.set_column(table.column_names.index("emotion"), "emotion", sad), clips)
    assert found("arkit") != without


def test_no_checkpoint(tmp_path: Path, run: Path) -> None:
    with pytest.raises(WeightsError, match="no checkpoint in it"):
        checkpoint.load(tmp_path)
    with pytest.raises(WeightsError, match="no checkpoint 77; there are: 00000002"):
        checkpoint.load(run, which="77")
    assert checkpoint.load(checkpoint.find(run)).about.step == 2


def test_what_a_crash_left_is_swept(copy: Path) -> None:
    part = copy / checkpoint.FOLDER / ".00000003.0123abcd.part"
    part.mkdir()
    (part / "model.safetensors").write_bytes(b"half")
    assert [p.name for p in checkpoint.names(copy)] == ["00000002"]
    checkpoint.sweep(copy)
    assert not part.exists()


def test_the_average_of_weights() -> None:
    """a = d a + (1 - d) p with d = min(decay, (1 + n) / (10 + n)), and the weights are as before after looking."""
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    average, expected = Average([weight], 0.5), 1.0
    for step, value in enumerate([3.0, -2.0, 8.0, 0.5, 4.0, 4.0, 4.0, 4.0, 4.0]):
        weight.data.fill_(value)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
        with average.applied():
            assert float(weight) == pytest.approx(expected)
        assert float(weight) == value
    assert np.isclose(decay, 0.5), "the test should reach the final decay"
