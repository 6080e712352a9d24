"""EmoDiff: blendshapes and head pose from sound and an emotional style, by diffusion.

DREAM-Talk 3.2 and MagicTalk 3.2 (Eq. 1-5, Fig. 3, Alg. 1). Where the papers leave something open, docs/emodiff.md
says what was chosen.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Final, Literal, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from pydantic import Field, model_validator

from talkface.config import Strict
from talkface.datasets.loading.loader import Batch
from talkface.datasets.loading.windows import Windows
from talkface.datasets.reader import Dataset
from talkface.motion import Motion, steady_pts
from talkface.nets.emodiff import Denoiser, condition_rows, held_share
from talkface.render.overlay import curves
from talkface.train.base import Facts, Step, TaskConfig, Training
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
from talkface.train.inputs.audio_features import SoundFacts
from talkface.train.inputs.motion_vector import ROTATION, TRANSLATION, UNMOVED, MotionVector
from talkface.train.meters import Means
from talkface.train.protocols import Speech, Style
from talkface.vocab import ARKIT

DRAWN: Final = ("jawOpen", "mouthSmileLeft", "browInnerUp", "eyeBlinkLeft", "yaw", "pitch")
STYLE_FRAMES: Final = 3


class EmoDiffConfig(TaskConfig):
    """What changes an EmoDiff model."""

    frames: int = Field(32, ge=4, description="N, frames of a window")
    rate: float = Field(25.0, gt=0, description="frames a second")
    stride: int = Field(8, ge=1, description="frames from one training window to the next")
    sound: Literal["w2v", "ctc", "speech", "mel"] = Field("w2v", description="column of the sound's features")
    channels: Literal["all", "paper50"] = Field(
        "all", description="all: 52 shapes and rotation; paper50: 46 shapes and rotation, 50 with the flag"
    )
    translation: bool = Field(False, description="the head's translation (cm) is part of the state")
    style: Literal["clip", "source", "speaker"] = Field(
        "clip", description="style frames are of the same clip, the same source, or the same speaker and emotion"
    )
    drop: float = Field(0.1, ge=0, lt=1, description="share of windows that learn without condition and sound")
    conditioning: Literal["concat", "cross"] = "concat"
    width: int = Field(512, ge=8)
    layers: int = Field(8, ge=1)
    heads: int = Field(8, ge=1)
    sound_width: int = Field(64, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    fade: float = Field(
        0.0, ge=0, description="frames in which x0 leaves the initial frame for the style's mean and a change; 0: never"
    )
    velocity: float = Field(0.0, ge=0, description="weight of the squared error of the steps from frame to frame")
    noise: Noise = Noise()

    @model_validator(mode="after")
    def _of_x0(self) -> Self:
        if (self.fade or self.velocity) and self.noise.predict != "x0":
            raise ValueError(
                f"fade and velocity are of x0, but {self.noise.predict} is predicted: set noise.predict=x0"
            )
        if self.noise.variance == "learned_range":
            raise ValueError("the network says no variance: set noise.variance to fixed_large or fixed_small")
        return self

    @property
    def windows(self) -> Windows:
        return Windows(length=self.frames, fps=self.rate, columns=("arkit", "head", self.sound), stride=self.stride)

    @property
    def companion(self) -> tuple[str, ...]:
        # Nothing but a clip shares its own key: its companion is always a window of itself.
        return {"clip": ("key",), "source": ("source",), "speaker": ("speaker", "emotion")}[self.style]

    @property
    def companion_columns(self) -> tuple[str, ...]:
        return ("arkit", "head")

    def names(self) -> tuple[str, ...]:
        """The state's channels."""
        shapes = [n for n in ARKIT if self.channels == "all" or n not in UNMOVED]
        return (*shapes, *ROTATION, *(TRANSLATION if self.translation else ()))


class EmoDiffSampling(Strict):
    """How motion is drawn from a model; `--set` of `toolkit sample` changes it."""

    sampler: Sampler = "ddim"
    steps: int | None = Field(50, ge=1, description="denoising steps; None: all that it was trained with")
    guidance: float = Field(0.15, ge=-1, description="w of Eq. 5")
    feedback: bool = Field(True, description="each window starts from the last frame of the one before (Alg. 1)")


PAPER = Training(
    steps=250_000, batch_size=64, optimizer="adam", learning_rate=4e-4, evaluate_every=2000, save_every=2000
)
MODERN = Training(
    steps=100_000, batch_size=256, learning_rate=4e-4, weight_decay=0.01, warmup=1000, schedule="cosine", ema=0.999,
    evaluate_every=2000, save_every=2000,
)  # fmt: skip
TINY = Training(
    steps=300, batch_size=32, learning_rate=1e-3, warmup=20, ema=0.99, evaluate_every=100, evaluate_batches=4,
    save_every=100,
)  # fmt: skip

QUICK = Noise(schedule="cosine", predict="x0")
"""Follows the style and moves smoothly after far fewer steps than the paper's noise needs (docs/emodiff.md)."""


class Task:
    """The task ``emodiff``."""

    version: ClassVar = 1
    Config = EmoDiffConfig
    Sampling = EmoDiffSampling
    presets: ClassVar[Mapping[str, TaskConfig]] = {
        "tiny": EmoDiffConfig(
            training=TINY,
            sound="mel",
            noise=QUICK,
            width=128,
            layers=3,
            heads=4,
            sound_width=32,
            stride=4,
            fade=4,
            velocity=0.3,
        ),
        "paper": EmoDiffConfig(training=PAPER),
        "paper50": EmoDiffConfig(training=PAPER, channels="paper50"),
        "modern": EmoDiffConfig(training=MODERN, noise=QUICK, dropout=0.1, stride=4, fade=4, velocity=0.3),
    }

    @classmethod
    def learn(cls, config: EmoDiffConfig, dataset: Dataset) -> Facts:
        """Normalisation of state and sound, and the noise schedule."""
        return {
            "state": MotionVector.learn(dataset, config.names()).facts(),
            "sound": SoundFacts.learn(dataset, config.sound).facts(),
            "noise": schedule_facts(config.noise),
            "fps": config.rate,
        }

    def __init__(self, config: EmoDiffConfig, facts: Facts) -> None:
        """Raises WeightsError if the schedule is not the one of the facts."""
        require_schedule(config.noise, facts["noise"])
        self.config, self.facts = config, facts
        self.state, self.sound = MotionVector.of(facts["state"]), SoundFacts.of(facts["sound"])
        self.bar: torch.Tensor = make_scheduler(config.noise).alphas_cumprod

    def build(self) -> torch.nn.Module:
        c = self.config
        return Denoiser(
            state=len(self.state), frames=c.frames, sound=self.sound.width, width=c.width, layers=c.layers,
            heads=c.heads, sound_width=c.sound_width, dropout=c.dropout, conditioning=c.conditioning, fade=c.fade,
        )  # fmt: skip

    def step(self, model: torch.nn.Module, batch: Batch, rng: torch.Generator, phase: str) -> Step:
        """Eq. 4: mean squared error of the noise (or of what `Noise.predict` says) over what is there."""
        x0, mask, given = self.prepare(batch, rng)
        t = torch.randint(0, self.config.noise.steps, (len(x0),), generator=rng, device=x0.device)
        drop = torch.rand(len(x0), generator=rng, device=x0.device) < self.config.drop
        error, _ = self.error(model, x0, mask, given, t, drop, rng)
        return Step(error)

    def error(
        self, model: torch.nn.Module, x0: torch.Tensor, mask: torch.Tensor, given: tuple[torch.Tensor, torch.Tensor],
        t: torch.Tensor, drop: torch.Tensor, rng: torch.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        """The loss, and what the network said."""
        noise, bar = self.config.noise, self.bar.to(x0.device)
        epsilon = torch.randn(x0.shape, generator=rng, device=x0.device)
        predicted, weights = model(add_noise(bar, x0, epsilon, t), t, *given, drop), sample_weights(noise, bar, t)
        error = masked_loss(predicted, target(noise, bar, x0, epsilon, t), mask, weights)
        if self.config.velocity:
            step = masked_loss(predicted.diff(dim=1), x0.diff(dim=1), mask[:, 1:] & mask[:, :-1], weights)
            error = error + self.config.velocity * step
        return error, predicted

    def prepare(
        self, batch: Batch, rng: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """x0 (0 where nothing is known), the mask of what is known, and condition and sound."""
        values = self.state.of_batch(batch)
        mask = torch.isfinite(values) & torch.as_tensor(self.state.valid, device=values.device)
        initial = values[:, 0]
        style = draw_frames(self.state.of_batch(batch["companion"]), STYLE_FRAMES, rng)
        condition = condition_matrix(initial, style, self.config.frames)
        sound = self.sound.of_window(batch[self.config.sound].float(), batch["times_ns"])
        return torch.where(mask, values, 0), mask, (condition, sound)

    def evaluate(self, model: torch.nn.Module, batches: Iterable[Batch], rng: torch.Generator) -> dict[str, float]:
        """The loss at times evenly spread over T, and without condition and sound (``null``)."""
        means = Means()
        for batch in batches:
            x0, mask, given = self.prepare(batch, rng)
            spread = torch.linspace(0, self.config.noise.steps - 1, len(x0), device=x0.device).long()
            for name, dropped in (("loss", False), ("null", True)):
                drop = torch.full((len(x0),), dropped, device=x0.device)
                error, _ = self.error(model, x0, mask, given, spread, drop, rng)
                means.add(name, error, mask.sum())
        return means.found()

    def picture(self, model: torch.nn.Module, batch: Batch, rng: torch.Generator) -> UInt8[np.ndarray, "h w 3"]:
        """Real windows (left) and generated ones for the same sound and style (right)."""
        x0, mask, (condition, sound) = self.prepare(batch, rng)
        made = self.draw_windows(model, condition[:4], sound[:4], rng, EmoDiffSampling(steps=25))
        real = torch.where(mask, x0, torch.nan)[:4]
        rows = []
        for one, other in zip(real.cpu().numpy(), made.cpu().numpy(), strict=True):
            shown = [i for i, name in enumerate(self.state.names) if name in DRAWN]
            pair = [
                curves({self.state.names[i]: values[:, i] * self.state.std[i] + self.state.mean[i] for i in shown})
                for values in (one, other)
            ]
            rows.append(np.concatenate(pair, axis=1))
        return np.concatenate(rows)

    def draw_windows(
        self,
        model: torch.nn.Module,
        condition: Float[torch.Tensor, "batch frames flagged"],
        sound: Float[torch.Tensor, "batch frames width"],
        rng: torch.Generator,
        how: EmoDiffSampling,
    ) -> Float[torch.Tensor, "batch frames state"]:
        """Draw a window for each condition, guided by Eq. 5."""
        n = len(condition)
        start = torch.randn(n, self.config.frames, len(self.state), generator=rng, device=condition.device)
        keep = torch.zeros(n, dtype=torch.bool, device=condition.device)
        # The initial frame is given: guided too, each window would carry it farther from what the null says.
        free = 1 - held_share(self.config.frames, self.config.fade).to(condition.device)

        def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            if how.guidance == 0:
                return model(x, t, condition, sound, keep)
            drop = torch.cat([keep, ~keep])
            conditional, null = model(*(torch.cat([v, v]) for v in (x, t, condition, sound)), drop).chunk(2)
            return guide(conditional, null, how.guidance * free)

        return denoise(predict, self.config.noise, start, rng, sampler=how.sampler, steps=how.steps)

    @torch.no_grad()
    def long(
        self,
        model: torch.nn.Module,
        sound: Sequence[Float[torch.Tensor, "1 n width"]],
        style: Float[torch.Tensor, "some state"],
        frames: int,
        rng: torch.Generator,
        how: EmoDiffSampling,
        *,
        variants: int = 1,
    ) -> Float[torch.Tensor, "variants frames state"]:
        """Alg. 1 for any length: ``sound[k]`` is that of the k-th of `window_starts`, ``style`` the style's frames.

        The first window starts from a random style frame, each next one from the last frame of the one before, which
        it repeats; each has three style frames of its own.
        """
        n, parts = self.config.frames, []
        pool = style.expand(variants, -1, -1)
        initial = draw_frames(pool, 1, rng)[:, 0]
        for k, _ in enumerate(window_starts(frames, n)):
            condition = condition_matrix(initial, draw_frames(pool, STYLE_FRAMES, rng), n)
            made = self.draw_windows(model, condition, sound[k].expand(variants, -1, -1), rng, how)
            parts.append(made if k == 0 else made[:, 1:])
            initial = made[:, -1] if how.feedback else draw_frames(pool, 1, rng)[:, 0]
        return torch.cat(parts, dim=1)[:, :frames]

    def sample(
        self, net: torch.nn.Module, speech: Speech, style: Style, rng: torch.Generator, how: EmoDiffSampling, *,
        variants: int = 1,
    ) -> list[Motion]:  # fmt: skip
        """Motion for a sound of any length, in the style of some frames; variants are drawn together."""
        frames, windows = speech.frames(self.config.rate), self.config.windows
        rows = speech.columns[self.config.sound]
        starts = window_starts(frames, self.config.frames)
        sound = [self.sound.of_sound(rows, first, windows, rng.device) for first in starts]
        pool = self.state.of_arrays(style.arkit, style.head).to(rng.device)
        made = self.long(net, sound, pool, frames, rng, how, variants=variants)
        pts = steady_pts(frames, self.config.rate)
        seams = {"window": self.config.frames, "stride": self.config.frames - 1}
        return [self.state.motion(one, pts, self.config.rate, **seams) for one in made]


def window_starts(frames: int, n: int) -> list[int]:
    """First frames of the windows that cover ``frames``: they advance by N - 1, so that neighbours share a frame."""
    return list(range(0, max(frames - 1, 1), n - 1))


def condition_matrix(
    initial: Float[torch.Tensor, "batch state"], style: Float[torch.Tensor, "batch 3 state"], frames: int
) -> Float[torch.Tensor, "batch frames flagged"]:
    """Fig. 3: row 0 the initial state, rows N/2-1 to N/2+1 the style frames, last channel 1 there; zero elsewhere.

    A frame that is missing as a whole leaves its row zero; a channel that is missing is 0, the mean.
    """
    filled = torch.cat([initial[:, None], style], dim=1)
    there = torch.isfinite(filled).any(-1, keepdim=True)
    matrix = filled.new_zeros(len(initial), frames, filled.shape[-1] + 1)
    matrix[:, condition_rows(frames)] = torch.cat([filled.nan_to_num(0.0), there.to(filled)], dim=-1)
    return matrix


def draw_frames(
    frames: Float[torch.Tensor, "batch some state"], count: int, rng: torch.Generator
) -> Float[torch.Tensor, "batch count state"]:
    """``count`` random frames of each sequence, different ones while there are enough, those with a face first."""
    seen: Bool[torch.Tensor, "batch some"] = torch.isfinite(frames).any(-1)
    # The largest of random keys are a draw without replacement; a missing frame's key is below all others.
    keys = torch.rand(seen.shape, generator=rng, device=frames.device) + seen
    chosen = keys.topk(min(count, keys.shape[1]), dim=1).indices
    chosen = chosen[:, torch.arange(count) % chosen.shape[1]]
    return frames[torch.arange(len(frames), device=frames.device)[:, None], chosen]
