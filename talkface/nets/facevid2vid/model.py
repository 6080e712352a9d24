"""The four networks as one module."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from talkface.nets.facevid2vid.critic import Discriminator
from talkface.nets.facevid2vid.design import Design
from talkface.nets.facevid2vid.generator import Appearance, Generator, Painted
from talkface.nets.facevid2vid.geometry import posed
from talkface.nets.facevid2vid.keypoints import KeypointDetector
from talkface.nets.facevid2vid.pose import Pose, PoseEstimator

PARTS = ("kp_detector", "he_estimator", "generator", "discriminator")
"""Names of the networks, here and in public checkpoints."""


class Source(NamedTuple):
    """All that is known of a source picture: made once, however many frames follow."""

    appearance: Appearance
    canonical: Float[Tensor, "batch points 3"]
    pose: Pose

    @property
    def points(self) -> Float[Tensor, "batch points 3"]:
        """The keypoints of the picture as it is."""
        return posed(self.canonical, self.pose.turn, self.pose.translation, self.pose.expression)


class Reenacted(NamedTuple):
    """A driving frame made again from the source and the frame's keypoints, with all that came between."""

    painted: Painted
    source: Source
    pose: Pose
    points: Float[Tensor, "batch points 3"]


class FaceVid2Vid(nn.Module):
    """Pictures are float, 0..1, channels first. Called on a source and a driving picture of one person it makes the
    latter again from the former (training); `source` and `Generator.paint` are for driving by anyone."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.kp_detector, self.he_estimator = KeypointDetector(design), PoseEstimator(design)
        self.generator, self.discriminator = Generator(design), Discriminator(design)

    def source(self, picture: Float[Tensor, "batch 3 height width"]) -> Source:
        """What is made of a source picture once."""
        return Source(self.generator.appearance(picture), self.kp_detector(picture), self.he_estimator(picture))

    def forward(
        self, source: Float[Tensor, "batch 3 height width"], driving: Float[Tensor, "batch 3 height width"]
    ) -> Reenacted:
        known, pose = self.source(source), self.he_estimator(driving)
        # The person is the source's: canonical keypoints of the driving frame are never looked at.
        points = posed(known.canonical, pose.turn, pose.translation, pose.expression)
        painted = self.generator.paint(known.appearance, points, known.points)
        return Reenacted(painted, known, pose, points)
