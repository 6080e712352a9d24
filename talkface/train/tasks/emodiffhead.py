"""EMOdiffhead (Zhang 2024): frame after frame of a talking head by denoising, from sound and expression vectors.

Each frame sees the two before it, a picture of the person, and two rows of sound and expression on both sides of its
own (Eq. 11 to 13). ``simple + vlb_weight vlb + lip_weight lip + eye_weight eye`` (Eq. 16).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final, Literal

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from torch.nn import functional as F

from talkface import discover
from talkface.config import Strict
from talkface.datasets.loading.loader import Batch
from talkface.datasets.loading.windows import Pictures, Windows
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError
from talkface.motion import steady_pts
from talkface.nets.emodiffhead import COLOURS, PICTURES, EmoDiffHead, HeadShape
from talkface.nets.guided_unet import Gain, UNetShape
from talkface.train.base import Facts, Step, TaskConfig, Training
from talkface.train.diffusion import Noise, add_noise, denoise, make_scheduler, require_schedule, schedule_facts
from talkface.train.inputs.audio_features import SoundFacts
from talkface.train.inputs.expression import Expression, Kind, filled
from talkface.train.inputs.regions import EYES, LIPS, box_mask, mean_inside, points_box
from talkface.train.meters import Means
from talkface.train.objectives.vlb import Posterior, bound
from talkface.train.protocols import Picture, Portrait, Speech, Style

BEFORE: Final = 2
"""Motion frames, and rows of sound and expression on each side of a frame (n)."""
LENGTH: Final = 2 * BEFORE + 1
CONDITIONS: Final = ("identity", "motion", "sound", "expression")
"""What the network is given beside the noisy frame and its time, in its order."""
GROWN: Final = 5 / 128
"""Of the picture's side: 5 pixels of 128 around mouth and eyes."""
ONE_STEP: Final = 100
"""Of T = 1000: the time from which one step is shown."""
UPSCALERS: Final = discover.Kind("upscaler", "talkface.upscalers", "talkface.generate", "upscale")
GUIDED: Final = Noise(steps=1000, schedule="cosine", variance="learned_range", spacing="linspace")


class HeadConfig(TaskConfig):
    """What changes an EMOdiffhead model."""

    expression: Kind = Field("flame", description="flame: FLAME's 50 numbers; arkit: the 24 shapes above the mouth")
    sound: Literal["w2v", "ctc", "mel"] = Field("w2v", description="column of the sound's features")
    landmarks: Literal["lm68", "fan"] = Field("lm68", description="column of the 68 points that mark mouth and eyes")
    size: int = Field(128, ge=16, description="side of the picture in pixels")
    part: float = Field(1.0, gt=0, le=1, description="middle of the crop that is shown")
    rate: float = Field(30.0, gt=0, description="frames a second")
    stride: int = Field(1, ge=1, description="frames from one training window to the next")
    margin: int = Field(15, ge=0, description="frames between a window and its picture of the person, at least")
    channels: int = Field(256, ge=32, multiple_of=32)
    multiples: tuple[int, ...] = Field((1, 2, 3), description="of the channels, level by level")
    blocks: int = Field(2, ge=1, description="residual blocks a level")
    attention: tuple[int, ...] = Field((4,), description="downsampling factors with self-attention")
    reference: tuple[int, ...] = Field((2, 4), description="factors at which the ReferenceNet is read; (): none")
    head_channels: int = Field(64, ge=1, description="channels of a head of attention")
    dropout: float = Field(0.1, ge=0, lt=1)
    gain: Gain = Field("one_plus", description="of the conditions: (1 + s), or s as Eq. 13 prints it")
    vlb: float = Field(1e-4, ge=0, description="weight of the bound")
    lip: float = Field(0.2, ge=0, description="weight of the error around the mouth")
    eye: float = Field(0.2, ge=0, description="weight of the error around eyes and brows")
    start: float = Field(0.1, ge=0, le=1, description="share of samples whose motion frames are the person's picture")
    motion_noise: float = Field(0.0, ge=0, description="motion frames carry noise of a deviation of 0 to this")
    noise: Noise = GUIDED

    @property
    def sound_margin(self) -> float:
        """Seconds of sound around a window: what the rows around its first and last frame reach over."""
        return 0.1

    @property
    def windows(self) -> Windows:
        return Windows(
            length=LENGTH, fps=self.rate, columns=(self.expression, self.landmarks, self.sound), stride=self.stride,
            pictures=Pictures(size=self.size, part=self.part), reference=1, margin=self.margin,
            sound_margin=self.sound_margin,
        )  # fmt: skip

    @property
    def unet(self) -> UNetShape:
        return UNetShape(
            inputs=PICTURES * COLOURS, outputs=2 * COLOURS, channels=self.channels, multiples=self.multiples,
            blocks=self.blocks, attention=self.attention, head_channels=self.head_channels, dropout=self.dropout,
            gain=self.gain,
        )  # fmt: skip


class Sampling(Strict):
    """How a video is drawn."""

    sampler: Literal["ddpm", "ddim"] = "ddpm"
    steps: int = Field(100, ge=1, description="denoising steps a frame, of 1000; ddim is good with 20")
    side: int | None = Field(None, ge=16, multiple_of=2, description="of the pictures that are written; None: as made")
    upscaler: str = Field("lanczos", description="lanczos, or package.module:function (picture, side) -> picture")


PAPER = Training(
    steps=300_000, batch_size=10, optimizer="adam", learning_rate=5e-5, precision="fp32", evaluate_every=5000,
    save_every=5000,
)  # fmt: skip
TINY = Training(
    steps=400, batch_size=8, optimizer="adam", learning_rate=1e-3, warmup=20, ema=0.99, evaluate_every=200,
    evaluate_batches=4, save_every=200,
)  # fmt: skip


class Task:
    """The task ``emodiffhead``."""

    version: ClassVar = 1
    Config = HeadConfig
    Sampling: ClassVar[type[Strict]] = Sampling
    presets: ClassVar[Mapping[str, TaskConfig]] = {
        "tiny": HeadConfig(
            training=TINY, expression="arkit", sound="mel", size=32, part=0.75, channels=32, multiples=(1, 2), blocks=1,
            attention=(2,), reference=(2,), head_channels=16, dropout=0.0, motion_noise=0.1,
        ),
        "paper": HeadConfig(training=PAPER),
        "modern": HeadConfig(
            training=PAPER.model_copy(update={"precision": "auto"}), expression="arkit", motion_noise=0.1,
        ),
    }  # fmt: skip

    @classmethod
    def learn(cls, config: HeadConfig, dataset: Dataset) -> Facts:
        """Normalisation of expression and sound, and the noise schedule."""
        return {
            "expression": Expression.learn(dataset, config.expression).facts(),
            "sound": SoundFacts.learn(dataset, config.sound, margin=config.sound_margin).facts(),
            "noise": schedule_facts(config.noise),
            "fps": config.rate,
        }

    def __init__(self, config: HeadConfig, facts: Facts) -> None:
        """Raises WeightsError if the schedule is not the one of the facts."""
        require_schedule(config.noise, facts["noise"])
        self.config, self.facts = config, facts
        self.expression, self.sound = Expression.of(facts["expression"]), SoundFacts.of(facts["sound"])
        betas = make_scheduler(config.noise).betas
        self.posterior, self.bar = Posterior.of(betas), torch.cumprod(1 - betas, 0)

    def build(self) -> EmoDiffHead:
        c = self.config
        return EmoDiffHead(HeadShape(self.sound.width, len(self.expression), LENGTH, c.unet, c.reference))

    def step(self, model: torch.nn.Module, batch: Batch, rng: torch.Generator, phase: str) -> Step:
        """Eq. 16 over the samples of which pictures and expression are known."""
        given, points = self.prepare(batch, rng)
        if not len(points):
            return Step(0 * sum((p.sum() for p in model.parameters() if p.requires_grad), torch.zeros(())))
        t = torch.randint(0, self.config.noise.steps, (len(points),), generator=rng, device=points.device)
        terms, _ = self.terms(model, given, points, t, rng)
        c, found = self.config, {name: value for name, (value, _) in terms.items()}
        loss = found["simple"] + c.vlb * found["vlb"] + c.lip * found["lip"] + c.eye * found["eye"]
        return Step(loss, found)

    def prepare(
        self, batch: Batch, rng: torch.Generator, *, train: bool = True
    ) -> tuple[dict[str, torch.Tensor], Float[torch.Tensor, "b 68 2"]]:
        """What the network is given, of the samples that can be used, ``x0`` among it; and the target's 68 points.

        In training a share of the samples begins a video (both motion frames are the person's picture), and motion
        frames carry noise, so that a video does not drift away on its own errors.
        """
        c, expression = self.config, filled(self.expression.of_column(batch[self.config.expression].float()))
        good = (batch["frame_index"][:, : BEFORE + 1] >= 0).all(1) & torch.isfinite(expression).flatten(1).all(1)
        frames, identity = scaled(batch["frames"][good, : BEFORE + 1]), scaled(batch["reference"][good, 0])
        motion = frames[:, :BEFORE]
        if train:
            starts = torch.rand(len(identity), generator=rng, device=motion.device) < c.start
            motion = torch.where(starts[:, None, None, None, None], identity[:, None], motion)
            size = torch.rand(len(identity), 1, 1, 1, 1, generator=rng, device=motion.device) * c.motion_noise
            motion = motion + size * torch.randn(motion.shape, generator=rng, device=motion.device)
        sound = self.sound.of_window(batch[c.sound].float(), batch["times_ns"])
        given = {"x0": frames[:, BEFORE], "identity": identity, "motion": motion.flatten(1, 2), "sound": sound[good],
                 "expression": expression[good]}  # fmt: skip
        return given, batch[c.landmarks][good, BEFORE].float()

    def terms(
        self, model: torch.nn.Module, given: Mapping[str, torch.Tensor], points: torch.Tensor, t: torch.Tensor,
        rng: torch.Generator,
    ) -> tuple[dict[str, tuple[torch.Tensor, int | torch.Tensor]], torch.Tensor]:  # fmt: skip
        """Each term of the loss with the number of samples that it is of, and x0 as one step gives it.

        Boxes are around the points of the frame that is to be made. A sample without points has no say in its terms.
        """
        x0, conditions = given["x0"], [given[k] for k in CONDITIONS]
        epsilon = torch.randn(x0.shape, generator=rng, device=x0.device)
        xt = add_noise(self.bar.to(x0.device), x0, epsilon, t)
        predicted = model(xt, t, *conditions).float()
        error = (predicted[:, :COLOURS] - epsilon).square()
        grow = GROWN * self.config.size
        lip, eye = (box_mask(points_box(points, part, grow), self.config.size) for part in (LIPS, EYES))
        terms: dict[str, tuple[torch.Tensor, int | torch.Tensor]] = {
            "simple": (error.mean(), len(x0)),
            "vlb": (bound(self.posterior, predicted, x0, xt, t).mean(), len(x0)),
            "lip": mean_inside(error, lip),
            "eye": mean_inside(error, eye),
        }
        return terms, self.posterior.x0(xt, predicted[:, :COLOURS].detach(), t).clamp(-1, 1)

    def evaluate(self, model: torch.nn.Module, batches: Iterable[Batch], rng: torch.Generator) -> dict[str, float]:
        """Each term at times evenly spread over T; ``loss`` is the simple one. ``psnr`` is of one step from t = 100,
        ``repeat_psnr`` of the frame before, both in dB."""
        means = Means()
        for batch in batches:
            given, points = self.prepare(batch, rng, train=False)
            if not len(points):
                continue
            spread = torch.linspace(0, self.config.noise.steps - 1, len(points), device=points.device).long()
            for name, (value, count) in self.terms(model, given, points, spread, rng)[0].items():
                means.add({"simple": "loss"}.get(name, name), value, count)
            late = torch.full_like(spread, min(ONE_STEP, self.config.noise.steps - 1))
            made = self.terms(model, given, points, late, rng)[1]
            for name, shown in (("psnr", made), ("repeat_psnr", given["motion"][:, -COLOURS:])):
                means.add(name, psnr(shown, given["x0"]).mean(), len(points))
        return {"loss": float("nan"), **means.found()}

    def picture(self, model: torch.nn.Module, batch: Batch, rng: torch.Generator) -> UInt8[np.ndarray, "h w 3"]:
        """The person, the frame before, the frame, and the frame as one step from t = 100 and from t = 500 gives it."""
        given, points = self.prepare(batch, rng, train=False)
        if not len(points):
            return np.zeros((self.config.size, self.config.size, 3), np.uint8)
        shown = [given["identity"], given["motion"][:, -COLOURS:], given["x0"]]
        for time in (ONE_STEP, 500):
            t = torch.full((len(points),), min(time, self.config.noise.steps - 1), device=points.device)
            shown.append(self.terms(model, given, points, t, rng)[1])
        return np.concatenate([np.concatenate(list(coloured(side[:4])), axis=0) for side in shown], axis=1)

    @torch.no_grad()
    def frames(
        self, net: torch.nn.Module, identity: Float[torch.Tensor, "b 3 side side"],
        sound: Float[torch.Tensor, "b frames width"], expression: Float[torch.Tensor, "b frames numbers"],
        rng: torch.Generator, how: Any, *, same_noise: bool = False,
    ) -> Iterator[Float[torch.Tensor, "b 3 side side"]]:  # fmt: skip
        """Frames of several videos at once, one after the other; the first ones come after the person's picture twice.

        With ``same_noise`` all videos start from the same noise: what differs is what they were given.
        """
        seen = net.look(identity)  # type: ignore[operator]
        before, n = [identity] * BEFORE, expression.shape[1]
        for number in range(n):
            around = (torch.arange(-BEFORE, BEFORE + 1, device=identity.device) + number).clamp(0, n - 1)
            fixed = {"identity": identity, "motion": torch.cat(before, dim=1), "sound": sound[:, around],
                     "expression": expression[:, around], "seen": seen}  # fmt: skip
            count = 1 if same_noise else len(identity)
            start = torch.randn(count, *identity.shape[1:], generator=rng, device=identity.device)

            def predict(x: torch.Tensor, t: torch.Tensor, fixed: Mapping[str, Any] = fixed) -> torch.Tensor:
                out: torch.Tensor = net(x, t, **fixed)
                return out

            made = denoise(
                predict, self.config.noise, start.expand_as(identity), rng, sampler=how.sampler, steps=how.steps,
                clip=True,
            ).clamp(-1, 1)  # fmt: skip
            before = [*before[1:], made]
            yield made

    def hear(self, speech: Speech, device: torch.device) -> Float[torch.Tensor, "1 frames width"]:
        """What the network hears at each frame of a sound."""
        rows = torch.from_numpy(speech.columns[self.config.sound].astype(np.float32))[None].to(device)
        times = torch.from_numpy(steady_pts(speech.frames(self.config.rate), self.config.rate))[None]
        return replace(self.sound, margin=0.0).of_window(rows, times.to(device))

    def act(self, style: Style | None, frames: int, device: torch.device) -> Float[torch.Tensor, "frames numbers"]:
        """The expression of each frame: what a style acts, its last row going on; without one the data's mean.

        Raises ConfigError for a style that has no such expression.
        """
        if style is None:
            return torch.zeros(frames, len(self.expression), device=device)
        kind = self.expression.kind
        rows = style.acting.get(kind, style.arkit if kind == "arkit" else None)
        if rows is None:
            raise ConfigError(f"{style.name}: shows no {kind}, which this run follows. Give --expression a run of "
                              f"expression_gan with expression={kind}, or a clip that has it.")  # fmt: skip
        values = self.expression.of_column(torch.from_numpy(rows.astype(np.float32)))
        values = filled(values[None])[0].nan_to_num(0.0).to(device)
        return values[torch.arange(frames, device=device).clamp(max=len(values) - 1)]

    def see(self, portrait: Portrait, device: torch.device) -> Float[torch.Tensor, "1 3 side side"]:
        """A portrait as the network sees pictures of persons."""
        side = len(portrait.picture)
        kept = max(round(side * self.config.part), 1)
        low = (side - kept) // 2
        cut = portrait.picture[low : low + kept, low : low + kept]
        size = (self.config.size, self.config.size)
        how = cv2.INTER_AREA if kept > self.config.size else cv2.INTER_LINEAR
        return scaled(torch.from_numpy(np.asarray(cv2.resize(cut, size, interpolation=how)))[None]).to(device)

    def sample_video(
        self, net: torch.nn.Module, speech: Speech, portrait: Portrait, rng: torch.Generator, how: Any, *,
        style: Style | None = None,
    ) -> Iterator[Picture]:  # fmt: skip
        """The portrait speaking with the expressions that a style acts, frame after frame."""
        sound = self.hear(speech, rng.device)
        expression = self.act(style, sound.shape[1], rng.device)[None]
        upscale = upscaler(how.upscaler)
        for made in self.frames(net, self.see(portrait, rng.device), sound, expression, rng, how):
            yield upscale(coloured(made)[0], how.side or self.config.size)


def scaled(pictures: UInt8[torch.Tensor, "*b h w 3"]) -> Float[torch.Tensor, "*b 3 h w"]:
    """0..255 to -1..1, colours first."""
    return pictures.movedim(-1, -3).float() / 127.5 - 1


def coloured(pictures: Float[torch.Tensor, "b 3 h w"]) -> UInt8[np.ndarray, "b h w 3"]:
    """-1..1 to 0..255, colours last."""
    shown: np.ndarray = ((pictures.clamp(-1, 1) + 1) * 127.5).round().byte().movedim(1, -1).cpu().numpy()
    return shown


def psnr(made: Float[torch.Tensor, "b 3 h w"], real: Float[torch.Tensor, "b 3 h w"]) -> Float[torch.Tensor, " b"]:
    """In dB, of pictures in -1..1."""
    error = F.mse_loss(made, real, reduction="none").flatten(1).mean(1).clamp(min=1e-8)
    return 10 * torch.log10(4 / error)


def lanczos(picture: Picture, side: int) -> Picture:
    """The picture in another size."""
    same = len(picture) == side
    return picture if same else np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_LANCZOS4))


def upscaler(name: str) -> Any:
    """``lanczos``, or what ``package.module:function`` names. Raises ConfigError for what is not there."""
    if name == "lanczos":
        return lanczos
    if ":" not in name:
        raise ConfigError(f"upscaler {name}: expected lanczos, or package.module:function. A weight file alone is not "
                          "run: write a function that loads it by its hash.")  # fmt: skip
    return discover.load(UPSCALERS, name)
