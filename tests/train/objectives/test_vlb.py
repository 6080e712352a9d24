"""The bound against guided-diffusion's values, and by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm

from talkface.train.diffusion import Noise, make_scheduler
from talkface.train.objectives.vlb import Posterior, bound, learned_step


def near(got: torch.Tensor, want: np.ndarray) -> None:
    assert np.abs(got.detach().numpy() - want).max() <= 1e-5 * max(1, np.abs(want).max())


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_bound_is_guided_diffusions(golden: Path, schedule: str) -> None:
    """Betas, mean, learned variance and the bound; t = 0 and pixels of exactly -1 and 1 among them."""
    z = np.load(golden / "guided_diffusion.npz")
    x0, noise, t, out = (torch.from_numpy(z[f"in/{k}"]) for k in ("x_start", "noise", "t", "model_output"))
    posterior = Posterior.of(torch.from_numpy(z[f"out/{schedule}/betas"]))
    xt = torch.from_numpy(z[f"out/{schedule}/x_t"])
    near(posterior.mean(x0, xt, t), z[f"out/{schedule}/posterior_mean"])
    near(bound(posterior, out, x0, xt, t), z[f"out/{schedule}/loss_mse/vb"])
    near((out[:, :3] - noise).square().flatten(1).mean(1), z[f"out/{schedule}/loss_mse/mse"])
    for clip in (0, 1):
        mean, log_variance = learned_step(posterior, out, xt, t, clip=bool(clip))
        near(mean, z[f"out/{schedule}/p_mean_variance/clip_{clip}/mean"])
        near(log_variance, z[f"out/{schedule}/p_mean_variance/clip_{clip}/log_variance"])


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_our_schedule_is_guided_diffusions(golden: Path, schedule: str) -> None:
    """Betas of 1000 steps, the 100 of them, and one step of each with clipped x0."""
    z = np.load(golden / "guided_spaced.npz")
    noise = Noise(steps=1000, schedule=schedule, variance="learned_range", spacing="linspace")
    scheduler = make_scheduler(noise)
    near(scheduler.betas, np.load(golden / "guided_diffusion.npz")[f"out/{schedule}/betas"])
    scheduler.set_timesteps(100)
    assert scheduler.timesteps.tolist() == sorted(z["out/timesteps/100"].tolist(), reverse=True)


def test_learned_variance_is_diffusers() -> None:
    """`learned_step` at all 1000 steps gives the variance of diffusers' learned_range."""
    scheduler = make_scheduler(Noise(steps=1000, schedule="cosine", variance="learned_range"))
    posterior = Posterior.of(scheduler.betas)
    out = torch.randn(1, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    scheduler.set_timesteps(1000)
    for t in (999, 500, 10, 2):
        _, ours = learned_step(posterior, out, torch.zeros(1, 3, 4, 4), torch.tensor([t]))
        theirs = scheduler._get_variance(t, predicted_variance=out[:, 3:])
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_bound_by_hand() -> None:
    """Against scipy's normal distribution: bits a pixel at t = 0, KL in bits elsewhere."""
    posterior = Posterior.of(make_scheduler(Noise(steps=100)).betas)
    x0 = torch.linspace(-1, 1, 48).reshape(1, 3, 4, 4)
    xt, out = x0 + 0.01, torch.full((1, 6, 4, 4), 0.3)
    for t in (0, 40):
        at = torch.tensor([t])
        mean, log = learned_step(posterior, out, xt, at)
        m, s, x = mean.double().numpy(), np.exp(0.5 * log.double().numpy()), x0.double().numpy()
        if t == 0:
            above = np.where(x > 0.999, 1, norm.cdf((x + 1 / 255 - m) / s))
            below = np.where(x < -0.999, 0, norm.cdf((x - 1 / 255 - m) / s))
            want = -np.log2(np.maximum(above - below, 1e-12)).mean()
        else:
            true, least = posterior.mean(x0, xt, at).double().numpy(), math.exp(posterior.log_least[t])
            want = (0.5 * (least / s**2 + (true - m) ** 2 / s**2 - 1 + np.log(s**2 / least))).mean() / math.log(2)
        assert bound(posterior, out, x0, xt, at).item() == pytest.approx(want, rel=2e-2)


def test_the_mean_takes_no_gradient_of_the_bound() -> None:
    posterior = Posterior.of(make_scheduler(Noise(steps=100)).betas)
    out = torch.randn(2, 6, 4, 4, requires_grad=True)
    x0 = torch.rand(2, 3, 4, 4)
    bound(posterior, out, x0, x0 + 0.1, torch.tensor([0, 50])).sum().backward()
    assert out.grad is not None and not out.grad[:, :3].any() and out.grad[:, 3:].abs().sum() > 0
