"""A mirror shows pictures, points, blendshapes and head alike; light changes nothing but light."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.transform import Rotation

from talkface.annotate.head import head_column
from talkface.annotate.landmarks import FaceMesh
from talkface.clip import ColumnSpec
from talkface.datasets import Dataset, open_dataset
from talkface.datasets.loading.augment import MIRRORED_HEAD, MIRRORED_SHAPES, check_mirror, light, mirror, mirrored_mesh
from talkface.datasets.loading.windows import Pictures, Windows
from talkface.errors import ConfigError
from talkface.vocab import ARKIT
from tests.datasets.making import make, steady

WIDTH = 200


@given(
    st.integers(1, 4).flatmap(
        lambda n: st.fixed_dictionaries(
            {
                name: hnp.arrays(np.float32, (n, *shape), elements=st.floats(-64, 256, width=16))
                for name, shape in {"box": (5,), "lm": (478, 3), "lm68": (68, 2), "arkit": (52,), "head": (10,)}.items()
            }
        )
    )
)
def test_a_mirror_in_a_mirror_shows_the_thing_itself(window: dict[str, np.ndarray]) -> None:
    twice = mirror(mirror(window, WIDTH), WIDTH)
    for name, value in window.items():
        assert np.allclose(twice[name], value, atol=1e-3), name
    assert (mirror(window, WIDTH)["box"][:, 1] == window["box"][:, 1]).all()


def test_every_shape_has_its_own_other_side() -> None:
    for name, other in zip(ARKIT, MIRRORED_SHAPES, strict=True):
        assert ARKIT[other] != name or ("Left" not in name and "Right" not in name)
    assert ARKIT[MIRRORED_SHAPES[ARKIT.index("eyeLookInLeft")]] == "eyeLookInRight"


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3))
def test_a_mirrored_rotation_is_that_of_the_mirrored_points(turn: list[float]) -> None:
    flip = np.diag([-1.0, 1.0, 1.0])
    rotation = Rotation.from_rotvec(turn)
    quaternion = rotation.as_quat()[[3, 0, 1, 2]] * MIRRORED_HEAD[:4]
    expected = flip @ rotation.as_matrix() @ flip
    assert np.allclose(Rotation.from_quat(quaternion[[1, 2, 3, 0]]).as_matrix(), expected, atol=1e-6)


def test_mesh_points_pair_up() -> None:
    order = mirrored_mesh()
    assert (order[order] == np.arange(478)).all()
    assert (order[[33, 133, 61, 1, 468]] == [263, 362, 291, 1, 473]).all(), "corners of eyes and mouth, nose, irises"


def test_a_real_face_in_a_mirror(media: Path, models: Path) -> None:
    """What the model sees in the mirrored picture is what the mirror makes of what it sees in the picture."""
    picture = cv2.imread(str(media / "expected/tfjs-models__portrait.jpg"))[..., ::-1].copy()
    height, width = picture.shape[:2]
    net = FaceMesh(models / "face_landmarker.task")
    whole = np.array([0, 0, width, height], np.float32)
    seen, other = net.detect(picture, whole), net.detect(np.ascontiguousarray(picture[:, ::-1]), whole)
    assert seen is not None and other is not None and seen.shapes is not None and other.shapes is not None
    pts = np.zeros(1, np.int64)
    window = {
        "lm": seen.points[None],
        "arkit": seen.shapes[None],
        "head": head_column(seen.points[None], pts, size=(width, height)),
    }
    found = mirror(window, width)
    face = np.ptp(seen.points[:, :2], axis=0).max()
    assert np.abs(found["lm"][0] - other.points)[:, :2].mean() < 0.02 * face
    assert np.nanmax(np.abs(found["arkit"][0] - other.shapes)) < 0.15
    head = head_column(other.points[None], pts, size=(width, height))
    between = Rotation.from_quat(found["head"][0, [1, 2, 3, 0]]) * Rotation.from_quat(head[0, [1, 2, 3, 0]]).inv()
    assert np.degrees(between.magnitude()) < 3
    assert np.allclose(found["head"][0, 4:7], head[0, 4:7], atol=0.05 * abs(head[0, 6]))


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(make(tmp_path_factory.mktemp("augment") / "dataset", [steady("a", 40, seed=1)], video=True))


def windows(**more: float) -> Windows:
    light_ = more.pop("light", 0.0)
    pictures = Pictures(size=48, zoom=0.3, light=light_)
    return Windows(length=8, fps=25, columns=("box", "head", "arkit"), pictures=pictures, **more)  # type: ignore[arg-type]


def test_mirrored_windows_keep_boxes_on_their_pictures(filmed: Dataset) -> None:
    plain = next(windows().of(filmed, "a", np.random.default_rng(3)))
    flipped = next(windows(mirror=1.0).of(filmed, "a", np.random.default_rng(3)))
    assert flipped["mirrored"] and "mirrored" not in plain
    assert (flipped["frames"] == plain["frames"][:, :, ::-1]).all()
    centre = (flipped["box"][:, :2] + flipped["box"][:, 2:4]) / 2
    for frame, (x, y) in zip(flipped["frames"], centre, strict=True):
        assert frame[int(y), int(x)].mean() > 150, "the white dot is where the box says"


def test_half_of_the_windows_are_mirrored(filmed: Dataset) -> None:
    rng = np.random.default_rng(0)
    drawn = [w["mirrored"] for _ in range(20) for w in windows(mirror=0.5).of(filmed, "a", rng)]
    assert 0.3 < np.mean(drawn) < 0.7


def test_light_is_one_draw_a_window_and_moves_nothing(filmed: Dataset) -> None:
    plain = next(windows().of(filmed, "a", np.random.default_rng(3)))
    lit = next(windows(light=0.4).of(filmed, "a", np.random.default_rng(3)))
    assert (lit["box"] == plain["box"]).all() and (lit["frames"] != plain["frames"]).any()
    table: dict[tuple[int, int], int] = {}
    for old, new in zip(plain["frames"].reshape(-1, 3), lit["frames"].reshape(-1, 3), strict=True):
        for channel in range(3):
            assert table.setdefault((channel, int(old[channel])), int(new[channel])) == new[channel]


@given(st.floats(0, 0.9), st.integers(0, 100))
def test_light_keeps_the_order_of_brightness(most: float, seed: int) -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 1, 256, 3)
    lit = light(ramp, most, np.random.default_rng(seed)).astype(int)
    assert (np.diff(lit[0, 0], axis=0) >= 0).all()
    if most == 0:
        assert (lit == ramp).all()


def test_columns_without_a_mirror_image_are_refused(filmed: Dataset) -> None:
    flame = ColumnSpec(name="flame", dtype="float32", shape=(59,), unit="", clock="frame", description="")
    with pytest.raises(ConfigError, match="column flame has no known mirror image"):
        check_mirror([flame], pictures=True)
    with pytest.raises(ConfigError, match="box is in pixels of the source"):
        list(Windows(length=8, fps=25, columns=("box",), mirror=0.5).of(filmed, "a"))
    with pytest.raises(ConfigError, match="share of windows"):
        Windows(length=8, fps=25, mirror=1.5)
    with pytest.raises(ConfigError, match="light"):
        Pictures(light=1.0)
