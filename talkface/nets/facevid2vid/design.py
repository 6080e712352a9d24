"""Sizes of the networks."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Widths:
    """Channels that double from ``expansion`` with every block, up to ``most``."""

    expansion: int
    most: int
    blocks: int

    def features(self, level: int) -> int:
        """Channels after so many blocks, ``expansion`` before the first."""
        return min(self.most, self.expansion * 2**level)


@dataclass(frozen=True)
class Design:
    """All that the shapes of the parameters follow from; by default the public 256-pixel model's."""

    keypoints: int = 15
    depth: int = 16
    volume: int = 32
    appearance: Widths = Widths(64, 512, 2)
    residuals: int = 6
    detector: Widths = Widths(32, 1024, 5)
    detector_scale: float = 0.25
    temperature: float = 0.1
    motion: Widths = Widths(32, 1024, 5)
    compress: int = 4
    mask_kernel: int = 7
    pose_first: int = 64
    pose_widths: tuple[int, ...] = (256, 512, 1024, 2048)
    pose_repeats: tuple[int, ...] = (3, 3, 5, 2)
    bins: int = 66
    centre: float = 99.0
    """Degrees below zero of the first bin: 99 in the open code, 97.5 in LivePortrait's."""
    spade: bool = False
    """The decoder of the larger public model, whose hidden width is ``spade_hidden``, its channels ``spade_widths``."""
    spade_hidden: int = 128
    spade_widths: tuple[int, int] = (256, 64)
    critic: Widths = Widths(32, 512, 4)
    corners: bool = True
    """Sampling agrees with the grids, which run over the corners. False: half a cell off, as the open code samples."""
