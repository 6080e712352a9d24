"""Denoising diffusion (Ho 2020) over anything: schedule, targets, guidance, sampling. Schedulers are diffusers'."""

import hashlib
from collections.abc import Callable
from typing import Any, Literal, Self

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from jaxtyping import Float, Int64
from pydantic import Field, model_validator

from talkface.config import Strict
from talkface.errors import WeightsError
from talkface.train.base import Facts

Sampler = Literal["ddpm", "ddim", "dpm++"]


class Noise(Strict):
    """The noise schedule and what the network predicts."""

    steps: int = Field(500, ge=2, description="T")
    schedule: Literal["linear", "scaled_linear", "cosine"] = Field(
        "linear", description="of the betas; scaled_linear: of their square roots, as Stable Diffusion has it"
    )
    beta_start: float = Field(1e-4, gt=0, lt=1, description="of the linear schedules")
    beta_end: float = Field(0.02, gt=0, lt=1, description="of the linear schedules")
    predict: Literal["epsilon", "v", "x0"] = "epsilon"
    variance: Literal["fixed_large", "fixed_small", "learned_range"] = Field(
        "fixed_large",
        description="of DDPM's reverse process: beta_t (Eq. 2), the posterior's, or learned between the two",
    )
    spacing: Literal["trailing", "linspace", "leading"] = Field(
        "trailing", description="of the steps of sampling over T (Lin 2024, Table 2); only trailing always begins at T"
    )
    zero_terminal_snr: bool = Field(False, description="rescale so that nothing of x0 is left at T (needs v or x0)")
    min_snr: float | None = Field(None, gt=0, description="weigh each sample by min(SNR, this); None: all alike")

    @model_validator(mode="after")
    def _something_to_predict(self) -> Self:
        if self.zero_terminal_snr and self.predict == "epsilon":
            raise ValueError("zero_terminal_snr leaves nothing of x0 at T for epsilon to tell: set predict=v or x0")
        return self


def make_scheduler(noise: Noise, sampler: Sampler = "ddpm", *, clip: bool = False) -> Any:
    """diffusers' scheduler. Every sampler shares the one schedule; ``clip`` holds x0 in -1..1 (not with dpm++)."""
    common = {
        "num_train_timesteps": noise.steps,
        "beta_schedule": {"cosine": "squaredcos_cap_v2"}.get(noise.schedule, noise.schedule),
        "beta_start": noise.beta_start,
        "beta_end": noise.beta_end,
        "prediction_type": {"epsilon": "epsilon", "v": "v_prediction", "x0": "sample"}[noise.predict],
        "timestep_spacing": noise.spacing,
        "rescale_betas_zero_snr": noise.zero_terminal_snr,
    }
    if sampler == "ddpm":
        return DDPMScheduler(**common, clip_sample=clip, variance_type=noise.variance)
    if sampler == "ddim":
        return DDIMScheduler(**common, clip_sample=clip, set_alpha_to_one=True)
    return DPMSolverMultistepScheduler(**common, algorithm_type="dpmsolver++", solver_order=2)


def schedule_facts(noise: Noise) -> Facts:
    """What a checkpoint records of the schedule: T, and a hash of every alpha-bar (rounded to 1e-6)."""
    bar = make_scheduler(noise).alphas_cumprod
    text = ",".join(f"{a:.6f}" for a in bar.tolist())
    return {"steps": noise.steps, "alphas_cumprod": hashlib.sha256(text.encode()).hexdigest()[:16]}


def require_schedule(noise: Noise, facts: Facts) -> None:
    """Raise WeightsError if this schedule is not the one that a checkpoint was trained with."""
    now = schedule_facts(noise)
    if now != facts:
        raise WeightsError(f"the noise schedule is not the one of the checkpoint: {facts}, now {now}. Train again.")


def add_noise(
    bar: Float[torch.Tensor, " T"],
    x0: Float[torch.Tensor, "batch ..."],
    epsilon: Float[torch.Tensor, "batch ..."],
    t: Int64[torch.Tensor, " batch"],
) -> Float[torch.Tensor, "batch ..."]:
    """A draw of q(x_t | x_0), Eq. 1: ``sqrt(bar_t) x0 + sqrt(1 - bar_t) epsilon``."""
    at = bar[t].reshape(-1, *[1] * (x0.ndim - 1))
    return at.sqrt() * x0 + (1 - at).sqrt() * epsilon


def target(
    noise: Noise,
    bar: Float[torch.Tensor, " T"],
    x0: torch.Tensor,
    epsilon: torch.Tensor,
    t: Int64[torch.Tensor, " batch"],
) -> torch.Tensor:
    """What the network is to predict; ``v = sqrt(bar) epsilon - sqrt(1 - bar) x0`` (Salimans and Ho 2022)."""
    if noise.predict == "epsilon":
        return epsilon
    if noise.predict == "x0":
        return x0
    at = bar[t].reshape(-1, *[1] * (x0.ndim - 1))
    return at.sqrt() * epsilon - (1 - at).sqrt() * x0


def sample_weights(noise: Noise, bar: Float[torch.Tensor, " T"], t: Int64[torch.Tensor, " batch"]) -> torch.Tensor:
    """A weight a sample, min-SNR (Hang 2023): in terms of x0 it is ``min(SNR, gamma)``, whatever is predicted."""
    if noise.min_snr is None:
        return torch.ones_like(bar[t])
    snr = bar[t] / (1 - bar[t])
    wanted = snr.clamp(max=noise.min_snr)
    return wanted / {"epsilon": snr, "v": snr + 1, "x0": torch.ones_like(snr)}[noise.predict]


def masked_loss(
    predicted: Float[torch.Tensor, "batch ..."],
    wanted: Float[torch.Tensor, "batch ..."],
    mask: torch.Tensor,
    weights: Float[torch.Tensor, " batch"],
) -> torch.Tensor:
    """Mean squared error over the elements where ``mask`` is true, each sample by its own weight (never by the mean of
    the weights)."""
    error = (predicted.float() - wanted).square() * mask
    weight = weights.reshape(-1, *[1] * (error.ndim - 1))
    return (error * weight).sum() / mask.sum().clamp(min=1)


def guide(conditional: torch.Tensor, null: torch.Tensor, w: float | torch.Tensor) -> torch.Tensor:
    """Classifier-free guidance, Eq. 5: ``(w + 1) eps(c) - w eps(null)``; w may differ from frame to frame."""
    return (w + 1) * conditional - w * null


@torch.no_grad()
def denoise(
    predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    noise: Noise,
    start: Float[torch.Tensor, "batch ..."],
    rng: torch.Generator,
    *,
    sampler: Sampler = "ddpm",
    steps: int | None = None,
    clip: bool = False,
) -> Float[torch.Tensor, "batch ..."]:
    """From noise ``start`` to x0 in ``steps`` steps (all T unless told); ``predict(x_t, t)`` with t (batch,).

    With a learned variance ``predict`` gives twice the channels (axis 1); only ``ddpm`` makes use of the second half.
    """
    scheduler = make_scheduler(noise, sampler, clip=clip)
    scheduler.set_timesteps(noise.steps if steps is None else min(steps, noise.steps), device=start.device)
    x = start
    random = {} if sampler == "dpm++" else {"generator": rng}
    for t in scheduler.timesteps:
        predicted = predict(x, t.expand(len(x)).to(x.device)).float()
        if noise.variance == "learned_range" and sampler != "ddpm":
            predicted, _ = predicted.chunk(2, dim=1)
        x = scheduler.step(predicted, t, x, **random).prev_sample
    return x
