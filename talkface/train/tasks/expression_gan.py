"""EMOdiffhead's expression GAN: from an emotion and noise to a sequence of expressions (section 3.3, Eq. 17 to 19).

Two phases. The discriminators learn to tell real sequences and frames from made ones, and which emotion a real sequence
is. The generator makes sequences on its own for the adversarial terms, and with the real frame before each one (teacher
forcing) for the squared error. It learns from the strongest intensity of each emotion, and from neutral.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import ClassVar, Final

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from pydantic import Field
from torch.nn import functional as F

from talkface.datasets.loading.loader import Batch
from talkface.datasets.loading.windows import Windows
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError
from talkface.nets.expression_gan import ExpressionGan
from talkface.render.overlay import curves
from talkface.train.base import Facts, Phase, Step, TaskConfig, Training
from talkface.train.inputs.expression import Expression, Kind, Sign, dialled, filled
from talkface.vocab import EMOTIONS

NEUTRAL: Final = "neutral"
DRAWN: Final = 6
SHOWN: Final[tuple[str, ...]] = (
    "browInnerUp", "browDownLeft", "cheekSquintLeft", "noseSneerLeft", "eyeBlinkLeft",
)  # fmt: skip
MOST_MISSING: Final = 0.5
"""Share of a window's frames that may be missing; they are filled in from their neighbours."""


class GanConfig(TaskConfig):
    """What changes an expression GAN."""

    expression: Kind = Field("flame", description="flame: FLAME's 50 numbers; arkit: the 24 shapes above the mouth")
    frames: int = Field(32, ge=4, description="N, frames of a sequence")
    rate: float = Field(30.0, gt=0, description="frames a second")
    stride: int = Field(8, ge=1, description="frames from one training window to the next")
    noise: int = Field(64, ge=1, description="numbers of z")
    width: int = Field(256, ge=8, description="of the LSTM")
    layers: int = Field(2, ge=1)
    features: int = Field(128, ge=8, description="channels of the discriminators")
    local: bool = Field(True, description="the discriminator of single frames; false: Table 4, w/o local disc")
    temporal: bool = Field(True, description="dilated convolutions over the sequence; false: Table 4, w/o TCN")
    mse: float = Field(10.0, ge=0, description="weight of the squared error under teacher forcing (Eq. 19)")
    named: float = Field(1.0, ge=0, description="weight of naming the emotion")

    @property
    def windows(self) -> Windows:
        return Windows(length=self.frames, fps=self.rate, columns=(self.expression,), stride=self.stride)


PAPER = Training(
    steps=20_000, batch_size=64, optimizer="adam", learning_rate=2e-4, betas=(0.5, 0.999), ema=0.999,
    evaluate_every=1000, save_every=1000,
)  # fmt: skip
TINY = PAPER.model_copy(
    update={
        "steps": 400,
        "batch_size": 16,
        "learning_rate": 1e-3,
        "ema": 0.98,
        "evaluate_every": 100,
        "save_every": 200,
    }
)


class Task:
    """The task ``expression_gan``."""

    version: ClassVar = 1
    Config = GanConfig
    presets: ClassVar[Mapping[str, TaskConfig]] = {
        "tiny": GanConfig(training=TINY, expression="arkit", noise=16, width=64, layers=1, features=32, stride=4),
        "paper": GanConfig(training=PAPER),
        "modern": GanConfig(training=PAPER, expression="arkit"),
    }
    phases: ClassVar = (Phase("discriminator", ("discriminator.",)), Phase("generator", ("generator.",)))

    @classmethod
    def learn(cls, config: GanConfig, dataset: Dataset) -> Facts:
        """Normalisation of the expressions, and the strongest intensity of each emotion that the data has."""
        return {
            "expression": Expression.learn(dataset, config.expression).facts(),
            "strongest": strongest(dataset),
            "fps": config.rate,
        }

    def __init__(self, config: GanConfig, facts: Facts) -> None:
        self.config, self.facts = config, facts
        self.expression = Expression.of(facts["expression"])

    def build(self) -> ExpressionGan:
        c = self.config
        return ExpressionGan(
            len(self.expression), len(EMOTIONS), noise=c.noise, width=c.width, layers=c.layers, features=c.features,
            local=c.local, temporal=c.temporal,
        )  # fmt: skip

    def step(self, model: torch.nn.Module, batch: Batch, rng: torch.Generator, phase: str) -> Step:
        """A phase's loss over the sequences of the strongest intensity."""
        real, which = self.prepare(batch)
        noise = torch.randn(len(which), self.config.noise, generator=rng, device=which.device)
        if not len(which):
            return Step(0 * sum((p.sum() for p in model.parameters() if p.requires_grad), noise.sum()))
        loss = {"discriminator": self.tell_apart, "generator": self.deceive}[phase]
        return loss(model, real, which, noise)

    def prepare(self, batch: Batch) -> tuple[Float[torch.Tensor, "b frames numbers"], Int64[torch.Tensor, " b"]]:
        """Normalised sequences that can be learned from, and their emotions by number."""
        rows = batch[self.config.expression].float()
        sequence = self.expression.of_column(rows)
        known = torch.isfinite(sequence).all(-1)
        labels = zip(batch["emotion"], batch["intensity"], strict=True)
        wanted = torch.tensor([self.is_strong(*label) for label in labels], device=rows.device)
        good = wanted & (known.float().mean(1) > MOST_MISSING)
        which = [EMOTIONS.index(e) for e, g in zip(batch["emotion"], good.tolist(), strict=True) if g]
        return filled(sequence[good]), torch.tensor(which, dtype=torch.int64, device=rows.device)

    def is_strong(self, emotion: str | None, intensity: int | None) -> bool:
        """Whether a clip is neutral, or of the strongest intensity that the data has of its emotion."""
        levels = self.facts["strongest"]
        return emotion is not None and emotion in levels and (emotion == NEUTRAL or intensity == levels[emotion])

    def tell_apart(self, model: torch.nn.Module, real: torch.Tensor, which: torch.Tensor, noise: torch.Tensor) -> Step:
        """Eq. 17 and 18: real against made, whole and frame by frame; and the emotion of real sequences."""
        emotion = one_hot(which)
        with torch.no_grad():
            made = model("make", emotion, noise, self.config.frames)
        true, named, frames = model("judge", real, emotion)
        false, _, made_frames = model("judge", made, emotion)
        loss = mean(F.softplus(-true)) + mean(F.softplus(false)) + self.config.named * naming(named, which)
        if frames is not None:
            loss = loss + mean(F.softplus(-frames)) + mean(F.softplus(made_frames))
        right = 0.5 * (mean((true > 0).float()) + mean((false <= 0).float()))
        return Step(loss, {"discriminator_accuracy": right, "named_real": accuracy(named, which)})

    def deceive(self, model: torch.nn.Module, real: torch.Tensor, which: torch.Tensor, noise: torch.Tensor) -> Step:
        """Eq. 19, non-saturating: be taken for real, be named rightly, and follow the real sequence."""
        emotion = one_hot(which)
        made = model("make", emotion, noise, self.config.frames)
        taken, named, frames = model("judge", made, emotion)
        adversarial = mean(F.softplus(-taken)) + (0 if frames is None else mean(F.softplus(-frames)))
        error = mean((model("make", emotion, noise, self.config.frames, real) - real).square())
        loss = adversarial + self.config.named * naming(named, which) + self.config.mse * error
        spread = mean(made.detach().std(1, correction=0))
        return Step(loss, {"mse": error, "adversarial": adversarial, "named_made": accuracy(named, which),
                           "movement": spread})  # fmt: skip

    def evaluate(self, model: torch.nn.Module, batches: Iterable[Batch], rng: torch.Generator) -> dict[str, float]:
        """How far made sequences are from real ones, over all of each emotion.

        ``loss``: squared distance of mean and deviation of each number, averaged over emotions. ``spread``: deviation
        over noise of sequences of one emotion, as a share of the deviation among real ones; near 0 is a collapse.
        """
        pairs: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = defaultdict(list)
        judged: list[torch.Tensor] = []
        for batch in batches:
            real, which = self.prepare(batch)
            if not len(which):
                continue
            noise = torch.randn(len(which), self.config.noise, generator=rng, device=which.device)
            made = model("make", one_hot(which), noise, self.config.frames)
            told, named, _ = model("judge", made, one_hot(which))
            true, _, _ = model("judge", real, one_hot(which))
            judged += [torch.stack([(named.argmax(1) == which), told <= 0, true > 0]).float()]
            for number in which.unique().tolist():
                pairs[number].append((real[which == number], made[which == number]))
        right = torch.cat(judged, 1).mean(1).tolist() if judged else [float("nan")] * 3
        found = [moments(*map(torch.cat, zip(*p, strict=True))) for p in pairs.values()]
        distance, spread = np.mean(found, axis=0).tolist() if found else (float("nan"), float("nan"))
        return {"loss": distance, "spread": spread, "named_made": right[0],
                "discriminator_accuracy": (right[1] + right[2]) / 2}  # fmt: skip

    def picture(self, model: torch.nn.Module, batch: Batch, rng: torch.Generator) -> UInt8[np.ndarray, "h w 3"]:
        """Real sequences (left) and made ones of the same emotion (right)."""
        real, which = self.prepare(batch)
        real, which = real[:4], which[:4]
        if not len(which):
            real, which = real.new_zeros(1, *real.shape[1:]), which.new_zeros(1)
        noise = torch.randn(len(which), self.config.noise, generator=rng, device=which.device)
        made = model("make", one_hot(which), noise, self.config.frames)
        return np.concatenate(
            [np.concatenate([self._drawn(s) for s in pair], axis=1) for pair in zip(real, made, strict=True)]
        )

    def _drawn(self, sequence: torch.Tensor) -> np.ndarray:
        known = [name for name in SHOWN if name in self.expression.names]
        names = known or list(self.expression.names[:DRAWN])
        values = sequence.detach().cpu().numpy() * self.expression.std + self.expression.mean
        return curves({name: values[:, self.expression.names.index(name)] for name in names})

    @torch.no_grad()
    def sequences(
        self, net: torch.nn.Module, emotion: str, k: Float[torch.Tensor, " frames"], rng: torch.Generator, *,
        variants: int = 1, sign: Sign = "towards",
    ) -> Float[torch.Tensor, "variants frames numbers"]:  # fmt: skip
        """Normalised expressions of an intensity a frame: neutral and emotion from the same noise (Eq. 14, 15).

        Raises ConfigError for an emotion that the run's data did not have.
        """
        if missing := [e for e in (emotion, NEUTRAL) if e not in self.facts["strongest"]]:
            raise ConfigError(
                f"the expression run has learned no {missing[0]}; it knows {', '.join(self.facts['strongest'])}. Train "
                "it on data with that label: toolkit stats DATASET"
            )
        noise = torch.randn(variants, self.config.noise, generator=rng, device=rng.device)
        made = [
            net("make", one_hot(torch.full((variants,), EMOTIONS.index(e), device=rng.device)), noise, len(k))
            for e in (NEUTRAL, emotion)
        ]
        return dialled(made[0], made[1], k.to(rng.device), sign)


def strongest(dataset: Dataset) -> dict[str, int | None]:
    """The highest intensity of each emotion. Raises ConfigError for a dataset without emotions."""
    found: dict[str, int | None] = {}
    for emotion, level in zip(*(dataset.clips.column(c).to_pylist() for c in ("emotion", "intensity")), strict=True):
        if emotion is not None:
            levels = [v for v in (found.get(emotion), level) if v is not None]
            found[emotion] = max(levels, default=None)
    if not found:
        raise ConfigError(
            f"{dataset.url}: no clip has an emotion. Ingest with a layout that has labels, or a list of files with a "
            "column emotion: toolkit ingest clips.csv --out ..."
        )
    return dict(sorted(found.items()))


def one_hot(which: Int64[torch.Tensor, " b"]) -> Float[torch.Tensor, "b emotions"]:
    return F.one_hot(which, len(EMOTIONS)).float()


def mean(values: torch.Tensor) -> torch.Tensor:
    """0 of nothing, with a gradient."""
    return values.sum() / max(values.numel(), 1)


def naming(logits: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    return mean(F.cross_entropy(logits, which, reduction="none"))


def accuracy(logits: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    return mean((logits.argmax(1) == which).float())


def moments(real: Float[torch.Tensor, "n frames d"], made: Float[torch.Tensor, "n frames d"]) -> tuple[float, float]:
    """Squared distance of means and deviations, and the spread of sequences' means as a share of the real one."""
    sides = [(s.mean((0, 1)), s.std((0, 1), correction=0), s.mean(1).std(0, correction=0).mean()) for s in (real, made)]
    distance = sum((a - b).square().mean() for a, b in zip(sides[0][:2], sides[1][:2], strict=True))
    return float(distance), float(sides[1][2] / sides[0][2].clamp(min=1e-6))
