"""Faces from datasets: those that are shown, and why a column is not looked at."""

from pathlib import Path

import pytest

from talkface.datasets.build import rebuild
from talkface.datasets.reader import open_dataset
from talkface.datasets.selection import mark
from talkface.datasets.sidecar_job import annotate_dataset
from talkface.datasets.split import Splitting, write_splitting
from talkface.metrics.base import Comparison
from talkface.metrics.evaluate import evaluate
from talkface.metrics.faces import read_faces
from talkface.store import Folder
from talkface.weights import Models
from tests.datasets.making import make, steady


@pytest.fixture
def url(tmp_path: Path) -> str:
    clips = [steady(key, 30, seed=i, emotion="happy", speaker=key) for i, key in enumerate("abc")]
    return make(tmp_path / "dataset", clips)


def test_clips_that_are_hidden_are_not_measured(url: str) -> None:
    assert [face.key for face in read_faces(url)] == ["a", "b", "c"]
    mark(open_dataset(url), {"b": "drop"})
    assert [face.key for face in read_faces(url)] == ["a", "c"]


def test_a_stale_sidecar_is_named_with_its_command(url: str) -> None:
    """One that was made before the dataset was split, for which its column could be taken for none."""
    annotate_dataset(url, ("emotion",), None, Models(offline=True), workers=0)
    record = Path(url) / "sidecars" / "emotion" / "record.json"
    record.write_text(record.read_text().replace('"emo"', '"flame"'))
    folder = Folder(url)
    write_splitting(folder, Splitting(val=0.5, test=0, by="source"))
    rebuild(folder)
    faces = read_faces(url)
    found = evaluate(Comparison(generated=faces, references=faces), ["expression_frechet"])
    assert found["values"]["e_fid_arkit"]["value"] is not None and found["values"]["e_fid_flame"]["value"] is None
    why = found["skipped"]["flame"]
    assert "the sidecar emotion is stale: the dataset's shards were built anew since" in why
    assert f"Run: toolkit annotate {url} --with emotion" in why
