"""Faces from datasets: those that are shown, what an ingest measured on them, and why a column is not looked at."""

from pathlib import Path

import pytest

from talkface.config import Ingest, Pack, Video
from talkface.datasets.build.job import build, rebuild
from talkface.datasets.open import open_dataset
from talkface.datasets.reader import Dataset
from talkface.datasets.selection import mark
from talkface.datasets.sidecars.job import annotate_dataset
from talkface.datasets.split import Splitting, write_splitting
from talkface.ingest.job import ingest
from talkface.ingest.scan import scan
from talkface.make_dataset import plan_of
from talkface.metrics.base import Comparison
from talkface.metrics.evaluate import evaluate
from talkface.metrics.faces import pair_up, read_faces
from talkface.render.synthetic import PEOPLE, make_clip
from talkface.store import Folder
from talkface.weights import Models
from tests.annotate.stand_ins import stand_in_models
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


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A clip of each of two people, with identities and SyncNet's scores by stand-ins of the true format."""
    root = tmp_path_factory.mktemp("people")
    for folder in ("models", "videos"):
        (root / folder).mkdir()
    for name in ("M003", "W009"):
        make_clip(root / "videos" / f"{name}.mp4", identity=PEOPLE[name], seconds=1.8, fps=10.0, size=(256, 256))
    wanted = ("box", "landmarks", "arkit", "head", "identity", "syncnet")
    settings = Ingest(layout="plain", pack=Pack(annotators=wanted, video=Video(size=160)))
    models, out = stand_in_models(root / "models", "sface", "syncnet"), Folder(root / "dataset")
    build(out, plan_of(ingest(scan([str(root / "videos")], "plain"), out, settings, models, workers=0), settings))
    return open_dataset(out.url)


def test_identity_and_syncnet_are_compared(people: Dataset) -> None:
    faces = read_faces(people.url)
    one, other = (people.arrays(key, ["identity"])["identity"] for key in people.keys())  # noqa: SIM118
    names = ["face_similarity", "syncnet"]
    both = Comparison(generated=faces, references=faces, pairs=pair_up(faces, faces))
    assert evaluate(both, names)["values"]["f_sim"]["value"] == pytest.approx(1)
    crossed = Comparison(generated=faces[:1], references=faces[1:], pairs=pair_up(faces[:1], faces[1:]))
    found = evaluate(crossed, names)
    assert found["skipped"] == {}
    assert found["values"]["f_sim"]["value"] == pytest.approx(float(one @ other)) and one @ other < 0.999
    for name in ("lse_d", "lse_c"):
        told = [found["values"][name][side] for side in ("value", "reference")]
        assert told == pytest.approx(people.clips.column(name).to_pylist()) and told[0] != told[1]
