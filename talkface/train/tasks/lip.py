"""Lip refinement: a mouth that follows the sound, in the style of an emotion.

DREAM-Talk 3.3, MagicTalk 3.3 and Fig. 3: Audio2BS makes neutral mouth shapes from sound, the residue adds what the
emotion changes, and the sum replaces the mouth of a motion; everything else stays as it is. With ``start=ridge``
Audio2BS begins as a ridge regression, found in closed form while the data is looked at.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Final, Literal, Self

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from pydantic import Field, model_validator

from talkface.clip import NS
from talkface.datasets.loading.loader import Batch
from talkface.datasets.loading.windows import Windows
from talkface.datasets.reader import Dataset
from talkface.datasets.resample import resample
from talkface.errors import ConfigError, WeightsError
from talkface.motion import Motion, steady_pts
from talkface.nets.cca import CcaSync, RegressedShapes
from talkface.nets.lip import AudioToShapes, BlendshapeSyncNet, LipNet
from talkface.render.overlay import curves
from talkface.train import checkpoint
from talkface.train.base import Facts, Step, TaskConfig, Training
from talkface.train.inputs.audio_features import SoundFacts
from talkface.train.inputs.cca import PLACED_BY, lateness, ridge_facts
from talkface.train.inputs.mouth import (
    CHUNK,
    MOUTH_INDEX,
    SMALLEST,
    average_windows,
    every_window,
    in_style,
    mouth_facts,
    mouth_of,
    sound_facts,
    sound_of,
)
from talkface.train.meters import Means
from talkface.train.protocols import Speech, Style
from talkface.train.tasks.emodiff import draw_frames
from talkface.train.tasks.sync_expert import GOOD_AUC
from talkface.train.tasks.sync_expert import Task as SyncTask
from talkface.vocab import ARKIT, MOUTH

STYLE_FRAMES: Final = 8
LEAST_MOVED: Final = 0.01
"""Deviation over a window of a shape that hardly moves: its noise is not blown up."""

DRAWN: Final = ("jawOpen", "mouthSmileLeft", "mouthFunnel", "mouthLowerDownLeft")


class LipConfig(TaskConfig):
    """What changes a lip model."""

    frames: int = Field(8, ge=2, description="T, frames of a window")
    context: int = Field(6, ge=0, description="frames of sound around a window that its frames look at")
    rate: float = Field(25.0, gt=0, description="frames a second")
    stride: int = Field(4, ge=1, description="frames from one training window to the next")
    sound: Literal["ctc", "w2v", "speech", "mel"] = Field("ctc", description="column of the sound's features")
    neutral: Literal["labelled", "all"] = Field(
        "labelled",
        description="Audio2BS learns from clips labelled neutral, or from all; unlabelled ones count as neutral",
    )
    start: Literal["random", "ridge"] = Field(
        "random", description="the papers' LSTM; or a small network that starts from a ridge regression (mel or speech)"
    )
    hidden: int = Field(256, ge=8, description="width of the LSTM, or of the small network")
    layers: int = Field(3, ge=1, description="of the LSTM")
    dropout: float = Field(0.0, ge=0, lt=1)
    noise: float = Field(0.0, ge=0, description="added to the cepstra while training, with start=ridge")
    level: Literal["data", "style"] = Field(
        "data",
        description="where a refined mouth rests and how far it moves: as the network says, or as in the style's "
        "frames (with start=ridge)",
    )
    distance: Literal["l1", "l2"] = Field("l1", description="of shapes and of their changes; l2 is in deviations")
    correlation: float = Field(
        0.0, ge=0, description="weight of 1 - r over a window, shapes counting by their r so far"
    )
    velocity: float = Field(10.0, ge=0, description="weight of the error of frame-to-frame changes")
    sync: float = Field(0.03, ge=0, description="weight of the sync expert's loss")
    sync_run: str = Field("", description="run of sync_expert that judges; empty: none does")

    @model_validator(mode="after")
    def _ridge_needs_mel(self) -> Self:
        if self.start == "ridge" and self.sound not in ("mel", "speech"):
            raise ValueError(f"start=ridge needs sound=mel or sound=speech, not {self.sound}")
        if self.level == "style" and self.start != "ridge":
            raise ValueError("level=style needs start=ridge, which says how far the sound tells each shape")
        return self

    @property
    def windows(self) -> Windows:
        columns = tuple(dict.fromkeys(("arkit", self.sound)))
        length = self.frames + 2 * self.context
        return Windows(length=length, fps=self.rate, columns=columns, stride=self.stride)

    @property
    def needs(self) -> tuple[str, ...]:
        """A ridge puts sound in its place by mel, whatever it then listens to."""
        placed_by = (PLACED_BY,) if self.start == "ridge" else ()
        return tuple(dict.fromkeys((*self.windows.columns, *placed_by)))

    @property
    def companion(self) -> tuple[str, ...]:
        return ("key",)

    @property
    def companion_columns(self) -> tuple[str, ...]:
        return ("arkit",)


PAPER = Training(
    steps=50_000, batch_size=32, optimizer="adam", learning_rate=1e-4, evaluate_every=1000, save_every=1000
)
TINY = Training(
    steps=300, batch_size=32, learning_rate=2e-3, warmup=20, ema=0.99, evaluate_every=100, evaluate_batches=4,
    save_every=100,
)  # fmt: skip
MODERN = Training(
    steps=150, batch_size=16, learning_rate=2e-3, weight_decay=0.05, warmup=20, schedule="cosine", ema=0.95,
    evaluate_every=50, save_every=150,
)  # fmt: skip


class Task:
    """The task ``lip``."""

    version: ClassVar = 1
    Config = LipConfig
    presets: ClassVar[Mapping[str, TaskConfig]] = {
        "tiny": LipConfig(training=TINY, sound="mel", hidden=64, layers=1, neutral="all"),
        "paper": LipConfig(training=PAPER),
        "modern": LipConfig(
            training=MODERN, sound="mel", neutral="all", start="ridge", hidden=64, dropout=0.5, noise=0.3, frames=64,
            stride=16, velocity=1.0, correlation=1.0, level="style",
        ),
    }  # fmt: skip

    @classmethod
    def learn(cls, config: LipConfig, dataset: Dataset) -> Facts:
        """Normalisation of mouth and sound; which expert judges. Raises ConfigError where Audio2BS has nothing to learn
        from, or the expert is not good enough yet."""
        emotions = set(dataset.clips.column("emotion").to_pylist())
        if config.neutral == "labelled" and not emotions & {"neutral", None}:
            raise ConfigError(f"{dataset.url}: no clip is neutral. Learn from all: --set neutral=all")
        start = config.start == "ridge"
        sound = sound_facts(dataset, config.sound, level="own" if start else "data").facts()
        facts: Facts = {
            "mouth": mouth_facts(dataset), "sound": sound, "style": list(ARKIT), "fps": config.rate,
            "expert": _judge(config),
        }  # fmt: skip
        return facts | (ridge_facts(dataset, config.sound, config.rate) if start else {})

    def __init__(self, config: LipConfig, facts: Facts) -> None:
        self.config, self.facts = config, facts
        self.sound = SoundFacts.of(facts["sound"])

    def build(self) -> LipNet:
        c = self.config
        if c.start == "ridge":
            start = {name: torch.tensor(self.facts["ridge"][name]) for name in ("weights", "rest", "scale")}
            found = RegressedShapes(**start, smallest=SMALLEST, hidden=c.hidden, dropout=c.dropout, noise=c.noise)
            net = LipNet(found, len(ARKIT), len(MOUTH), c.hidden)
            last = net.residue.leave[-2]
            assert isinstance(last, torch.nn.Linear)
            torch.nn.init.zeros_(last.weight)
            torch.nn.init.zeros_(last.bias)
            return net
        plain = AudioToShapes(len(self.sound.mean), len(MOUTH), c.hidden, c.layers, c.dropout)
        net = LipNet(plain, len(ARKIT), len(MOUTH), c.hidden)
        # From a half-open mouth the first thing learned is to be closed and still, which takes long to leave.
        rest = torch.tensor(self.facts["mouth"]["mean"]).clamp(0.01, 0.99)
        torch.nn.init.zeros_(plain.leave.weight)
        with torch.no_grad():
            plain.leave.bias.copy_(torch.logit(rest))
        return net

    def step(self, model: torch.nn.Module, batch: Batch, rng: torch.Generator, phase: str) -> Step:
        """L1 and velocity L1 of the neutral mouth on neutral clips, of the refined mouth on all; the expert's loss."""
        sound, style, mouth, known, neutral_clip = self.prepare(batch, rng)
        neutral, residue = model(sound, style)
        refined = (neutral.detach() + residue).clamp(0, 1)
        first = self.error(neutral, mouth, known & neutral_clip[:, None, None])
        second = self.error(neutral.detach() + residue, mouth, known)
        logs: dict[str, float | torch.Tensor] = {"neutral": first.detach(), "refined": second.detach()}
        loss = first + second
        if self.config.correlation:
            loss = loss + self.config.correlation * self.unlike(neutral, mouth, known & neutral_clip[:, None, None])
        if self.config.sync and self.config.sync_run:
            judged = self.judge(refined, mouth_of(batch, self.facts["mouth"]), batch)
            logs["sync"] = judged.detach()
            loss = loss + self.config.sync * judged
        return Step(loss, logs)

    def prepare(self, batch: Batch, rng: torch.Generator) -> tuple[torch.Tensor, ...]:
        """Sound (batch, T, flat), style (batch, 8, 52), mouth and where it is known (batch, T, 27), neutral clips."""
        middle = slice(self.config.context, self.config.context + self.config.frames)
        sound, unfit = self.heard(self.sound, batch)
        mouth, known = mouth_of(batch, self.facts["mouth"])
        known = known & (sound[..., -1:] > 0).any(dim=1, keepdim=True) & ~unfit[:, None, None]
        style = draw_frames(batch["companion"]["arkit"], STYLE_FRAMES, rng).nan_to_num(0.0)
        every = self.config.neutral == "all"
        neutral = torch.tensor([every or e in ("neutral", None) for e in batch["emotion"]], device=mouth.device)
        return sound, style, mouth[:, middle], known[:, middle], neutral

    def heard(self, sound: SoundFacts, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """The sound of a window's own frames, in its place, and which clips fit nowhere."""
        late, unfit = lateness(batch["key"], self.facts, batch["arkit"].device)
        seen = sound.of_window(batch[self.config.sound].float(), batch["times_ns"], late)
        return seen[:, self.config.context : self.config.context + self.config.frames], unfit

    def error(self, made: torch.Tensor, mouth: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Mean distance of the shapes and, weighted, of their changes, over what is known; 0 where nothing is."""
        off = made - mouth
        changes, both = off.diff(dim=1), known[:, 1:] & known[:, :-1]
        if self.config.distance == "l2":
            std = torch.tensor(self.facts["mouth"]["std"], device=off.device)
            return _mean((off / std) ** 2, known) + self.config.velocity * _mean((changes / std) ** 2, both)
        return _mean(off.abs(), known) + self.config.velocity * _mean(changes.abs(), both)

    def unlike(self, made: torch.Tensor, mouth: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """1 - r over each window, a mean over the shapes by how far the sound told them when the data was looked at."""
        count = known.sum(1, keepdim=True).clamp(min=1)
        one, other = ((v - (v * known).sum(1, keepdim=True) / count) * known for v in (made, mouth))
        least = LEAST_MOVED**2 * count[:, 0]
        r = (one * other).sum(1) / ((one.square().sum(1) + least) * (other.square().sum(1) + least)).sqrt()
        worth = torch.tensor(self.facts["ridge"]["worth"], device=r.device) if "ridge" in self.facts else r.new_ones(27)
        weight = worth * known.any(1)
        return ((1 - r) * weight).sum() / weight.sum().clamp(min=1e-6)

    def judge(self, refined: torch.Tensor, real: tuple[torch.Tensor, torch.Tensor], batch: Batch) -> torch.Tensor:
        """-log of the expert's cosine (DREAM-Talk's L_sync), over every window of the expert's length that it would
        have learned from: with sound, and a real mouth in every frame. 0 where there is none.

        The resting mouth that the expert takes away is that of the ``real`` window, which is longer.
        """
        task, net = self._expert
        n = task.config.frames
        sound, unfit = self.heard(task.sound, batch)
        good = ((sound[..., -1] > 0) & self.seen(real[1])).unfold(1, n, 1).all(-1) & ~unfit[:, None]
        mouth, heard = (v.unfold(1, n, 1).movedim(-1, 2).flatten(0, 1) for v in (task.centred(refined, real), sound))
        m, s = net.to(refined.device)(mouth, heard)
        return _mean(-task.agreement(m, s).clamp(1e-6, 1).log(), good.flatten())

    def seen(self, known: torch.Tensor) -> torch.Tensor:
        """Which of a window's own frames miss no shape that the data has."""
        valid = torch.tensor(self.facts["mouth"]["valid"], device=known.device)
        return (known | ~valid).all(-1)[:, self.config.context : self.config.context + self.config.frames]

    @cached_property
    def _expert(self) -> tuple[SyncTask, BlendshapeSyncNet | CcaSync]:
        model = checkpoint.load(self.config.sync_run, task="sync_expert")
        if model.digest != self.facts["expert"]:
            raise WeightsError(f"{self.config.sync_run}: not the sync expert that this training began with.")
        for parameter in model.net.parameters():
            parameter.requires_grad_(False)
        return model.task, model.net  # type: ignore[return-value]

    def evaluate(self, model: torch.nn.Module, batches: Iterable[Batch], rng: torch.Generator) -> dict[str, float]:
        """The refined mouth's loss, the neutral one's, and how jawOpen goes with the real one (r over all frames; NaN
        where either never moves)."""
        means, jaws = Means(), [np.zeros((2, 0), np.float32)]
        jaw = MOUTH.index("jawOpen")
        for batch in batches:
            sound, style, mouth, known, _ = self.prepare(batch, rng)
            neutral, residue = model(sound, style)
            means.add("loss", self.error(neutral + residue, mouth, known), known.sum())
            means.add("neutral", self.error(neutral, mouth, known), known.sum())
            pair = torch.stack([(neutral + residue)[..., jaw][known[..., jaw]], mouth[..., jaw][known[..., jaw]]])
            jaws.append(pair.float().cpu().numpy())
        every = np.concatenate(jaws, axis=1)
        moves = every.shape[1] > 0 and every.std(axis=1).min() > 0
        return {**means.found(), "jaw_r": float(np.corrcoef(every)[0, 1]) if moves else math.nan}

    def picture(self, model: torch.nn.Module, batch: Batch, rng: torch.Generator) -> UInt8[np.ndarray, "h w 3"]:
        """Real mouths (left) and made ones (right)."""
        sound, style, mouth, known, _ = self.prepare(batch, rng)
        neutral, residue = model(sound[:4], style[:4])
        real = torch.where(known, mouth, torch.nan)[:4].cpu().numpy()
        made = (neutral + residue).clamp(0, 1).float().cpu().numpy()
        rows = [
            np.concatenate([curves({n: v[:, MOUTH.index(n)] for n in DRAWN}) for v in pair], axis=1)
            for pair in zip(real, made, strict=True)
        ]
        return np.concatenate(rows)

    @torch.no_grad()
    def mouth(
        self, net: torch.nn.Module, rows: np.ndarray, times_ns: np.ndarray, style: Float[torch.Tensor, "some 52"]
    ) -> tuple[Float[np.ndarray, "frames 27"], Float[np.ndarray, "frames 27"]]:
        """Neutral and refined mouth at steady times of a whole sound's column; each frame is the mean over its windows.

        A sound shorter than a window is followed by silence as far as the window needs.
        """
        n, device = self.config.frames, next(net.parameters()).device
        wanted = len(times_ns)
        step = round(1e9 / self.config.rate)
        times = np.concatenate([times_ns, times_ns[-1] + step * np.arange(1, max(n - wanted, 0) + 1)])
        sound, looks = every_window(sound_of(self.sound, rows, times, self.config.rate)[0], n), style.to(device)[None]
        made = [net(part.to(device), looks.expand(len(part), -1, -1)) for part in sound.split(CHUNK)]
        neutral, residue = (torch.cat(parts) for parts in zip(*made, strict=True))
        plain, refined = (average_windows(v)[:wanted].cpu().numpy() for v in (neutral, neutral + residue))
        return plain.clip(0, 1), refined.clip(0, 1)

    def refine(self, net: torch.nn.Module, motion: Motion, speech: Speech, style: Style) -> Motion:
        """The motion with another mouth: the 27 shapes of jaw and mouth are replaced, nothing else is touched.

        Shapes that the training data knew nothing of stay, too. The mouth is made at the model's own rate, and brought
        to the motion's times.
        """
        chosen = np.linspace(0, len(style.arkit) - 1, STYLE_FRAMES).round().astype(int)
        look = torch.from_numpy(np.nan_to_num(style.arkit[chosen]))
        times = self.clock(motion.pts_ns)
        _, refined = self.mouth(net, speech.columns[self.config.sound], times, look)
        mouth, arkit = resample(self.levelled(refined, style), times, motion.pts_ns), motion.arkit.copy()
        for column, name in enumerate(MOUTH):
            if self.facts["mouth"]["valid"][column]:
                arkit[:, ARKIT.index(name)] = mouth[:, column]
        others = [i for i in range(len(ARKIT)) if i not in MOUTH_INDEX]
        assert np.array_equal(arkit[:, others], motion.arkit[:, others], equal_nan=True), "only the mouth may change"
        return replace(motion, arkit=arkit)

    def levelled(self, refined: Float[np.ndarray, "frames 27"], style: Style) -> Float[np.ndarray, "frames 27"]:
        """The mouth where `LipConfig.level` wants it."""
        if self.config.level == "data":
            return refined
        start = {name: np.array(value) for name, value in self.facts["ridge"].items()}
        told = np.sqrt(start["worth"] / start["worth"].max())
        return in_style(refined, np.nan_to_num(style.arkit[:, MOUTH_INDEX]), start["scale"] / 2, told)

    def clock(self, pts_ns: Int64[np.ndarray, " frames"]) -> Int64[np.ndarray, " steady"]:
        """Times at the model's rate from the first of some times to the last, or beyond it."""
        steps = math.ceil(round((pts_ns[-1] - pts_ns[0]) * self.config.rate / NS, 3))
        return pts_ns[0] + steady_pts(steps + 1, self.config.rate)


def _mean(values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    return (values * known).sum() / known.sum().clamp(min=1)


def _judge(config: LipConfig) -> str:
    """Digest of the expert's weights; empty without one. Raises ConfigError for one that has not learned enough."""
    if not (config.sync and config.sync_run):
        return ""
    best = checkpoint.best_of(Path(config.sync_run))
    if best is None:
        raise ConfigError(
            f"sync_run {config.sync_run}: was never evaluated on held-out clips. Train it with speakers held out."
        )
    expert = checkpoint.load(config.sync_run, task="sync_expert")
    its, good = expert.task.config, expert.task.config.good_loss
    if its.sound != config.sound:
        raise ConfigError(f"sync_run {config.sync_run}: hears {its.sound}, not {config.sound}.")
    if its.rate != config.rate or its.frames > config.frames:
        raise ConfigError(
            f"sync_run {config.sync_run}: judges {its.frames} frames at {its.rate:g} a second; windows here have "
            f"{config.frames} at {config.rate:g}. Train it with the same rate, and no more frames."
        )
    if best["loss"] >= good:
        raise ConfigError(
            f"sync_run {config.sync_run}: has a held-out loss of {best['loss']:.3f}; below {good} it may teach. "
            "Train it longer."
        )
    if not best.get("auc", math.nan) >= GOOD_AUC:
        raise ConfigError(
            f"sync_run {config.sync_run}: tells the right sound from a wrong one with an area under the curve of "
            f"{best.get('auc', math.nan):.2f} on what is held out; from {GOOD_AUC} on it may teach. Train it longer."
        )
    return expert.digest
