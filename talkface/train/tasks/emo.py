"""EMO: a portrait and a sound to video, by diffusion, trained in three stages (Tian 2024).

Stage 1 learns pictures, stage 2 video and sound, stage 3 the speed of the head; each begins from a run of the one
before (``training.start_from``). Where the paper leaves something open, docs/emo.md says what was chosen.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from pydantic import Field, model_validator

from talkface.config import Strict
from talkface.datasets.loading.loader import Batch
from talkface.datasets.loading.pictures import Pictures
from talkface.datasets.loading.windows import Windows
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError
from talkface.nets.emo.blocks import Reading
from talkface.nets.emo.keys import backbone_of, reference_of, temporal_of
from talkface.nets.emo.model import Design, Emo
from talkface.nets.emo.unet import Given, Sizes
from talkface.train.base import Facts, Step, TaskConfig, Training
from talkface.train.diffusion import (
    Noise,
    add_noise,
    denoise,
    make_scheduler,
    require_schedule,
    sample_weights,
    schedule_facts,
    target,
)  # fmt: skip
from talkface.train.inputs.audio_features import SoundFacts
from talkface.train.inputs.codec import Codec, Pixels, Vae, Waves, open_vae
from talkface.train.inputs.frame_sound import frame_sound, heard, heard_of, width
from talkface.train.inputs.head_speed import SpeedFacts, head_speed
from talkface.train.inputs.regions import box_mask, grown, union_box
from talkface.train.meters import Means
from talkface.train.protocols import Picture, Portrait, Speech, Style
from talkface.train.start import Source, Start


class EmoConfig(TaskConfig):
    """What changes an EMO model."""

    stage: Literal[1, 2, 3] = Field(1, description="1 pictures, 2 video and sound, 3 the head's speed")
    size: int = Field(512, ge=16, description="side of the pictures in pixels")
    rate: float = Field(25.0, gt=0, description="frames a second")
    frames: int = Field(12, ge=1, description="f, frames that are drawn at once")
    motion: int = Field(4, ge=1, description="n, frames before them that are given")
    stride: int = Field(4, ge=1, description="frames from one training window to the next")
    margin: int = Field(30, ge=0, description="least frames from the window to the reference picture")
    sound: Literal["w2v", "mel"] = Field("w2v", description="column of the sound's features; w2v best of all layers")
    near: int = Field(2, ge=0, description="m, frames before and after whose sound and speed a frame is told")
    sound_rows: int = Field(1, ge=1, description="rows of sound a frame; 3 for mel")
    codec: Literal["vae", "pixels", "waves"] = Field(
        "vae", description="what is diffused: an autoencoder's latents, folded pixels, or the slow waves in them"
    )
    vae: str = Field("", description="folder of an AutoencoderKL in diffusers layout, for codec=vae")
    reading: Reading = Field("replace", description="of the reference: an attention of its own, or more tokens")
    widths: tuple[int, ...] = (320, 640, 1280, 1280)
    attention: tuple[bool, ...] = (True, True, True, False)
    layers: int = Field(2, ge=1, description="resnets a level")
    heads: int = Field(8, ge=1)
    groups: int = Field(32, ge=1, description="of every GroupNorm")
    locator: tuple[int, ...] = Field((16, 32, 64, 128), description="widths of the face locator")
    sound_inner: int = Field(512, ge=1)
    tokens: int = Field(32, ge=1, description="tokens of sound a frame")
    token_width: int = Field(768, ge=1)
    speed_width: int = Field(256, ge=1)
    buckets: int = Field(9, ge=2, description="d, of the head's speed")
    drop_reference: float = Field(0.05, ge=0, lt=1, description="share of samples without a reference")
    drop_sound: float = Field(0.05, ge=0, lt=1, description="share without sound")
    drop_both: float = Field(0.05, ge=0, lt=1, description="share without reference and sound")
    drop_motion: float = Field(0.05, ge=0, lt=1, description="share whose motion frames are zero maps")
    drop_speed: float = Field(0.1, ge=0, lt=1, description="share without a speed")
    whole_mask: float = Field(0.05, ge=0, le=1, description="share whose face may be anywhere")
    mask_growth: float = Field(0.3, ge=0, description="largest share by which the face's region grows")
    zoom: float = Field(0.1, ge=0, lt=1, description="largest share of the picture that is cut off")
    light: float = Field(0.1, ge=0, lt=1, description="largest change of brightness, contrast and colour")
    mirror: float = Field(0.5, ge=0, le=1, description="share of windows that are mirrored")
    noise_offset: float = Field(0.0, ge=0, description="of the noise, one number a channel and frame")
    motion_noise: float = Field(0.0, ge=0, description="largest deviation of noise on motion frames")
    motion_holes: float = Field(0.0, ge=0, lt=1, description="share of the motion frames' patches that are zeroed")
    noise: Noise = Noise(steps=1000, schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.widths) != len(self.attention):
            raise ValueError("widths and attention say something of each level: they are equally long")
        step = (8 if self.codec == "vae" else 4) * 2 ** (len(self.widths) - 1)
        if self.size % step:
            raise ValueError(f"size must be a multiple of {step}, got {self.size}")
        if 2 ** (len(self.locator) - 1) != (8 if self.codec == "vae" else 4):
            raise ValueError("locator has one width more than the codec halves a side: 4 for vae, 3 else")
        return self

    @property
    def windows(self) -> Windows:
        video = self.stage >= 2
        columns = ("box", *((self.sound,) if video else ()), *(("head",) if self.stage >= 3 else ()))
        return Windows(
            length=self.motion + self.frames if video else 1, fps=self.rate, columns=columns, stride=self.stride,
            pad="never", pictures=Pictures(size=self.size, zoom=self.zoom, light=self.light), mirror=self.mirror,
            reference=1, margin=self.margin, sound_margin=self.reach if video else 0.0,
        )  # fmt: skip

    @property
    def reach(self) -> float:
        """Seconds of sound beyond a window that its frames are told."""
        return (self.near + 1) / self.rate


class EmoSampling(Strict):
    """How video is drawn from a model."""

    steps: int = Field(40, ge=1, description="DDIM steps")
    guidance: float = Field(3.5, ge=0, description="of the sound; 1: none")
    reference_guidance: float = Field(1.0, ge=0, description="of the reference picture; 1: none")
    speed: float | None = Field(None, ge=0, description="of the head, degrees a frame; None: as the model likes")
    grow: float = Field(0.2, ge=0, description="share by which the face's region is larger than the portrait's box")


SD = {"optimizer": "adamw", "learning_rate": 1e-5, "weight_decay": 0.01, "ema": 0.0}
PAPER = Training(**SD, steps=30_000, batch_size=4, accumulate=12, evaluate_every=1000, save_every=1000)
MODERN_NOISE = Noise(
    steps=1000, schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, predict="v", zero_terminal_snr=True,
    min_snr=5.0,
)  # fmt: skip
MODERN = EmoConfig(
    training=PAPER.model_copy(update={"checkpointing": True}),
    reading="concat", noise=MODERN_NOISE, noise_offset=0.05, motion_noise=0.1, motion_holes=0.25,
)  # fmt: skip
SMALL = MODERN.training.model_copy(update={"batch_size": 1, "optimizer": "adamw8bit"})
TINY = Training(
    steps=300, batch_size=8, learning_rate=2e-3, warmup=20, schedule="cosine", ema=0.99, log_every=20,
    evaluate_every=150, evaluate_batches=8, save_every=150,
)  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """A batch as the network sees it: ``x0`` (batch, frames, c, h, w), the conditions by their names, and which samples
    are to be learned from."""

    x0: Float[torch.Tensor, "batch frames c h w"]
    given: dict[str, torch.Tensor]
    known: Bool[torch.Tensor, " batch"]


class Task:
    """The task ``emo``."""

    version: ClassVar = 1
    Config = EmoConfig
    Sampling = EmoSampling
    presets: ClassVar[Mapping[str, TaskConfig]] = {
        "tiny": EmoConfig(
            training=TINY, size=64, rate=12.5, frames=4, motion=2, stride=1, margin=8, sound="mel", near=1,
            sound_rows=3, codec="waves", widths=(48, 96), attention=(True, True), layers=1, heads=4, groups=8,
            locator=(16, 32, 64), sound_inner=128, tokens=4, token_width=64, speed_width=32, zoom=0.0, light=0.0,
            mirror=0.0, noise=Noise(steps=500, schedule="cosine", predict="x0"),
        ),
        "small": MODERN.model_copy(update={"size": 256, "frames": 8, "training": SMALL}),
        "paper": EmoConfig(training=PAPER),
        "modern": MODERN,
    }  # fmt: skip

    @classmethod
    def learn(cls, config: EmoConfig, dataset: Dataset) -> Facts:
        """The noise schedule; of stage 2 on the sound's normalisation, of stage 3 the head's speeds.

        Raises ConfigError for a later stage that begins from nothing.
        """
        if config.stage > 1 and not config.training.start_from:
            raise ConfigError(
                f"emo's stage {config.stage} goes on from a run of stage {config.stage - 1}: set "
                "training.start_from=RUN."
            )
        facts: Facts = {"noise": schedule_facts(config.noise), "fps": config.rate}
        if config.stage >= 2:
            sound = frame_sound(dataset, config.sound, config.windows, m=config.near, rows=config.sound_rows)
            facts["sound"] = sound.facts()
        if config.stage >= 3:
            facts["speed"] = SpeedFacts.learn(dataset, config.rate, buckets=config.buckets).facts()
        return facts

    def __init__(self, config: EmoConfig, facts: Facts) -> None:
        """Raises WeightsError if the schedule is not the one of the facts, or the autoencoder cannot be read."""
        require_schedule(config.noise, facts["noise"])
        self.config, self.facts = config, facts
        self.sound = SoundFacts.of(facts["sound"]) if config.stage >= 2 else None
        self.speeds = SpeedFacts.of(facts["speed"]) if config.stage >= 3 else None
        self.bar: torch.Tensor = make_scheduler(config.noise).alphas_cumprod
        self.codec: Codec = _codec(config)

    def frozen(self) -> dict[str, torch.nn.Module]:
        """The autoencoder, where there is one."""
        return {"vae": self.codec.net} if isinstance(self.codec, Vae) else {}

    def build(self) -> torch.nn.Module:
        sound = width(self.sound) if self.sound else 0
        return Emo(design(self.config, self.codec.channels, sound, self.speeds), self.config.stage)

    @classmethod
    def rehearse(cls, config: EmoConfig) -> tuple[torch.nn.Module, Callable[[], torch.Tensor]]:
        """The network of a configuration on the default device, and one forward pass of a batch of zeros: what a step
        costs is known without data, autoencoder or memory where that device is ``meta``."""
        c, video = config, config.stage >= 2
        channels, shrink = {"vae": (4, 8), "pixels": (48, 4), "waves": (16, 4)}[c.codec]
        near = 2 * c.near * (1 if c.sound_rows == 1 else c.sound_rows) + max(c.sound_rows - 1, 0) + 1
        sound = near * {"w2v": 12 * 768, "mel": 80}[c.sound] if video else 0
        net, side, n = Emo(design(c, channels, sound, None), c.stage), c.size // shrink, c.training.batch_size
        frames = c.frames if video else 1
        given = {"reference": torch.zeros(n, channels, side, side), "mask": torch.zeros(n, 1, c.size, c.size)}
        if video:
            motion = torch.zeros(n, c.motion, channels, side, side)
            given |= {"motion": motion, "audio": torch.zeros(n, frames, sound)}
        if c.stage >= 3:
            given["speed"] = torch.zeros(n, frames)
        x, t = torch.zeros(n, frames, channels, side, side), torch.zeros(n, dtype=torch.long)
        return net, lambda: net(x, t, **given).square().mean()

    def start(self, sources: Sequence[Source]) -> Start:
        """The stage before, or Stable Diffusion's folder; AnimateDiff's modules beside either from stage 2 on."""
        stage, before = self.config.stage, self.config.stage - 1
        runs = [source for source in sources if source.task is not None]
        if stage == 1 and not runs:
            return self._from_pictures(sources)
        require_stage(sources, stage)
        weights = runs[0].weights()
        if stage_of(weights) == stage:
            return Start(weights)
        assert before
        moving = [source.weights() for source in sources if source.task is None]
        weights |= {f"backbone.{k}": v for one in moving for k, v in temporal_of(one).items()}
        temporal = () if moving else ("backbone.*.motion_modules.*",)
        new = {2: ("backbone.*.audio_*", "projector.*", *temporal), 3: ("backbone.*.speed_*", "speed.*")}
        return Start(weights, missing=new[stage])

    def _from_pictures(self, sources: Sequence[Source]) -> Start:
        """Backbone and ReferenceNet from Stable Diffusion's UNet; the locator is new."""
        unet = {name: value for source in sources for name, value in source.weights("unet").items()}
        parts = {"backbone": backbone_of(unet, self.config.reading), "reference": reference_of(unet)}
        weights = {f"{part}.{name}": value for part, of in parts.items() for name, value in of.items()}
        return Start(weights, missing=("locator.*",))

    def step(self, model: torch.nn.Module, batch: Batch, rng: torch.Generator, phase: str) -> Step:
        """Eq. 1: mean squared error of the noise (or of what `Noise.predict` says), each sample by its own weight."""
        seen = self.prepare(batch, rng, learning=True)
        t = torch.randint(0, self.config.noise.steps, (len(seen.x0),), generator=rng, device=seen.x0.device)
        error = self.error(model, seen, t, rng, self.drops(len(t), rng))
        known = seen.known.float()
        return Step((error * known).sum() / known.sum().clamp(min=1))

    def error(
        self, model: torch.nn.Module, seen: Seen, t: torch.Tensor, rng: torch.Generator,
        drops: Mapping[str, torch.Tensor],
    ) -> Float[torch.Tensor, " batch"]:  # fmt: skip
        """The loss of each sample."""
        noise, bar, x0 = self.config.noise, self.bar.to(seen.x0.device), seen.x0
        epsilon = torch.randn(x0.shape, generator=rng, device=x0.device)
        if self.config.noise_offset:
            shift = torch.randn(x0.shape[:3], generator=rng, device=x0.device)
            epsilon = epsilon + self.config.noise_offset * shift[..., None, None]
        said = model(add_noise(bar, x0, epsilon, t), t, **seen.given, **drops)
        wrong = (said.float() - target(noise, bar, x0, epsilon, t)).square().flatten(1).mean(1)
        return wrong * sample_weights(noise, bar, t)

    def drops(self, n: int, rng: torch.Generator) -> dict[str, torch.Tensor]:
        """Which samples go with which condition, each drawn for itself."""
        c = self.config
        both = self.drawn(n, c.drop_both, rng)
        keep = {"keep_reference": ~(both | self.drawn(n, c.drop_reference, rng))}
        if c.stage >= 2:
            keep["keep_audio"] = ~(both | self.drawn(n, c.drop_sound, rng))
            keep["keep_motion"] = ~self.drawn(n, c.drop_motion, rng)
        if c.stage >= 3:
            keep["keep_speed"] = ~self.drawn(n, c.drop_speed, rng)
        return keep

    def drawn(self, n: int, share: float, rng: torch.Generator) -> torch.Tensor:
        return torch.rand(n, generator=rng, device=rng.device) < share

    def prepare(self, batch: Batch, rng: torch.Generator, *, learning: bool) -> Seen:
        """A batch as the network sees it; ``learning`` draws masks and spoils motion frames."""
        c, n = self.config, self.config.motion
        x = self.codec.encode(batch["frames"])
        boxes = batch["box"] if c.stage == 1 else batch["box"][:, n:]
        given = {"reference": self.codec.encode(batch["reference"][:, 0]), "mask": self.region(boxes, rng, learning)}
        known = torch.isfinite(boxes).all(-1).any(1)
        if self.sound is not None:
            audio = heard(self.sound, batch[c.sound], batch["times_ns"])[:, n:]
            known &= torch.isfinite(audio).all(-1).any(1)  # clips without sound teach pictures alone, in stage 1
            motion = self.spoiled(x[:, :n], rng) if learning else x[:, :n]
            given |= {"motion": motion, "audio": audio}
        if c.stage >= 3:
            given["speed"] = head_speed(batch["head"].float())[:, n:]
        return Seen(x if c.stage == 1 else x[:, n:], given, known)

    def region(self, boxes: torch.Tensor, rng: torch.Generator, learning: bool) -> Float[torch.Tensor, "b 1 s s"]:
        """The mask of where the face may be, a little larger than it is, or sometimes all of the picture."""
        c, box = self.config, union_box(boxes.float())
        share = torch.full((len(box),), c.mask_growth / 2, device=box.device)
        if learning:
            share = torch.rand(len(box), generator=rng, device=box.device) * c.mask_growth
        found = self.mask(grown(box, share))
        if learning:
            found = found.maximum(self.drawn(len(box), c.whole_mask, rng)[:, None, None, None].float())
        return found

    def mask(self, box: Float[torch.Tensor, "b 4"]) -> Float[torch.Tensor, "b 1 s s"]:
        """1 inside a box; 1 everywhere where no box is known."""
        unknown = ~torch.isfinite(box).all(-1)[:, None, None, None]
        return (box_mask(box, self.config.size) | unknown).float()

    def spoiled(self, motion: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """Motion frames as sampling will give them, not quite right: noise on them, and patches missing (hallo2)."""
        c = self.config
        if c.motion_noise:
            sigma = torch.rand(len(motion), 1, 1, 1, 1, generator=rng, device=motion.device) * c.motion_noise
            motion = motion + sigma * torch.randn(motion.shape, generator=rng, device=motion.device)
        if c.motion_holes:
            held = torch.rand(*motion.shape[:2], 1, *motion.shape[3:], generator=rng, device=motion.device)
            motion = motion * (held >= c.motion_holes)
        return motion

    def evaluate(self, model: torch.nn.Module, batches: Iterable[Batch], rng: torch.Generator) -> dict[str, float]:
        """The loss at times evenly spread over T; from stage 2 on with null sound too (``null``), and by how much the
        sound lowers it (``audio_gain``): it has to rise above 0."""
        means, steps = Means(), self.config.noise.steps
        for batch in batches:
            seen = self.prepare(batch, rng, learning=False)
            t = torch.linspace(0, steps - 1, len(seen.x0) + 2, device=seen.x0.device).long()[1:-1]
            self._judge(model, seen, t, rng, means)
        found = means.found()
        return found | ({"audio_gain": found["null"] - found["loss"]} if "null" in found else {})

    def _judge(self, model: torch.nn.Module, seen: Seen, t: torch.Tensor, rng: torch.Generator, means: Means) -> None:
        """Add a batch's losses; with and without sound under the same noise."""
        state, silent = rng.get_state(), torch.zeros(len(t), dtype=torch.bool, device=t.device)
        cases: dict[str, dict[str, torch.Tensor]] = {"loss": {}}
        if self.sound is not None:
            cases["null"] = {"keep_audio": silent}
        for name, drops in cases.items():
            rng.set_state(state)
            error = self.error(model, seen, t, rng, drops)[seen.known]
            means.add(name, error.mean() if len(error) else error.sum(), len(error))

    @torch.no_grad()
    def picture(self, model: torch.nn.Module, batch: Batch, rng: torch.Generator) -> UInt8[np.ndarray, "h w 3"]:
        """Held-out windows: reference and real frames, and below them what is drawn for the same sound and motion."""
        seen = self.prepare({k: v[:4] for k, v in batch.items() if torch.is_tensor(v)}, rng, learning=False)
        net = cast(Emo, getattr(model, "module", model))
        given = net.conditions(**seen.given, frames=seen.x0.shape[1])
        made = self.draw(net, [(1.0, given)], seen.x0.shape, rng, EmoSampling(steps=10))
        rows = []
        for reference, real, drawn in zip(seen.given["reference"], seen.x0, made, strict=True):
            shown = self.codec.decode(torch.cat([reference[None], real, torch.zeros_like(reference)[None], drawn]))
            rows += [np.concatenate(list(part.cpu().numpy()), axis=1) for part in shown.chunk(2)]
        return np.concatenate(rows)

    def draw(
        self, net: Emo, weighed: Sequence[tuple[float, Given]], shape: Sequence[int], rng: torch.Generator,
        how: EmoSampling,
    ) -> Float[torch.Tensor, "batch frames c h w"]:  # fmt: skip
        """Denoise by the weighted sum of what the network says under each of some conditions; weights sum to 1."""

        def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return sum(w * net.denoise(x, t, given) for w, given in weighed)  # type: ignore[return-value]

        start = torch.randn(tuple(shape), generator=rng, device=rng.device)
        return denoise(predict, self.config.noise, start, rng, sampler="ddim", steps=how.steps)

    def sample_video(
        self, net: torch.nn.Module, speech: Speech, portrait: Portrait, rng: torch.Generator, how: EmoSampling, *,
        style: Style | None = None,
    ) -> Iterator[Picture]:  # fmt: skip
        """The portrait speaking, window by window; each begins from the last denoised latents of the one before.

        Every window has a generator of its own, of the seed and its first frame. There is no style. Raises ConfigError
        for a run of stage 1, which knows no motion, and a speed for one that knows none.
        """
        require_video(self.config, how)
        assert isinstance(net, Emo)
        seed, frames, motion = rng.initial_seed(), speech.frames(self.config.rate), None
        still = self.still(portrait, rng.device, how)
        for first in range(0, frames, self.config.frames):
            own = torch.Generator(rng.device).manual_seed(window_seed(seed, first))
            heard = self.heard(speech, first, rng.device)
            made = self.window(net, still, heard, motion, own, how)
            motion = self.last(motion, made)
            yield from self.codec.decode(made[0, : frames - first]).cpu().numpy()

    def still(self, portrait: Portrait, device: torch.device, how: EmoSampling) -> dict[str, torch.Tensor]:
        """What of the conditions is the same in all windows."""
        shown = portrait.resized(self.config.size)
        box = torch.from_numpy(shown.box[None, :4].astype(np.float32)).to(device)
        region = self.mask(grown(box, torch.full((1,), how.grow, device=device)))
        picture = torch.from_numpy(np.ascontiguousarray(shown.picture))[None].to(device)
        given = {"reference": self.codec.encode(picture), "mask": region}
        if self.config.stage >= 3:
            speed = float("nan") if how.speed is None else how.speed
            given["speed"] = torch.full((1, self.config.frames), speed, device=device)
        return given

    def heard(self, speech: Speech, first: int, device: torch.device) -> Float[torch.Tensor, "1 frames sound"]:
        """The sound of the window that starts with a frame; after its end there is silence."""
        assert self.sound is not None
        c, rows = self.config, speech.columns[self.config.sound]
        return heard_of(self.sound, rows, first, c.windows, c.frames, device)

    def window(
        self, net: Emo, still: Mapping[str, torch.Tensor], heard: torch.Tensor, motion: torch.Tensor | None,
        rng: torch.Generator, how: EmoSampling,
    ) -> Float[torch.Tensor, "1 frames c h w"]:  # fmt: skip
        """Draw one window, guided by the sound and by the reference picture, each by its own weight."""
        off = torch.zeros(1, dtype=torch.bool, device=rng.device)
        c = self.config
        full = net.conditions(**still, motion=motion, audio=heard, frames=c.frames)
        weighed = [(1.0, full)]
        for weight, drops in ((how.guidance, "keep_audio"), (how.reference_guidance, "keep_reference")):
            if weight != 1:
                null = net.conditions(**still, motion=motion, audio=heard, frames=c.frames, **{drops: off})
                weighed = [(weighed[0][0] + weight - 1, full), *weighed[1:], (1 - weight, null)]
        shape = (1, c.frames, *still["reference"].shape[1:])
        return self.draw(net, weighed, shape, rng, how)

    def last(self, motion: torch.Tensor | None, made: torch.Tensor) -> torch.Tensor | None:
        """The motion frames of the next window; none where fewer frames than that were made so far."""
        whole = made if motion is None else torch.cat([motion, made], dim=1)
        return whole[:, -self.config.motion :] if whole.shape[1] >= self.config.motion else None


def design(config: EmoConfig, channels: int, sound: int, speeds: SpeedFacts | None) -> Design:
    """The network's sizes; ``channels`` of what is diffused, ``sound`` numbers a frame."""
    c = config
    none = (0.0,) * c.buckets, (1.0,) * c.buckets
    centres, radii = none if speeds is None else (speeds.centres, speeds.radii)
    return Design(
        sizes=Sizes(
            latent=channels, widths=c.widths, attention=c.attention, layers=c.layers, heads=c.heads, groups=c.groups,
            longest=max(32, c.motion + c.frames),
        ),
        reading=c.reading, sound=sound, sound_inner=c.sound_inner, tokens=c.tokens, token_width=c.token_width,
        n=c.motion, locator=c.locator, m=c.near, speed_width=c.speed_width, centres=centres, radii=radii,
    )  # fmt: skip


def stage_of(weights: Mapping[str, torch.Tensor]) -> int:
    """The stage that a network's weights are of."""
    return 3 if "speed.null" in weights else 2 if "projector.null" in weights else 1


def require_stage(sources: Sequence[Source], stage: int) -> None:
    """Raise ConfigError unless a run of the stage before, or of this one, is among the sources."""
    runs = [source for source in sources if source.task is not None]
    if len(runs) != 1 or runs[0].task != "emo":
        raise ConfigError(f"emo's stage {stage} begins from one run of emo's stage {stage - 1}: training.start_from.")
    found = stage_of(runs[0].weights())
    if found not in (stage - 1, stage):
        raise ConfigError(
            f"{runs[0].name} is a run of stage {found}; stage {stage} begins from one of stage {stage - 1}: the stages "
            "are trained in their order."
        )


def window_seed(seed: int, first: int) -> int:
    """Of the generator of the window that starts with a frame: a run that goes on there draws the same."""
    return int(np.random.SeedSequence([seed % 2**63, first]).generate_state(1, np.uint64)[0]) >> 1


def require_video(config: EmoConfig, how: EmoSampling) -> None:
    """Raise ConfigError for what a stage cannot draw."""
    if config.stage == 1:
        raise ConfigError(
            "a run of emo's stage 1 draws single pictures, which would flicker as video: train stage 2 from it, with "
            "training.start_from=RUN and stage=2."
        )
    if how.speed is not None and config.stage < 3:
        raise ConfigError(f"--set speed={how.speed}: a run of emo's stage 2 knows no speed. Train stage 3 from it.")


def _codec(config: EmoConfig) -> Codec:
    """Raises ConfigError where no autoencoder is named, WeightsError for one that cannot be read."""
    if config.codec == "pixels":
        return Pixels()
    if config.codec == "waves":
        return Waves()
    if not config.vae:
        raise ConfigError("emo diffuses an autoencoder's latents: set vae=FOLDER, or codec=waves to go without one.")
    return Vae(open_vae(config.vae))
