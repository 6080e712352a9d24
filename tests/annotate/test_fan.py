"""FAN: where its square lies, where its heat-maps' peaks lie in the source, and its file."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from face_alignment.utils import get_preds_fromhm, transform
from torch import Tensor, nn
from torch.nn import functional

from talkface.annotate.base import ClipView, make_annotator
from talkface.annotate.fan import Heatmaps, box_square, cut_square, load_fan, peaks, squares, to_source
from talkface.errors import WeightsError
from talkface.face_mesh import MIRROR68
from talkface.nets.inference import PictureNet
from talkface.weights import Models
from tests.annotate.making import clip_view, video_of
from tests.annotate.stand_ins import random_fan, stand_in_models

FRAMES = 3


class Bright(nn.Module):
    """A network whose answer is known: every point is where its share of the picture is brightest.

    Points on the right of a mirrored pair look at the right half of the picture, the others at the left half, as a
    network does that was taught which eye is which.
    """

    def forward(self, x: Tensor) -> list[Tensor]:
        light = functional.avg_pool2d(x.mean(dim=1, keepdim=True), 4).expand(-1, 68, -1, -1).clone()
        of_right = torch.from_numpy(np.arange(68) > MIRROR68)
        light[:, of_right, :, :32] = 0
        light[:, ~of_right, :, 32:] = 0
        return [torch.zeros_like(light), light]


def spot(picture: np.ndarray, at: tuple[float, float], radius: float) -> None:
    """Light that is brightest at ``at``: x, y from the corner of the first pixel."""
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]] + 0.5
    light = 230 * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * radius**2))
    np.maximum(picture, light[..., None].astype(np.uint8), out=picture)


def test_points_come_back_to_where_they_are_in_the_source() -> None:
    """Spots at known places of a source, seen through a crop, the square and the heat-maps."""
    box = np.array([300.0, 200.0, 460.0, 420.0])
    crop = np.array([[1.25, 0, -1.25 * 130.4], [0, 1.25, -1.25 * 60.2]])
    for left, right in [((340.3, 290.6), (431.8, 270.2)), ((325.7, 399.9), (452.0, 222.5))]:
        picture = np.zeros((512, 512, 3), np.uint8)
        for place in (left, right):
            spot(picture, tuple(crop[:, :2] @ place + crop[:, 2]), radius=12)
        view = clip_view(1, crop=crop, video=video_of(picture[None]), box=np.append(box, 0.9)[None])
        (seen,) = squares(view, box[None], np.array([True]))
        for flip in (False, True):
            maps = PictureNet(Heatmaps(Bright(), flip=flip))(seen[None]).numpy()
            cells, heights = peaks(maps)
            points = to_source(cells, box[None])[0]
            cell = box_square(box)[1] / 64
            for place, paired in ((left, np.arange(68) < MIRROR68), (right, np.arange(68) > MIRROR68)):
                np.testing.assert_allclose(points[paired], np.broadcast_to(place, (29, 2)), atol=0.5 * cell)
            assert heights.min() > 0.3


def test_the_square_is_face_alignments() -> None:
    """The package's own mapping of a point in the input to the picture, which cuts off fractions of pixels."""
    box = np.array([120.0, 80.0, 280.0, 300.0])
    centre = torch.tensor([200.0, 190.0 - 0.12 * 220])
    scale = (160 + 220) / 195
    for cell in [(0.5, 0.5), (20.25, 40.75), (63.5, 31.0)]:
        ours = to_source(np.broadcast_to(cell, (1, 68, 2)), box[None])[0, 0]
        theirs = transform(torch.tensor(cell), centre, scale, 64, invert=True).numpy()
        assert (np.abs(ours - theirs) < 1).all(), (ours, theirs)


def test_peaks_are_face_alignments() -> None:
    maps = np.random.default_rng(0).random((3, 68, 64, 64), np.float32)
    maps[0, :4] = 0
    maps[0, 0, 0, 0] = maps[0, 1, 63, 63] = maps[0, 2, 0, 20] = maps[0, 3, 30, 63] = 2  # the border has no neighbours
    cells, heights = peaks(maps)
    theirs, _, scores = get_preds_fromhm(maps.copy())
    np.testing.assert_allclose(cells, theirs)
    np.testing.assert_allclose(heights, scores)


def test_the_picture_is_cut_where_the_square_says() -> None:
    y, x = np.mgrid[:250, :250]
    ramp = np.stack([x, y, np.full_like(x, 255)], axis=2).astype(np.uint8)
    box = np.array([60.5, 90.25, 160.5, 210.75])
    centre, side = box_square(box)
    np.testing.assert_allclose(centre, (110.5, 150.5 - 0.12 * 120.5))
    assert side == pytest.approx(200 / 195 * (100 + 120.5))
    cut = cut_square(ramp, box).astype(float)
    across, down = (c - side / 2 - 0.5 + (np.arange(256) + 0.5) * side / 256 for c in centre)
    inside = cut[..., 2] == 255
    assert inside.mean() > 0.9
    np.testing.assert_allclose(cut[..., 0][inside], np.broadcast_to(across, (256, 256))[inside], atol=0.6)
    np.testing.assert_allclose(cut[..., 1][inside], np.broadcast_to(down[:, None], (256, 256))[inside], atol=0.6)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return stand_in_models(tmp_path_factory.mktemp("models"), "fan")


def annotated(view: ClipView, models: Models, **settings: object) -> Mapping[str, np.ndarray]:
    annotator = make_annotator("fan", settings)
    annotator.open(models)
    return annotator.clip(view).columns


def test_batches_change_rounding_alone(models: Models) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (FRAMES, 16, 16, 3))
    pictures = np.kron(coarse, np.ones((1, 16, 16, 1))).astype(np.uint8)
    box = np.tile(np.array([90, 80, 170, 190, 0.9], np.float32), (FRAMES, 1))
    box[1] = np.nan
    view = clip_view(FRAMES, video=video_of(pictures), box=box)
    one, two = (annotated(view, models, flip=False, batch=batch)["fan"] for batch in (1, 2))
    assert np.isnan(one[1]).all()
    assert np.isfinite(one[[0, 2]]).all()
    np.testing.assert_allclose(one, two, atol=1e-3)
    assert np.abs(one[0] - one[2]).max() > 1


def test_bfloat16_moves_clear_points_by_half_a_cell_at_most(models: Models) -> None:
    """Clear is a peak that stands above all other cells by more than twice the map's greatest error: it cannot move to
    another cell, whichever way a processor adds up, and only the quarters by which it leans to a neighbour can turn."""
    coarse = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3))
    pictures = np.kron(coarse, np.ones((1, 16, 16, 1))).astype(np.uint8)
    nets = [PictureNet(Heatmaps(load_fan(models.get("fan")), flip=False), p) for p in ("float32", "bfloat16")]
    exact, rough = (net(pictures).numpy() for net in nets)
    assert 0 < np.sqrt(((rough - exact) ** 2).mean()) / exact.std() < 0.05
    (ours, _), (theirs, _) = peaks(exact), peaks(rough)
    best, second = np.sort(exact.reshape(*exact.shape[:2], -1), axis=2)[..., :-3:-1].transpose(2, 0, 1)
    clear = best - second > 2 * np.abs(rough - exact).max(axis=(2, 3))
    assert clear.mean() > 0.05
    assert np.abs(ours - theirs)[clear].max() <= 0.5


def test_without_boxes_nothing_is_decoded(models: Models) -> None:
    view = clip_view(2, video=b"no video", box=np.full((2, 5), np.nan, np.float32))
    assert np.isnan(annotated(view, models, flip=False)["fan"]).all()


def test_the_net_has_as_many_stacks_as_its_file(tmp_path: Path) -> None:
    random_fan(tmp_path / "fan.pth.tar", stacks=2)
    net = load_fan(tmp_path / "fan.pth.tar")
    assert net.num_modules == 2
    state = torch.load(tmp_path / "fan.pth.tar")
    torch.testing.assert_close(net.state_dict()["l0.weight"], state["l0.weight"], atol=0, rtol=0)


def test_a_file_that_is_not_fans_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fan.pth.tar"
    torch.save({"l0.weight": torch.zeros(98, 256, 1, 1), "conv1.weight": torch.zeros(64, 3, 7, 7)}, path)
    with pytest.raises(WeightsError, match=r"FAN with 1 stacks: .*l0\.weight: expected \(68, 256, 1, 1\), got \(98,"):
        load_fan(path)
    torch.save([1], path)
    with pytest.raises(WeightsError, match="expected tensors by name, found list"):
        load_fan(path)


def test_a_missing_file_names_licence_and_command(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"2DFAN4-11f355bf06\.pth\.tar .*licence BSD.*toolkit models add fan PATH"):
        make_annotator("fan", {}).open(Models(offline=True, cache=tmp_path))
