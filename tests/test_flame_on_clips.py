"""FLAME's head of a dataset's clips: drawn where its parameters say, and measured."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from talkface.config import Ingest, Pack, Video
from talkface.datasets.build.job import build
from talkface.datasets.open import open_dataset
from talkface.datasets.reader import Sample
from talkface.flame import load_flame
from talkface.ingest.job import ingest
from talkface.ingest.scan import scan
from talkface.make_dataset import plan_of
from talkface.media import ClipFrames
from talkface.nets.deca import face_square
from talkface.render.sheet import draw_clip, to_crop, with_flame
from talkface.render.synthetic import PEOPLE, make_clip
from talkface.store import Folder
from talkface.weights import VARIABLE, Models
from tests.annotate.stand_ins import egg_flame, frontal_deca
from tests.conftest import command


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
def say(tmp_path: Path) -> Callable[..., str]:
    """A command of a user who has no models of their own; gives what it printed."""
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "COLUMNS": "400"}
    environment.pop(VARIABLE, None)

    def run(*arguments: str | Path) -> str:
        found = subprocess.run(command(*arguments), env=environment, capture_output=True, text=True, check=True)
        return found.stdout

    return run


LACKING = "Register and accept its licence at https://flame.is.tue.mpg.de, then run: toolkit models add flame PATH"


def test_the_sheet_has_it_where_the_model_is(
    dataset: Path, files: Path, sample: Sample, tmp_path: Path, say: Callable[..., str]
) -> None:
    wide, narrow = tmp_path / "wide.png", tmp_path / "narrow.png"
    assert "not drawn" not in say("sheet", dataset, "--clips", "1", "--out", wide, "--models", files)
    said = say("sheet", dataset, "--clips", "1", "--out", narrow)
    assert "FLAME's head is not drawn: " in said and LACKING in said
    (high, with_head), (as_high, without) = (cv2.imread(str(path)).shape[:2] for path in (wide, narrow))
    assert high == as_high and with_head - 16 == 2 * (without - 16)
    assert draw_clip(sample).shape[1] == sample["json"]["crop_size"]


def test_two_datasets_heads_are_measured(dataset: Path, files: Path, tmp_path: Path, say: Callable[..., str]) -> None:
    """A model that is not here, or not whole, leaves one metric out."""
    asked = ("evaluate", dataset, "--reference", dataset, "--metrics", "flame_vertices,mouth_shapes", "--json")
    found = json.loads(say(*asked, "--models", files))["values"]
    assert [found[name]["value"] for name in ("flame_vertex_mean", "flame_jaw_mean", "mouth_error")] == [0, 0, 0]
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/generic_model.pkl").write_bytes(b"not a pickle")
    for more, why in (((), LACKING), (("--models", tmp_path / "damaged"), "generic_model.pkl: not a pickle")):
        found = json.loads(say(*asked, *more))
        assert why in found["skipped"].pop("flame_vertices") and not found["skipped"]
        assert found["values"]["mouth_error"]["value"] == 0
