"""A driver's motion put on another person's keypoints: DREAM-Talk 3.4's relative mode, and other ways."""

import math
from typing import Literal

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from talkface.motion import head_rows
from talkface.nets.facevid2vid.geometry import picture_rotation, posed
from talkface.nets.facevid2vid.model import FaceVid2Vid
from talkface.nets.facevid2vid.pose import Pose

Relative = Literal["keypoints", "pose", "off"]


class Transfer:
    """One portrait that is to move as a driver does, whose ``rest`` picture is where motion begins.

    Pictures are (batch, 3, size, size) in 0..1. The portrait goes through the networks once. ``turn`` (3, 3) is added
    to every head.
    """

    def __init__(self, net: FaceVid2Vid, source: Tensor, rest: Tensor, relative: Relative, turn: Tensor) -> None:
        self.net, self.relative, self.turn = net, relative, turn
        self.source, self.rest = net.source(source), net.he_estimator(rest)
        self.driver = net.kp_detector(rest)
        self.rest_points = posed(self.driver, self.rest.turn, self.rest.translation, self.rest.expression)
        wide = [hull_area(points[0, :, :2]) for points in (self.source.points, self.rest_points)]
        self.scale = math.sqrt(wide[0] / max(wide[1], 1e-6))

    def frames(self, driving: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch 3 size size"]:
        """The portrait as it looks when it moves so."""
        points = self.points(self.net.he_estimator(driving))
        many = len(driving)
        of, at = self.source.appearance.repeated(many), self.source.points.expand(many, -1, -1)
        return self.net.generator.paint(of, points, at).picture

    def points(self, pose: Pose) -> Float[Tensor, "batch points 3"]:
        """Keypoints of the portrait for heads of the driver."""
        if self.relative == "keypoints":
            moved = self.relative_points(pose)
            centre = self.source.pose.translation[:, None]
            return (moved - centre) @ self.turn.T + centre
        if self.relative == "off":
            return self._posed(pose.turn, pose.translation, pose.expression)
        mine, rest = self.source.pose, self.rest
        turn = pose.turn @ rest.turn.transpose(1, 2) @ mine.turn
        translation = mine.translation + pose.translation - rest.translation
        return self._posed(turn, translation, mine.expression + pose.expression - rest.expression)

    def relative_points(self, pose: Pose) -> Float[Tensor, "batch points 3"]:
        """The portrait's keypoints, and what the driver's do beside those of its rest, at the portrait's size."""
        many = len(pose.angles)
        moved = posed(self.driver.expand(many, -1, -1), pose.turn, pose.translation, pose.expression)
        scale = torch.tensor([self.scale, self.scale, 1.0], device=moved.device)
        return self.source.points + scale * (moved - self.rest_points)

    def _posed(self, turn: Tensor, translation: Tensor, expression: Tensor) -> Tensor:
        return posed(self.source.canonical.expand(len(turn), -1, -1), self.turn @ turn, translation, expression)


def free_view(yaw: float, pitch: float, roll: float) -> Float[Tensor, "3 3"]:
    """A turn in the picture's axes; angles in degrees, signs as in docs/head.md."""
    radians = np.deg2rad([[yaw, pitch, roll]])
    quaternion = head_rows(radians, np.zeros((1, 3)))[:, :4]
    return picture_rotation(torch.as_tensor(quaternion, dtype=torch.float32))[0]


def hull_area(points: Float[Tensor, "points 2"]) -> float:
    """Area of the convex hull of points."""
    flat = np.ascontiguousarray(points.detach().cpu().float().numpy())
    return float(cv2.contourArea(cv2.convexHull(flat)))
