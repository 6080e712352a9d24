"""FLAME's head of a dataset's clips: drawn where its parameters say, and measured."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from talkface.annotate._deca import face_square
from talkface.commands.evaluate import command as evaluate
from talkface.commands.ingest import plan_of
from talkface.commands.sheet import command as sheet
from talkface.config import Ingest, Pack, Video
from talkface.datasets.build import build
from talkface.datasets.reader import Sample, open_dataset
from talkface.flame import load_flame
from talkface.ingest.job import ingest
from talkface.ingest.scan import scan
from talkface.media import ClipFrames
from talkface.render.sheet import draw_clip, to_crop, with_flame
from talkface.render.synthetic import PEOPLE, make_clip
from talkface.store import Folder
from talkface.weights import Models
from tests.annotate.stand_ins import egg_flame, frontal_deca


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models: a DECA that sees every face from the front, and an egg for FLAME's head."""
    folder = tmp_path_factory.mktemp("models")
    frontal_deca(folder / "deca_model.tar")
    egg_flame(folder / "generic_model.pkl")
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, files: Path) -> Path:
    root = tmp_path_factory.mktemp("sheet")
    make_clip(root / "clip.mp4", identity=PEOPLE["M003"], emotion="happy", seconds=1.2, fps=10.0, size=(256, 256))
    chosen = Ingest(pack=Pack(annotators=("box", "landmarks", "arkit", "head", "flame"), video=Video(size=256)))
    folder, models = Folder(root / "out"), Models(files, offline=True)
    build(folder, plan_of(ingest(scan([str(root / "clip.mp4")]), folder, chosen, models, workers=0), chosen))
    return root / "out"


@pytest.fixture(scope="module")
def sample(dataset: Path) -> Sample:
    opened = open_dataset(str(dataset))
    return opened.sample(opened.keys()[0])


def test_flames_head_lies_over_the_face(sample: Sample, files: Path) -> None:
    """An egg seen from the front, in the middle of DECA's square, as wide and high as its camera says."""
    frame = ClipFrames(sample["mp4"]).get([3])[0]
    drawn = with_flame(frame, sample, 3, load_flame(files / "generic_model.pkl"))
    marks = np.argwhere(np.abs(drawn.astype(int) - (255, 170, 60)).max(axis=2) < 40)[:, ::-1] + 0.5
    middle, side = face_square(to_crop(sample["lm68.npy"][3].astype(float), np.array(sample["json"]["crop"])))
    half = 8 * np.array([0.07, 0.1]) * side / 2
    np.testing.assert_allclose(marks.min(axis=0), middle - half, atol=2)
    np.testing.assert_allclose(marks.max(axis=0), middle + half, atol=2)


def test_what_is_not_known_is_not_drawn(sample: Sample, files: Path) -> None:
    flame, gap = load_flame(files / "generic_model.pkl"), dict(sample)
    gap["flame.npy"] = np.full_like(sample["flame.npy"], np.nan)
    frame = ClipFrames(sample["mp4"]).get([3])[0]
    changed = (with_flame(frame, gap, 3, flame) != frame).any(axis=2)
    assert changed.any(), "the word is there"
    assert not changed[: len(frame) * 3 // 4].any()


@pytest.fixture
def no_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user has none."""
    for name in ("TALKFACE_MODELS", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))


@pytest.mark.usefixtures("no_models")
def test_the_sheet_has_it_where_the_model_is(
    dataset: Path, files: Path, sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet(str(dataset), tmp_path / "with.png", 1, str(files))
    assert "not drawn" not in capsys.readouterr().out
    sheet(str(dataset), tmp_path / "without.png", 1, None)
    said = " ".join(capsys.readouterr().out.split())
    assert "FLAME's head is not drawn: Register and accept its licence" in said
    wide, narrow = (cv2.imread(str(tmp_path / f"{name}.png")).shape for name in ("with", "without"))
    assert wide[0] == narrow[0] and wide[1] - 16 == 2 * (narrow[1] - 16)
    assert draw_clip(sample).shape[1] == sample["json"]["crop_size"]


@pytest.mark.usefixtures("no_models")
def test_two_datasets_heads_are_measured(dataset: Path, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = {"reference": str(dataset), "metrics": "flame_vertices", "models": str(files), "as_json": True}
    evaluate(str(dataset), **asked)
    found = json.loads(capsys.readouterr().out)["values"]
    assert {name: row["value"] for name, row in found.items()} == {"flame_vertex_mean": 0, "flame_jaw_mean": 0}
    evaluate(str(dataset), **asked | {"models": None})
    assert json.loads(capsys.readouterr().out)["skipped"] == {"flame_vertices": "no flame model"}
