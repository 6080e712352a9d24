"""Face-vid2vid: moves the face of a portrait as another face moves (DREAM-Talk 3.4, MagicTalk 3.4).

Two frames of one clip: the second is made again from the first and from the keypoints of its motion. Head pose learns
from the ``head`` column, where the paper asks a pose network. Two phases: ``generator`` (keypoints, pose, appearance)
and ``discriminator``. Losses and weights: Wang et al., CVPR 2021, appendix A.2.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final, Literal

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from pydantic import Field
from torch import Tensor

from talkface.config import Strict
from talkface.datasets.loading.loader import Batch
from talkface.datasets.loading.windows import Pictures, Windows
from talkface.datasets.reader import Dataset
from talkface.nets.facevid2vid.design import Design, Widths
from talkface.nets.facevid2vid.geometry import angles_of, picture_rotation, posed
from talkface.nets.facevid2vid.model import FaceVid2Vid, Reenacted
from talkface.train.base import Facts, Phase, Step, TaskConfig, Training
from talkface.train.inputs.relative_motion import Relative, Transfer, free_view
from talkface.train.meters import Means
from talkface.train.objectives.adversarial import critic_hinge, feature_matching, maker_hinge
from talkface.train.objectives.equivariance import Warp
from talkface.train.objectives.keypoints import depth, expression_size, pose_error, spread
from talkface.train.objectives.pyramid import pyramid
from talkface.train.protocols import Driving, Picture, Portrait

WEIGHTS: Final[Mapping[str, float]] = {
    "perceptual": 10, "equivariance": 10, "prior": 10, "pose": 20, "expression": 5, "gan": 1, "features": 10,
}  # fmt: skip
"""Of the losses, the paper's. ``prior`` is of the spread and the depth of keypoints."""

DESIGNS: Final[Mapping[str, Design]] = {
    "public": Design(),
    "public_spade": Design(spade=True),
    "tiny": Design(
        keypoints=5, depth=4, volume=8, appearance=Widths(16, 32, 2), residuals=2, detector=Widths(8, 64, 3),
        motion=Widths(8, 64, 3), pose_first=16, pose_widths=(32, 64, 128), pose_repeats=(1, 1, 1),
        critic=Widths(8, 64, 4), mask_kernel=3,
    ),
}  # fmt: skip

MAKERS: Final = ("kp_detector.", "he_estimator.", "generator.")
SHOWN: Final = 6
AT_ONCE: Final = 8
"""Frames that transfer makes in one pass."""


class FaceVid2VidConfig(TaskConfig):
    """What changes Face-vid2vid."""

    size: int = Field(256, ge=32, description="side of the pictures, px")
    design: Literal["tiny", "public", "public_spade"] = Field(
        "public", description="sizes of the networks: the public checkpoints', the larger one's with SPADE, or tiny"
    )
    margin: int = Field(10, ge=0, description="frames between source and driving frame at least")
    mirror: float = Field(0.5, ge=0, le=1, description="share of mirrored pairs")
    light: float = Field(0.1, ge=0, lt=1, description="largest change of brightness, contrast and colour")
    stride: int = Field(5, ge=1, description="frames from one driving frame to the next")
    rate: float = Field(25.0, gt=0, description="frames a second")
    gan: bool = Field(True, description="the second phase, and what the generator learns from it")
    gan_every: int = Field(1, ge=1, description="steps from one of the discriminator to the next")
    gan_after: int = Field(0, ge=0, description="steps of the discriminator before the generator listens to it")
    corners: bool = Field(
        True, description="sample over the corners, as grids are made; false: as the public checkpoints were trained"
    )

    @property
    def windows(self) -> Windows:
        return Windows(
            length=1, fps=self.rate, columns=("head",), stride=self.stride, reference=1, margin=self.margin,
            mirror=self.mirror, pictures=Pictures(size=self.size, light=self.light),
        )  # fmt: skip


class Sampling(Strict):
    """How motion is put on the portrait."""

    relative: Relative = Field(
        "keypoints",
        description="keypoints: what the driver's keypoints do is added (papers); pose: head and expression apart, no "
        "leak of the face's shape at large turns; off: absolute",
    )
    yaw: float = Field(0.0, description="degrees by which the head is turned on, positive: nose to image right")
    pitch: float = Field(0.0, description="degrees, positive: looks up")
    roll: float = Field(0.0, description="degrees, positive: top of the head to image left")


PAPER: Final = Training(
    steps=100_000, batch_size=32, optimizer="adam", learning_rate=2e-4, betas=(0.5, 0.999), clip_norm=0, ema=0,
)  # fmt: skip
TINY: Final = Training(
    steps=900, batch_size=8, optimizer="adam", learning_rate=1e-3, betas=(0.5, 0.999), clip_norm=0, ema=0,
    schedule="cosine", evaluate_every=150, evaluate_batches=8, save_every=150,
)  # fmt: skip


class Task:
    """Face-vid2vid, trained on pairs of frames of one clip."""

    version: ClassVar[int] = 1
    Config: ClassVar[type[TaskConfig]] = FaceVid2VidConfig
    Sampling: ClassVar[type[Strict]] = Sampling
    presets: ClassVar[Mapping[str, TaskConfig]] = {
        "paper": FaceVid2VidConfig(training=PAPER),
        "modern": FaceVid2VidConfig(training=PAPER.model_copy(update={"ema": 0.999}), design="public_spade"),
        "tiny": FaceVid2VidConfig(training=TINY, size=64, design="tiny", gan_every=4, gan_after=100),
    }

    @classmethod
    def learn(cls, config: FaceVid2VidConfig, dataset: Dataset) -> Facts:
        return {}

    def __init__(self, config: FaceVid2VidConfig, facts: Facts) -> None:
        self.config, self.facts = config, facts

    @property
    def phases(self) -> tuple[Phase, ...]:
        makers = Phase("generator", MAKERS)
        critic = Phase("discriminator", ("discriminator.",), every=self.config.gan_every)
        return (makers, critic) if self.config.gan else (makers,)

    def build(self) -> torch.nn.Module:
        return Pairs(replace(DESIGNS[self.config.design], corners=self.config.corners))

    def step(self, model: torch.nn.Module, batch: Batch, rng: torch.Generator, phase: str) -> Step:
        return self._maker(model, batch, rng) if phase == "generator" else self._critic(model, batch)

    def _maker(self, model: Any, batch: Batch, rng: torch.Generator) -> Step:
        source, driving, truth = pair(batch)
        warp = Warp(len(driving), rng)
        made: Reenacted = model(source, driving)
        losses = {"perceptual": pyramid(made.painted.picture, driving), **self._keypoints(model, made, driving, warp)}
        losses["pose"] = pose_error(made.pose.angles, truth, torch.isfinite(truth).all(1))
        if self.config.gan:
            losses |= self._judged(model, made.painted.picture, driving)
        total = torch.stack([WEIGHTS[name] * value for name, value in losses.items()]).sum()
        return Step(total, {name: value.detach() for name, value in losses.items()})

    def _keypoints(self, model: Any, made: Reenacted, driving: Tensor, warp: Warp) -> dict[str, Tensor]:
        seen = model.he_estimator(warp.picture(driving))
        warped = posed(made.source.canonical, seen.turn, seen.translation, seen.expression)
        return {
            "equivariance": (made.points[..., :2] - warp.of(warped[..., :2])).abs().mean(),
            "prior": spread(made.points) + depth(made.points),
            "expression": expression_size(made.pose.expression),
        }

    def _judged(self, model: Any, picture: Tensor, real: Tensor) -> dict[str, Tensor]:
        """The discriminator's word, once it has seen ``gan_after`` batches."""
        if model.judged < self.config.gan_after:
            return {}
        of_made, of_real = model.discriminator(picture), model.discriminator(real)
        return {
            "gan": maker_hinge(of_made.scores),
            "features": feature_matching(of_real.features, of_made.features),
        }

    def _critic(self, model: Any, batch: Batch) -> Step:
        source, driving, _ = pair(batch)
        with torch.no_grad():
            made = model(source, driving).painted.picture
        model.judged += model.training
        loss = critic_hinge(model.discriminator(driving).scores, model.discriminator(made).scores)
        return Step(loss)

    def evaluate(self, model: torch.nn.Module, batches: Iterable[Batch], rng: torch.Generator) -> dict[str, float]:
        """Where a face was found: the pyramid loss, PSNR of what is made and of a copy of the source, and error of the
        head pose in degrees."""
        means = Means()
        for batch in batches:
            source, driving, truth = pair(batch)
            known = torch.isfinite(truth).all(1)
            if not known.any():
                known, count = torch.ones_like(known), 0
            else:
                count = int(known.sum())
            made, real = model(source, driving), driving[known]
            means.add("loss", pyramid(made.painted.picture[known], real), count)
            means.add("psnr", psnr(made.painted.picture[known], real), count)
            means.add("psnr_copy", psnr(source[known], real), count)
            error = pose_error(made.pose.angles, truth, torch.isfinite(truth).all(1))
            means.add("pose_degrees", torch.rad2deg(error), count)
        return means.found()

    def picture(
        self, model: torch.nn.Module, batch: Batch, rng: torch.Generator
    ) -> UInt8[np.ndarray, "height width 3"]:
        """Columns of source, driving frame and what was made of them."""
        source, driving, _ = pair(batch)
        source, driving = source[:SHOWN], driving[:SHOWN]
        made = model(source, driving).painted.picture
        rows = [np.concatenate(list(as_pictures(each)), 1) for each in (source, driving, made)]
        return np.concatenate(rows, 0)

    def transfer(
        self, net: torch.nn.Module, portrait: Portrait, driving: Driving, rng: torch.Generator, how: Any
    ) -> Iterator[Picture]:
        """The source's features are computed once; motion is relative to the neutral frame, else to the first."""
        device, size = next(net.parameters()).device, self.config.size
        model: Any = net
        rest = driving.neutral if driving.neutral is not None else next(iter(driving.pictures()))
        source = as_tensor([portrait.resized(size).picture], size, device)
        turn = free_view(how.yaw, how.pitch, how.roll).to(device)
        moves = Transfer(model, source, as_tensor([rest], size, device), how.relative, turn)
        for some in in_groups(driving.pictures(), AT_ONCE):
            yield from as_pictures(moves.frames(as_tensor(some, size, device)))


class Pairs(FaceVid2Vid):
    """The networks, and of how many batches the discriminator has learned."""

    judged: Tensor

    def __init__(self, design: Design) -> None:
        super().__init__(design)
        self.register_buffer("judged", torch.zeros((), dtype=torch.int64))


def pair(batch: Batch) -> tuple[Tensor, Tensor, Float[Tensor, "batch 3"]]:
    """Source and driving pictures in 0..1, and yaw, pitch and roll of the latter in degrees, NaN where not known."""
    driving, source = (batch[name][:, 0].permute(0, 3, 1, 2).float() / 255 for name in ("frames", "reference"))
    return source, driving, truth_of(batch["head"][:, 0, :4])


def truth_of(quaternion: Float[Tensor, "batch 4"]) -> Float[Tensor, "batch 3"]:
    """Angles as the network tells them; NaN where the head is not known."""
    known: Bool[Tensor, " batch"] = torch.isfinite(quaternion).all(1)
    straight = torch.tensor([1.0, 0, 0, 0], device=quaternion.device)
    angles = angles_of(picture_rotation(torch.where(known[:, None], quaternion, straight)))
    return torch.where(known[:, None], angles, torch.nan)


def psnr(made: Tensor, real: Tensor) -> Tensor:
    """dB, the mean over pictures."""
    return (-10 * torch.log10((made - real).square().flatten(1).mean(1).clamp(min=1e-10))).mean()


def as_tensor(pictures: Iterable[Picture], size: int, device: torch.device) -> Float[Tensor, "batch 3 size size"]:
    """RGB pictures, resized to a square, in 0..1."""
    resized = [cv2.resize(p, (size, size), interpolation=cv2.INTER_AREA) for p in pictures]
    return torch.as_tensor(np.stack(resized), device=device).permute(0, 3, 1, 2).float() / 255


def as_pictures(made: Float[Tensor, "batch 3 height width"]) -> UInt8[np.ndarray, "batch height width 3"]:
    """Tensors in 0..1 as RGB pictures."""
    return (made.detach().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def in_groups(pictures: Iterator[Picture], count: int) -> Iterator[list[Picture]]:
    """So many at a time."""
    some: list[Picture] = []
    for each in pictures:
        some.append(each)
        if len(some) == count:
            yield some
            some = []
    if some:
        yield some
