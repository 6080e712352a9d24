"""The layers of Stable Diffusion's UNet under their public names, so that its weights load as they are."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import nn


class Attention(nn.Module):
    """Scaled dot-product attention; ``context`` is the width of keys and values where they come from elsewhere."""

    def __init__(self, width: int, heads: int, context: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context or width, width, bias=False)
        self.to_v = nn.Linear(context or width, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(
        self,
        x: Float[torch.Tensor, "rows tokens width"],
        context: Float[torch.Tensor, "rows others context"] | None = None,
        mask: Bool[torch.Tensor, "rows 1 1 others"] | None = None,
    ) -> Float[torch.Tensor, "rows tokens width"]:
        """Looks at itself where there is no ``context``; ``mask`` is true where it may look."""
        kv = x if context is None else context
        q, k, v = (self._split(of) for of in (self.to_q(x), self.to_k(kv), self.to_v(kv)))
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.to_out[0](seen.transpose(1, 2).flatten(2))

    def _split(self, x: torch.Tensor) -> Float[torch.Tensor, "rows heads tokens part"]:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class GatedGelu(nn.Module):
    """``a gelu(b)`` with a and b the halves of one projection."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x: Float[torch.Tensor, "*any width"]) -> Float[torch.Tensor, "*any inner"]:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """Four times as wide inside; position 1 of ``net`` is the dropout that the public names count and nobody uses."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GatedGelu(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x: Float[torch.Tensor, "*any width"]) -> Float[torch.Tensor, "*any width"]:
        return self.net(x)


class Resnet(nn.Module):
    """Two convolutions with the time between them."""

    def __init__(self, into: int, out: int, time: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, into, eps=1e-5), nn.Conv2d(into, out, 3, padding=1)
        self.time_emb_proj = nn.Linear(time, out)
        self.norm2, self.conv2 = nn.GroupNorm(groups, out, eps=1e-5), nn.Conv2d(out, out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(into, out, 1) if into != out else None

    def forward(
        self, x: Float[torch.Tensor, "rows into h w"], time: Float[torch.Tensor, "rows time"]
    ) -> Float[torch.Tensor, "rows out h w"]:
        h = self.conv1(F.silu(self.norm1(x))) + self.time_emb_proj(F.silu(time))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Downsample(nn.Module):
    """Half the side."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Float[torch.Tensor, "rows c h w"]) -> Float[torch.Tensor, "rows c h2 w2"]:
        return self.conv(x)


class Upsample(nn.Module):
    """Twice the side."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Float[torch.Tensor, "rows c h w"]) -> Float[torch.Tensor, "rows c h2 w2"]:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class TimeEmbedding(nn.Module):
    """Of the step t: cosines, then sines, through two layers."""

    def __init__(self, base: int, width: int) -> None:
        super().__init__()
        self.base = base
        self.linear_1, self.linear_2 = nn.Linear(base, width), nn.Linear(width, width)

    def forward(self, t: Int64[torch.Tensor, " rows"]) -> Float[torch.Tensor, "rows width"]:
        half = self.base // 2
        rates = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
        angles = t[:, None].float() * rates
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1).to(self.linear_1.weight.dtype)
        return self.linear_2(F.silu(self.linear_1(waves)))


def zeroed(layer: nn.Module) -> None:
    """Make a layer's output 0: what it is added to is then unchanged until it has learned something."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
