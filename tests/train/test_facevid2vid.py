"""Face-vid2vid's losses, axes and relative motion: what a wrong sign or a constant would break."""

import numpy as np
import pytest
import torch

from talkface.datasets.reader import Dataset
from talkface.nets.facevid2vid.geometry import angles_of, picture_rotation, rotation
from talkface.nets.facevid2vid.pose import Pose
from talkface.train.base import configure
from talkface.train.inputs.relative_motion import Relative, Transfer, free_view
from talkface.train.objectives.adversarial import critic_hinge, feature_matching, maker_hinge
from talkface.train.objectives.equivariance import Warp
from talkface.train.objectives.keypoints import depth, spread
from talkface.train.tasks.facevid2vid import Task, truth_of


def test_the_prior_has_no_constant() -> None:
    """The open code counts each keypoint as too near to itself: 0.1 a keypoint, whatever is learned."""
    apart = torch.tensor([[[-0.9, 0, 0.33], [0.0, 0.9, 0.33], [0.9, 0, 0.33]]])
    assert spread(apart) == 0
    assert depth(apart) == pytest.approx(0, abs=1e-6)
    assert spread(torch.zeros(1, 3, 3)) == pytest.approx(6 * 0.1)


def test_warps_take_points_where_they_take_pictures() -> None:
    """A spot of the warped picture lies where the warp says that the picture's spot went."""
    rng = torch.Generator().manual_seed(3)
    warp, spot = Warp(4, rng, affine=0.1, spline=0.02), torch.tensor([0.3, -0.2])
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 129)] * 2, indexing="ij")
    bump = torch.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / 0.005)
    seen = warp.picture(bump.expand(4, 3, -1, -1))[:, 0]
    weights = seen / seen.sum((1, 2), keepdim=True)
    at = torch.stack([(weights * x).sum((1, 2)), (weights * y).sum((1, 2))], 1)[:, None]
    assert (at[:, 0] - spot).norm(dim=1).max() > 0.03, "the warps move it"
    assert (warp.of(at)[:, 0] - spot).norm(dim=1).max() < 0.01


def test_angles_undo_rotation() -> None:
    angles = torch.tensor([[30.0, -20.0, 10.0], [-70.0, 5.0, 0.0]])
    assert torch.allclose(angles_of(rotation(*angles.unbind(1))), angles, atol=1e-3)


def test_the_head_column_turns_as_the_picture_does(filmed: str) -> None:
    """On drawn heads: the tip of the nose leaves the middle of the jaw as the rotation in picture axes says."""
    data = Dataset(filmed)
    away, told = [], []
    for key in sorted(data.keys()):
        arrays = data.arrays(key, ["head", "lm68"])
        seen = np.isfinite(arrays["head"][:, 0])
        points = arrays["lm68"][seen]
        wide = np.linalg.norm(points[:, 16] - points[:, 0], axis=1, keepdims=True)
        away.append((points[:, 30] - (points[:, 0] + points[:, 16]) / 2) / wide)
        turn = picture_rotation(torch.as_tensor(arrays["head"][seen, :4]))
        told.append(-turn[:, :2, 2].numpy())  # of the nose's direction, to the camera at rest
    for axis, least in ((0, 0.95), (1, 0.6)):
        assert np.corrcoef(np.concatenate(away)[:, axis], np.concatenate(told)[:, axis])[0, 1] > least


def test_a_pose_that_is_not_known_is_nan() -> None:
    quaternion = torch.tensor([[1.0, 0, 0, 0], [torch.nan] * 4])
    truth = truth_of(quaternion)
    assert torch.equal(truth[0], torch.zeros(3)) and torch.isnan(truth[1]).all()


def test_free_view_turns_as_the_docs_say() -> None:
    nose = torch.tensor([0.0, 0.0, -1.0])
    assert (free_view(20, 0, 0) @ nose)[0] > 0.3, "positive yaw: nose to image right"
    assert (free_view(0, 20, 0) @ nose)[1] < -0.3, "positive pitch: up, and y points down"
    assert (free_view(0, 0, 20) @ torch.tensor([0.0, -1.0, 0.0]))[0] < -0.3, "positive roll: top to image left"


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    torch.manual_seed(0)
    return Task(configure("facevid2vid", "tiny"), {}).build().eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("relative", ["keypoints", "pose"])
@torch.no_grad()
def test_relative_motion(net: torch.nn.Module, relative: Relative) -> None:
    """Driven by its own rest, the portrait stays as it is; a head that moves aside moves it aside."""
    rng = torch.Generator().manual_seed(0)
    source, rest = torch.rand(2, 1, 3, 64, 64, generator=rng)
    moves = Transfer(net, source, rest, relative, torch.eye(3))  # type: ignore[arg-type]
    at = moves.source.points
    assert torch.allclose(moves.points(moves.rest), at, atol=1e-4)
    painted = net.generator.paint(moves.source.appearance, at, at).picture
    assert torch.allclose(moves.frames(rest), painted, atol=1e-3)
    aside = Pose(moves.rest.angles, moves.rest.translation + torch.tensor([0.1, 0, 0]), moves.rest.expression)
    shift = (moves.points(aside) - at)[0]
    assert torch.allclose(shift[:, 0], shift[:1, 0].expand(5), atol=1e-4) and shift[0, 0] > 0
    assert shift[:, 1:].abs().max() < 1e-4


def test_hinge() -> None:
    """Sure and right costs the discriminator nothing; real features take no gradient."""
    assert critic_hinge(torch.tensor([2.0]), torch.tensor([-2.0])) == 0
    assert critic_hinge(torch.zeros(1), torch.zeros(1)) == 2
    assert maker_hinge(torch.tensor([3.0])) == -3
    real, made = torch.ones(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    feature_matching([real], [made]).backward()
    assert real.grad is None and made.grad is not None
