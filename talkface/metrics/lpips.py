"""LPIPS: how far apart pictures look to AlexNet (Zhang et al., CVPR 2018, v0.1), as EMOdiffhead and others report it.

Frame by frame on the generated clip's clock (`clocks.both`), whole pictures, scaled to 256 x 256.
"""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import UInt8

from talkface.metrics.base import Comparison, Face, Value, mean
from talkface.metrics.clocks import both
from talkface.nets.inference import batches, device, inference
from talkface.nets.lpips import Lpips, load_heads
from talkface.nets.vgg import load_alexnet
from talkface.weights import Models

SIDE = 256
BATCH = 16


class Metric:
    """The distance over AlexNet."""

    name = "lpips"
    needs = ("pairs", "pictures")
    describes = False
    weights = (("alexnet",),)
    settings: Mapping[str, Any] = {"network": "alex", "version": "0.1", "crop": "whole picture", "size": SIDE}
    values: Mapping[str, Value] = {
        "lpips_alex": Value("", "lower", "perceptual distance over AlexNet, mean over frames (LPIPS)")
    }

    def open(self, models: Models) -> None:
        """Raises WeightsError if AlexNet cannot be had."""
        self._net = Lpips(load_alexnet(models.get("alexnet")), load_heads("alex")).to(device())

    def compute(self, given: Comparison) -> dict[str, float]:
        """Mean over clips of the mean over frames."""
        return {"lpips_alex": mean([self._of(a, b) for a, b in given.pairs])}

    def _of(self, generated: Face, reference: Face) -> float:
        found: list[float] = []
        for batch in batches(both(generated, reference), BATCH):
            with inference():
                found += self._net(*(_input([pair[side] for pair in batch]) for side in (0, 1))).tolist()
        return mean(found)


def _input(pictures: list[UInt8[np.ndarray, "height width 3"]]) -> torch.Tensor:
    """(n, 3, 256, 256) in -1..1."""
    scaled = np.stack([_square(p) for p in pictures])
    return torch.from_numpy(scaled).to(device()).permute(0, 3, 1, 2).float() / 127.5 - 1


def _square(picture: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "256 256 3"]:
    smaller = picture.shape[0] > SIDE
    return cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC).astype(
        np.uint8
    )
