"""The variational bound with a learned variance (Nichol and Dhariwal 2021), as guided-diffusion computes it."""

import math
from dataclasses import dataclass
from typing import Final, Self

import torch
from jaxtyping import Float, Int64

LAST: Final = 0.999
"""Pixels beyond it take what is left of the distribution's tail: 255 and 0 are open to one side."""
HALF_STEP: Final = 1.0 / 255.0
SMALLEST: Final = 1e-12


@dataclass(frozen=True)
class Posterior:
    """q(x_t-1 | x_t, x_0) of a schedule, and both ends of the learned variance; float64, a number a step."""

    bar: Float[torch.Tensor, " T"]
    beta: Float[torch.Tensor, " T"]
    x0_weight: Float[torch.Tensor, " T"]
    xt_weight: Float[torch.Tensor, " T"]
    log_least: Float[torch.Tensor, " T"]

    @classmethod
    def of(cls, beta: Float[torch.Tensor, " T"]) -> Self:
        """From the betas. The least variance at step 0 is 0: its logarithm is that of step 1."""
        beta = beta.double()
        bar = torch.cumprod(1 - beta, 0)
        before = torch.cat([bar.new_ones(1), bar[:-1]])
        least = beta * (1 - before) / (1 - bar)
        return cls(
            bar,
            beta,
            beta * before.sqrt() / (1 - bar),
            (1 - before) * (1 - beta).sqrt() / (1 - bar),
            torch.cat([least[1:2], least[1:]]).log(),
        )

    def mean(self, x0: torch.Tensor, xt: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return at(self.x0_weight, t, x0) * x0 + at(self.xt_weight, t, x0) * xt

    def x0(self, xt: torch.Tensor, epsilon: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Eq. 2 the other way round."""
        return at(1 / self.bar.sqrt(), t, xt) * xt - at((1 / self.bar - 1).sqrt(), t, xt) * epsilon

    def log_variance(self, out: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Eq. 5: ``v log(beta) + (1 - v) log(beta~)`` with ``v = (out + 1) / 2``; the paper prints beta twice."""
        v = (out + 1) / 2
        return v * at(self.beta.log(), t, out) + (1 - v) * at(self.log_least, t, out)


def at(values: torch.Tensor, t: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A step's number for each sample, in float32, to multiply pictures with."""
    return values.to(like.device)[t].float().reshape(-1, *[1] * (like.ndim - 1))


def learned_step(
    posterior: Posterior, predicted: Float[torch.Tensor, "b twice h w"], xt: Float[torch.Tensor, "b c h w"],
    t: Int64[torch.Tensor, " b"], *, clip: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Mean and logarithm of the variance of p(x_t-1 | x_t), Eq. 3 to 5; ``clip`` holds x_0 in -1..1."""
    epsilon, out = predicted.chunk(2, dim=1)
    x0 = posterior.x0(xt, epsilon, t)
    return posterior.mean(x0.clamp(-1, 1) if clip else x0, xt, t), posterior.log_variance(out, t)


def bound(
    posterior: Posterior, predicted: Float[torch.Tensor, "b twice h w"], x0: Float[torch.Tensor, "b c h w"],
    xt: Float[torch.Tensor, "b c h w"], t: Int64[torch.Tensor, " b"],
) -> Float[torch.Tensor, " b"]:  # fmt: skip
    """A sample's term of Eq. 7 in bits a dimension: Eq. 9, or Eq. 8 at t = 0. The mean takes no gradient of it."""
    epsilon, out = predicted.chunk(2, dim=1)
    mean, log_variance = learned_step(posterior, torch.cat([epsilon.detach(), out], dim=1), xt, t)
    true_mean, true_log = posterior.mean(x0, xt, t), at(posterior.log_least, t, x0)
    divergence = gaussian_kl(true_mean, true_log, mean, log_variance)
    likelihood = discrete_log_likelihood(x0, mean, 0.5 * log_variance)
    first = (t == 0).reshape(-1, *[1] * (x0.ndim - 1))
    return torch.where(first, -likelihood, divergence).flatten(1).mean(1) / math.log(2)


def gaussian_kl(
    mean: torch.Tensor, log_variance: torch.Tensor, other: torch.Tensor, other_log: torch.Tensor
) -> torch.Tensor:
    """KL divergence of the first Gaussian from the second, in nats."""
    ratio = torch.exp(log_variance - other_log) + (mean - other).square() * torch.exp(-other_log)
    return 0.5 * (ratio - 1 + other_log - log_variance)


def discrete_log_likelihood(x: torch.Tensor, mean: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """Log of the probability of 8-bit pixels (scaled to -1..1) under a Gaussian, in nats."""
    inverse = torch.exp(-log_scale)
    above, below = cdf(inverse * (x - mean + HALF_STEP)), cdf(inverse * (x - mean - HALF_STEP))
    inside = torch.where(x > LAST, 1 - below, above - below)
    return torch.where(x < -LAST, above, inside).clamp(min=SMALLEST).log()


def cdf(x: torch.Tensor) -> torch.Tensor:
    """The standard normal's, by the approximation with tanh that guided-diffusion takes."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
