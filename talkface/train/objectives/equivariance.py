"""Known warps of pictures, to ask that keypoints go along with what they are on (FOMM; Face-vid2vid, appendix)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


class Warp:
    """An affine map and a thin-plate spline of 5 x 5 control points, drawn near the identity, one a picture.

    Coordinates are x, y from -1 to 1 over the corners. ``warp.of(points)`` says where the warped picture takes each
    point from: what is at p in it was at ``of(p)`` in the picture.
    """

    def __init__(
        self, batch: int, rng: torch.Generator, *, affine: float = 0.05, spline: float = 0.005, controls: int = 5
    ) -> None:
        device = rng.device
        noise = torch.randn(batch, 2, 3, generator=rng, device=device)
        self.affine = torch.eye(2, 3, device=device) + affine * noise
        row = torch.linspace(-1, 1, controls, device=device)
        self.controls = torch.stack(torch.meshgrid(row, row, indexing="xy"), -1).reshape(-1, 2)
        self.spline = spline * torch.randn(batch, 1, controls**2, generator=rng, device=device)

    def of(self, points: Float[Tensor, "batch points 2"]) -> Float[Tensor, "batch points 2"]:
        """Where points of the warped picture come from."""
        moved = points @ self.affine[:, :, :2].transpose(1, 2) + self.affine[:, None, :, 2]
        away = (points[:, :, None] - self.controls).square().sum(-1)
        bend = (0.5 * away * torch.log(away + 1e-6) * self.spline).sum(-1, keepdim=True)
        return moved + bend

    def picture(self, picture: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
        """The warped picture; what comes from outside is mirrored at the edge."""
        height, width = picture.shape[2:]
        y, x = (torch.linspace(-1, 1, n, device=picture.device) for n in (height, width))
        cells = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(1, -1, 2)
        field = self.of(cells.expand(len(picture), -1, -1)).unflatten(1, (height, width))
        return F.grid_sample(picture, field, padding_mode="reflection", align_corners=True)
