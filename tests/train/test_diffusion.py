"""The equations of diffusion: moments, means, targets, guidance, weights, samplers on a known distribution."""

import math

import pytest
import torch
from diffusers import DDIMScheduler

from talkface.errors import ConfigError, WeightsError
from talkface.train.base import configure
from talkface.train.diffusion import (
    Noise,
    Sampler,
    add_noise,
    denoise,
    guide,
    make_scheduler,
    masked_loss,
    require_schedule,
    sample_weights,
    schedule_facts,
    target,
)

PAPER = Noise()


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_papers_schedule() -> None:
    """Linear betas from 1e-4 to 0.02 in 500 steps; alpha-bar is their running product and falls."""
    scheduler = make_scheduler(PAPER)
    betas = torch.linspace(1e-4, 0.02, 500)
    torch.testing.assert_close(scheduler.betas, betas)
    torch.testing.assert_close(scheduler.alphas_cumprod, torch.cumprod(1 - betas, 0))
    assert (scheduler.alphas_cumprod.diff() < 0).all()


@pytest.mark.parametrize("t", [0, 100, 499])
def test_forward_process_moments(t: int) -> None:
    """Eq. 1: mean sqrt(bar) x0, variance 1 - bar; within four standard errors of 200 000 draws."""
    bar = make_scheduler(PAPER).alphas_cumprod
    n = 200_000
    x0 = torch.full((n, 1), 0.7)
    noisy = add_noise(bar, x0, torch.randn(n, 1, generator=draw()), torch.full((n,), t)).double()
    mean, variance = math.sqrt(bar[t]) * 0.7, 1 - float(bar[t])
    assert abs(noisy.mean() - mean) < 4 * math.sqrt(variance / n)
    assert abs(noisy.var() - variance) < 4 * variance * math.sqrt(2 / n)


def test_each_sample_has_its_own_time() -> None:
    bar = make_scheduler(PAPER).alphas_cumprod
    x0, epsilon = torch.randn(3, 4, 5, generator=draw(1)), torch.randn(3, 4, 5, generator=draw(2))
    t = torch.tensor([0, 250, 499])
    together = add_noise(bar, x0, epsilon, t)
    scheduler = make_scheduler(PAPER)
    for i in range(3):
        torch.testing.assert_close(together[i], scheduler.add_noise(x0[i], epsilon[i], t[i]))


@pytest.mark.parametrize("variance", ["fixed_large", "fixed_small"])
@pytest.mark.parametrize("t", [499, 250, 1])
def test_reverse_mean_and_variance(variance: str, t: int) -> None:
    """Eq. 3's mean from epsilon; Eq. 2's variance beta_t, or the posterior's."""
    scheduler = make_scheduler(Noise(variance=variance))
    scheduler.set_timesteps(500)
    n = 50_000
    x, epsilon = torch.full((n, 1), 0.3), torch.full((n, 1), -0.8)
    beta, bar = float(scheduler.betas[t]), float(scheduler.alphas_cumprod[t])
    alpha = 1 - beta
    mean = (0.3 - (1 - alpha) / math.sqrt(1 - bar) * -0.8) / math.sqrt(alpha)
    before = float(scheduler.alphas_cumprod[t - 1])
    spread = beta if variance == "fixed_large" else beta * (1 - before) / (1 - bar)
    found = scheduler.step(epsilon, t, x, generator=draw()).prev_sample.double()
    assert abs(found.mean() - mean) < 4 * math.sqrt(spread / n)
    assert found.var() == pytest.approx(spread, rel=0.03)


@pytest.mark.parametrize(("said", "t"), [(-1.0, 250), (0.0, 499), (0.5, 40), (1.0, 250)])
def test_a_learned_variance_lies_between_the_posteriors_and_beta(said: float, t: int) -> None:
    """log variance = v log beta_t + (1 - v) log posterior, v from 0 to 1 (Nichol and Dhariwal 2021, Eq. 15)."""
    scheduler = make_scheduler(Noise(variance="learned_range"))
    scheduler.set_timesteps(500)
    n, share = 50_000, (said + 1) / 2
    beta, bar, before = (float(v) for v in (scheduler.betas[t], *scheduler.alphas_cumprod[[t, t - 1]]))
    spread = math.exp(share * math.log(beta) + (1 - share) * math.log(beta * (1 - before) / (1 - bar)))
    x, told = torch.full((n, 1), 0.3), torch.tensor([[-0.8, said]]).repeat(n, 1)
    found = scheduler.step(told, t, x, generator=draw()).prev_sample.double()
    assert found.var() == pytest.approx(spread, rel=0.03)
    assert abs(found.mean() - (0.3 + beta / math.sqrt(1 - bar) * 0.8) / math.sqrt(1 - beta)) < 4 * math.sqrt(spread / n)


STABLE_DIFFUSION = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False}
"""Of SD 1.5's scheduler."""


def test_stable_diffusions_schedule_and_its_spacings() -> None:
    """Roots of the betas on a line: 6.8 % of the signal is left at T, 4.0 % of a plain line with these ends."""
    noise = Noise(steps=1000, schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    bar = make_scheduler(noise).alphas_cumprod
    torch.testing.assert_close(bar, torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0))
    assert bar[-1].sqrt() == pytest.approx(0.0683, abs=1e-4)
    plain = make_scheduler(noise.model_copy(update={"schedule": "linear"})).alphas_cumprod
    assert plain[-1].sqrt() == pytest.approx(0.0397, abs=1e-4)
    # Lin 2024, Table 2, for ten steps: where each way begins and ends.
    for spacing, ends in (("trailing", (999, 99)), ("linspace", (999, 0)), ("leading", (900, 0))):
        theirs = DDIMScheduler(beta_schedule="scaled_linear", timestep_spacing=spacing, **STABLE_DIFFUSION)
        ours = make_scheduler(noise.model_copy(update={"spacing": spacing}), "ddim")
        for scheduler in (theirs, ours):
            scheduler.set_timesteps(10)
        assert torch.equal(ours.timesteps, theirs.timesteps) and torch.equal(ours.alphas_cumprod, theirs.alphas_cumprod)
        assert (int(ours.timesteps[0]), int(ours.timesteps[-1])) == ends


def test_zero_terminal_snr_leaves_nothing_at_the_end_and_is_diffusers() -> None:
    noise = Noise(steps=1000, schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, predict="v",
                  zero_terminal_snr=True)  # fmt: skip
    theirs = DDIMScheduler(beta_schedule="scaled_linear", timestep_spacing="trailing", rescale_betas_zero_snr=True,
                           prediction_type="v_prediction", **STABLE_DIFFUSION)  # fmt: skip
    ours = make_scheduler(noise, "ddim")
    for scheduler in (theirs, ours):
        scheduler.set_timesteps(40)
    assert torch.equal(ours.alphas_cumprod, theirs.alphas_cumprod) and ours.alphas_cumprod[-1] == 0
    assert ours.timesteps[:3].tolist() == [999, 974, 949] and ours.timesteps[-1] == 24
    x, v = torch.randn(2, 4, generator=draw()), torch.randn(2, 4, generator=draw(1))
    found = [scheduler.step(v, 999, x).prev_sample for scheduler in (theirs, ours)]
    torch.testing.assert_close(found[0], found[1])


def test_the_last_step_adds_no_noise() -> None:
    scheduler = make_scheduler(PAPER)
    scheduler.set_timesteps(500)
    x, epsilon = torch.randn(4, 2, generator=draw(1)), torch.randn(4, 2, generator=draw(2))
    one, other = (scheduler.step(epsilon, 0, x, generator=draw(s)).prev_sample for s in (3, 4))
    assert torch.equal(one, other)


def test_nothing_is_clipped() -> None:
    scheduler = make_scheduler(PAPER)
    scheduler.set_timesteps(500)
    assert scheduler.step(torch.zeros(1, 1), 0, torch.full((1, 1), 9.0)).prev_sample > 8.9


def test_targets() -> None:
    """v turns back into x0 and epsilon: x0 = a x - s v, epsilon = s x + a v (Salimans and Ho 2022)."""
    noise = Noise(predict="v")
    bar = make_scheduler(noise).alphas_cumprod
    x0, epsilon, t = torch.randn(5, 3, generator=draw(1)), torch.randn(5, 3, generator=draw(2)), torch.arange(5) * 100
    a, s = bar[t].sqrt()[:, None], (1 - bar[t]).sqrt()[:, None]
    x, v = add_noise(bar, x0, epsilon, t), target(noise, bar, x0, epsilon, t)
    torch.testing.assert_close(a * x - s * v, x0, atol=1e-5, rtol=0)
    torch.testing.assert_close(s * x + a * v, epsilon, atol=1e-5, rtol=0)
    assert target(PAPER, bar, x0, epsilon, t) is epsilon
    assert target(Noise(predict="x0"), bar, x0, epsilon, t) is x0


def test_guidance() -> None:
    """Eq. 5: at w = 0 the conditional alone; at w = 1 as far beyond it as it is from the null; at w = -1 the null."""
    one, null = torch.randn(4, generator=draw(1)), torch.randn(4, generator=draw(2))
    torch.testing.assert_close(guide(one, null, 0.0), one)
    torch.testing.assert_close(guide(one, null, 1.0), one + (one - null))
    torch.testing.assert_close(guide(one, null, -1.0), null)


def test_min_snr_weighs_each_sample() -> None:
    """In terms of x0's error every target has the weight min(SNR, 5); the loss is not mean(w) x MSE."""
    for predict in ("epsilon", "v", "x0"):
        noise = Noise(predict=predict, min_snr=5.0)
        bar = make_scheduler(noise).alphas_cumprod
        t = torch.tensor([3, 100, 250, 499])
        snr = bar[t] / (1 - bar[t])
        scale = {"epsilon": snr, "v": snr + 1, "x0": torch.ones(4)}[predict]  # of the target's squared error
        torch.testing.assert_close(sample_weights(noise, bar, t) * scale, snr.clamp(max=5.0))
    weights, error = torch.tensor([1.0, 0.0]), torch.tensor([[2.0], [4.0]])
    zero, mask = torch.zeros(2, 1), torch.ones(2, 1)
    assert masked_loss(error, zero, mask, weights) == pytest.approx((1 * 4 + 0 * 16) / 2)
    assert masked_loss(error, zero, mask, weights) != pytest.approx(0.5 * (4 + 16) / 2)
    assert (sample_weights(PAPER, bar, t) == 1).all()


def test_what_is_masked_has_no_loss_and_no_gradient() -> None:
    predicted = torch.randn(2, 3, 4, generator=draw(), requires_grad=True)
    mask = torch.rand(2, 3, 4, generator=draw(1)) > 0.5
    masked_loss(predicted, torch.zeros(2, 3, 4), mask, torch.ones(2)).backward()
    assert predicted.grad is not None
    assert (predicted.grad[~mask] == 0).all()
    assert (predicted.grad[mask] != 0).all()
    empty = masked_loss(predicted, torch.zeros(2, 3, 4), torch.zeros_like(mask), torch.ones(2))
    assert empty == 0


@pytest.mark.parametrize(
    ("sampler", "steps", "noise"),
    [
        ("ddpm", None, PAPER),
        ("ddim", 50, PAPER),
        ("dpm++", 25, PAPER),
        ("ddim", 50, Noise(schedule="cosine", predict="v")),
        ("ddpm", None, Noise(predict="x0", variance="fixed_small")),
        ("ddim", 50, Noise(schedule="cosine", predict="v", zero_terminal_snr=True)),
        ("ddpm", None, Noise(schedule="scaled_linear", variance="learned_range")),
        ("ddim", 50, Noise(schedule="cosine", variance="learned_range", spacing="leading")),
        ("dpm++", 25, Noise(schedule="cosine", variance="learned_range", spacing="linspace")),
    ],
)
def test_samplers_find_a_known_distribution(sampler: Sampler, steps: int | None, noise: Noise) -> None:
    """Of x0 ~ N(0.5, 0.5^2) the perfect prediction is known in closed form; every sampler must end there."""
    bar = make_scheduler(noise).alphas_cumprod
    mean, std = 0.5, 0.5

    def perfect(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        at = bar[t][:, None]
        variance = at * std**2 + (1 - at)
        epsilon = (1 - at).sqrt() * (x - at.sqrt() * mean) / variance
        x0 = mean + at.sqrt() * std**2 * (x - at.sqrt() * mean) / variance
        said = target(noise, bar, x0, epsilon, t)
        return torch.cat([said, torch.zeros_like(said)], dim=1) if noise.variance == "learned_range" else said

    made = denoise(perfect, noise, torch.randn(4000, 1, generator=draw()), draw(1), sampler=sampler, steps=steps)
    assert made.mean() == pytest.approx(mean, abs=0.06)
    assert made.std() == pytest.approx(std, rel=0.12)


def test_another_schedule_is_refused() -> None:
    """What was trained with one schedule is never sampled with another."""
    require_schedule(PAPER, schedule_facts(PAPER))
    with pytest.raises(WeightsError, match="schedule"):
        require_schedule(Noise(schedule="cosine"), schedule_facts(PAPER))
    with pytest.raises(WeightsError, match="schedule"):
        require_schedule(Noise(beta_end=0.021), schedule_facts(PAPER))


@pytest.mark.parametrize(
    ("sampler", "steps", "noise", "found"),
    [
        ("ddpm", None, PAPER, 2.0),
        ("ddim", 50, PAPER, 1.92),
        ("dpm++", 25, PAPER, 1.92),
        ("ddim", 50, Noise(schedule="cosine", predict="v"), 2.0),
    ],
)
def test_the_papers_schedule_leaves_signal_at_its_end(
    sampler: Sampler, steps: int | None, noise: Noise, found: float
) -> None:
    """8 % of x0 is left at T: deterministic samplers, which start from pure noise, draw a mean of 2 as 1.92."""
    bar = make_scheduler(noise).alphas_cumprod
    assert bar[-1].sqrt() == pytest.approx(0.080 if noise == PAPER else 0.0, abs=0.001)

    def perfect(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        at = bar[t][:, None]
        x0 = 2 + at.sqrt() * 0.25 * (x - at.sqrt() * 2) / (at * 0.25 + 1 - at)
        epsilon = (x - at.sqrt() * x0) / (1 - at).sqrt()
        return target(noise, bar, x0, epsilon, t)

    made = denoise(perfect, noise, torch.randn(4000, 1, generator=draw()), draw(1), sampler=sampler, steps=steps)
    assert made.mean() == pytest.approx(found, abs=0.04)


def test_nothing_of_x0_at_the_end_cannot_be_told_from_the_noise() -> None:
    with pytest.raises(ConfigError, match=r"zero_terminal_snr .* set predict=v or x0"):
        configure("emodiff", "paper", None, ["noise.zero_terminal_snr=true"])
    configure("emodiff", "paper", None, ["noise.zero_terminal_snr=true", "noise.predict=v"])
