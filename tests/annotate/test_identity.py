"""Identity by OpenCV's recognizer on a stand-in of SFace: alignment, mean, and what is refused."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from talkface.annotate.base import ClipView, make_annotator
from talkface.annotate.identity import FIVE_POINTS, load_recognizer, spread, unit
from talkface.clip import NS, Clip, FrameTable, Source, Timeline
from talkface.errors import WeightsError
from talkface.weights import Models
from tests.annotate.stand_ins import SIZE, random_sface, stand_in_models, synthetic_video

FRAMES = 10
SFACE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Where eyes, nose and mouth lie in an aligned face of 112 x 112 (ArcFace's template)."""


def view_of(seed: int, points: np.ndarray) -> ClipView:
    source = Source(uri="a.mp4", name="a.mp4", sha256="0", size=1, layout="plain")
    crop = np.array([[2.0, 0, -40], [0, 2.0, 10]])
    clip = Clip(
        key="a", source=source, start_ns=0, end_ns=FRAMES * NS // 25, track=0, shot=0, crop=crop, crop_size=SIZE
    )
    meshes = np.full((FRAMES, 478, 3), np.nan, np.float32)
    meshes[2:] = 0
    meshes[2:, FIVE_POINTS, :2] = clip.to_source(points)
    table = FrameTable(Timeline(np.arange(FRAMES) * (NS // 25)), {"lm": meshes})
    return ClipView(clip, table, np.zeros(0, np.int16), False, synthetic_video(seed, FRAMES))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return stand_in_models(tmp_path_factory.mktemp("sface"), "sface")


def test_is_the_mean_of_aligned_faces(models: Models) -> None:
    """A face that lies upright in the crop at twice the template's size: alignment is a plain scaling there."""
    annotator = make_annotator("identity", {"frames": 2})
    annotator.open(models)
    view = view_of(1, SFACE_POINTS * 2 + (150, 120))
    result = annotator.clip(view)  # type: ignore[attr-defined]
    matrix = np.array([[2.0, 0, 150], [0, 2.0, 120]])
    vectors = []
    rng = np.random.default_rng(4)
    weight, bias = rng.normal(0, 0.05, (128, 192)), rng.normal(0, 0.1, 128)
    for i, picture in enumerate(view.pictures()):
        if i in (4, 8):
            face = cv2.warpAffine(picture, matrix, (112, 112), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
            cells = face.astype(np.float64).transpose(2, 0, 1).reshape(3, 8, 14, 8, 14).mean(axis=(2, 4))
            vectors.append(unit(weight @ cells.ravel() + bias))
    expected = unit(np.mean(vectors, axis=0))
    np.testing.assert_allclose(result.columns["identity"], expected, atol=2e-3)
    assert np.linalg.norm(result.columns["identity"]) == pytest.approx(1, abs=1e-6)
    assert result.scores["identity_agreement"] == pytest.approx(min(v @ expected for v in vectors), abs=1e-3)


def test_frames_are_spread_over_those_with_a_mesh() -> None:
    assert spread(np.arange(2, 10), 2).tolist() == [4, 8]
    assert spread(np.arange(3), 8).tolist() == [0, 1, 2]
    assert spread(np.arange(0), 8).tolist() == []


def test_another_model_of_another_width(tmp_path: Path) -> None:
    random_sface(tmp_path / "own.onnx", width=64)
    annotator = make_annotator("identity", {"model": str(tmp_path), "width": 64})
    annotator.open(Models(offline=True))
    assert annotator.columns[0].shape == (64,)
    with pytest.raises(WeightsError, match="gives 64 numbers, the setting width says 128"):
        make_annotator("identity", {"model": str(tmp_path)}).open(Models(offline=True))


def test_a_network_of_larger_pictures_is_refused(tmp_path: Path) -> None:
    random_sface(tmp_path / "own.onnx", side=160)
    with pytest.raises(WeightsError, match=r"expected a network of RGB pictures of 112 x 112; on these it fails .*192"):
        make_annotator("identity", {"model": str(tmp_path)}).open(Models(offline=True))


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"not a network")
    with pytest.raises(WeightsError, match=r"^identity: .*not a network that OpenCV reads .*leave identity out"):
        load_recognizer(tmp_path / "x.onnx")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        WeightsError, match=r"^identity: .*empty: expected one \.onnx, found 0\. .*leave identity out\.$"
    ):
        load_recognizer(tmp_path / "empty")
