"""The sync expert: do a mouth and a sound belong together?

DREAM-Talk 3.3 and MagicTalk 3.3 (after Wav2Lip's expert): two encoders, cosine, binary cross-entropy, on mouth shapes
instead of pictures. Negatives are the sound of another moment and of another clip. With ``encoders=canonical`` both
sides start from canonical correlations, found in closed form while the data is looked at.
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final, Literal, Self

import numpy as np
import torch
from jaxtyping import Float, UInt8
from pydantic import Field, model_validator

from talkface.clip import NS
from talkface.datasets.loading.loader import Batch
from talkface.datasets.loading.windows import Windows
from talkface.datasets.reader import Dataset
from talkface.datasets.resample import resample
from talkface.metrics.base import Face
from talkface.motion import steady_pts
from talkface.nets.cca import CcaSync, n_cepstra
from talkface.nets.lip import BlendshapeSyncNet
from talkface.render.overlay import curves
from talkface.train.base import Facts, Step, TaskConfig, Training
from talkface.train.inputs.audio_features import SoundFacts
from talkface.train.inputs.cca import PLACED_BY, fit_cca, lateness, placed_by_mel
from talkface.train.inputs.mouth import (
    MOUTH_INDEX,
    area_under_curve,
    every_window,
    lively,
    mouth_facts,
    mouth_of,
    of_chosen,
    sound_facts,
    sound_of,
)
from talkface.train.meters import Means

SMALLEST = 1e-6
LEAST_WIDTH = 8
GOOD_PAIRS: Final = 0.75
"""DREAM-Talk, after Wav2Lip: cross-entropy of right and wrong pairs."""
GOOD_SHIFTS: Final = 0.68
"""Cross-entropy of telling the right sound from one wrong one; who guesses has ln 2 = 0.693."""
GOOD_AUC: Final = 0.6
"""Area under the curve of right against wrong sounds: who knows nothing has 0.5, and passes `GOOD_PAIRS`."""


class SyncConfig(TaskConfig):
    """What changes a sync expert."""

    frames: int = Field(8, ge=2, description="T, frames of a window of mouth or sound")
    reach: int = Field(15, ge=1, description="most frames by which sound is shifted")
    nearest: int = Field(2, ge=1, description="fewest frames by which sound is shifted to be wrong")
    context: int = Field(6, ge=0, description="frames of sound at both ends that windows leave to their neighbours")
    rate: float = Field(25.0, gt=0, description="frames a second")
    stride: int = Field(8, ge=1, description="frames from one training window to the next")
    sound: Literal["ctc", "w2v", "speech", "mel"] = Field("ctc", description="column of the sound's features")
    encoders: Literal["convolutions", "canonical"] = Field(
        "convolutions",
        description="the papers' encoders; or small ones that start from canonical correlations (mel or speech)",
    )
    width: int = Field(
        512, ge=0, description="of the encoders; of what canonical ones add to their directions, 0: none"
    )
    dropout: float = Field(0.0, ge=0, lt=1)
    loss: Literal["pairs", "shifts"] = Field(
        "pairs",
        description="pairs: cross-entropy of right and wrong pairs; shifts: which of many sounds is the right one",
    )
    temperature: float = Field(0.1, gt=0, description="of the cosines, with loss shifts")
    wrongs: int = Field(4, ge=1, description="wrong shifts of each window's own sound, with loss shifts")
    foreign: bool = Field(True, description="the batch's sounds of other clips are wrong, too, with loss shifts")

    @model_validator(mode="after")
    def _fits_the_encoders(self) -> Self:
        if self.encoders == "canonical" and self.sound not in ("mel", "speech"):
            raise ValueError(f"encoders=canonical needs sound=mel or sound=speech, not {self.sound}")
        if self.encoders == "convolutions" and self.width < LEAST_WIDTH:
            raise ValueError(f"width of convolutions is {LEAST_WIDTH} at least, not {self.width}")
        return self

    @property
    def good_loss(self) -> float:
        """Held-out loss below which an expert may teach."""
        return {"pairs": GOOD_PAIRS, "shifts": GOOD_SHIFTS}[self.loss]

    @property
    def length(self) -> int:
        """Frames of a training window: the mouth's, and the reach of the sound on both sides."""
        return self.frames + 2 * (self.reach + self.context)

    @property
    def windows(self) -> Windows:
        return Windows(length=self.length, fps=self.rate, columns=("arkit", self.sound), stride=self.stride)

    @property
    def needs(self) -> tuple[str, ...]:
        """Canonical encoders put sound in its place by mel, whatever they then listen to."""
        placed_by = (PLACED_BY,) if self.encoders == "canonical" else ()
        return tuple(dict.fromkeys((*self.windows.columns, *placed_by)))


CANONICAL: Final[Mapping[str, Any]] = {
    "sound": "mel", "encoders": "canonical", "width": 0, "loss": "shifts", "temperature": 0.1, "foreign": False,
    "wrongs": 8,
}  # fmt: skip
PAPER = Training(
    steps=100_000, batch_size=64, optimizer="adam", learning_rate=1e-4, evaluate_every=1000, save_every=1000
)
TINY = Training(
    steps=40, batch_size=32, learning_rate=3e-3, warmup=10, ema=0.9, evaluate_every=20, evaluate_batches=4,
    save_every=40,
)  # fmt: skip


class Task:
    """The task ``sync_expert``."""

    version: ClassVar = 1
    Config = SyncConfig
    presets: ClassVar[Mapping[str, TaskConfig]] = {
        "tiny": SyncConfig(training=TINY, **CANONICAL),
        "paper": SyncConfig(training=PAPER),
        "modern": SyncConfig(
            training=TINY.model_copy(update={"steps": 60, "save_every": 60, "evaluate_batches": 16}),
            **{**CANONICAL, "context": 26},
        ),
    }  # fmt: skip

    @classmethod
    def learn(cls, config: SyncConfig, dataset: Dataset) -> Facts:
        """Normalisation of mouth and sound; with canonical encoders also the directions, and by how many ms the sound
        of each clip that they were found in is late."""
        start = config.encoders == "canonical"
        sound = sound_facts(dataset, config.sound, level="own" if start else "data").facts()
        facts: Facts = {"mouth": mouth_facts(dataset), "sound": sound, "fps": config.rate}
        if start:
            fit, about = placed_by_mel(dataset, config.sound, config.rate, config.frames)
            facts |= about
            facts["canonical"] = fit_cca(fit, facts["late"], config.frames).facts()
        return facts

    def __init__(self, config: SyncConfig, facts: Facts) -> None:
        self.config, self.facts = config, facts
        self.sound = SoundFacts.of(facts["sound"])

    def build(self) -> BlendshapeSyncNet | CcaSync:
        c = self.config
        if c.encoders == "canonical":
            start = {name: torch.tensor(value) for name, value in self.facts["canonical"].items()}
            return CcaSync(**start, hidden=c.width, dropout=c.dropout, kept=n_cepstra(len(self.sound.mean)))
        return BlendshapeSyncNet(len(self.sound.mean), len(MOUTH_INDEX), c.frames, c.width, c.dropout)

    def step(self, model: torch.nn.Module, batch: Batch, rng: torch.Generator, phase: str) -> Step:
        """The loss over windows in which every mouth shape is known."""
        mouth, sound, good = self.prepare(batch)
        loss = {"pairs": self._pairs, "shifts": self._shifts}[self.config.loss]
        return Step(loss(model, mouth, sound, good, batch["key"], rng)[0])

    def prepare(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Mouth in the middle of each window (batch, T, 27), sound of the whole window (batch, length, flat), and which
        windows can be used: no frame of the mouth is missing, and there is sound."""
        c = self.config
        shapes, known = mouth_of(batch, self.facts["mouth"])
        mouth = self.centred(shapes, (shapes, known))
        start = c.reach + c.context
        valid = torch.tensor(self.facts["mouth"]["valid"], device=known.device)
        good = (known | ~valid)[:, start : start + c.frames].flatten(1).all(1)
        late, unfit = lateness(batch["key"], self.facts, known.device)
        sound = self.sound.of_window(batch[c.sound].float(), batch["times_ns"], late)
        looked_at = sound[:, c.context : c.context + c.frames + 2 * c.reach, -1]
        good &= (looked_at.min(dim=1).values > 0) & ~unfit
        return mouth[:, start : start + c.frames], sound, good

    def centred(
        self, shapes: Float[torch.Tensor, "*b n 27"], about: tuple[torch.Tensor, torch.Tensor]
    ) -> Float[torch.Tensor, "*b n 27"]:
        """Shapes in deviations of the data from their mean over a window (values, and where they are known): a face's
        own resting mouth says nothing about sync."""
        if self.config.encoders == "canonical":
            valid = torch.tensor(self.facts["mouth"]["valid"], device=shapes.device)
            return torch.where(valid, lively(shapes, about), 0)
        values, known = about
        mean = (values * known).sum(-2, keepdim=True) / known.sum(-2, keepdim=True).clamp(min=1)
        std = torch.tensor(self.facts["mouth"]["std"], device=shapes.device)
        valid = torch.tensor(self.facts["mouth"]["valid"], device=shapes.device)
        return torch.where(valid, (shapes - mean) / std, 0)

    def part(self, sound: torch.Tensor, shift: torch.Tensor) -> Float[torch.Tensor, "batch frames flat"]:
        """The sound of each window's mouth, taken ``shift`` frames later."""
        start = self.config.reach + self.config.context + shift
        index = start[:, None] + torch.arange(self.config.frames, device=sound.device)
        return sound[torch.arange(len(sound), device=sound.device)[:, None], index]

    def _pairs(
        self, model: torch.nn.Module, mouth: torch.Tensor, sound: torch.Tensor, good: torch.Tensor,
        keys: list[str], rng: torch.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
        """Cross-entropy of a right and a wrong pair a window; the cosines of both."""
        n, zero = len(mouth), torch.zeros(len(mouth), dtype=torch.long, device=mouth.device)
        wrong = self.part(sound, self.wrong_shifts(n, rng))
        other, differs = self.other_clip(keys, rng)
        foreign = torch.rand(n, generator=rng, device=mouth.device) < 0.5
        wrong = torch.where((foreign & differs)[:, None, None], self.part(sound[other], zero), wrong)
        m, s = model(torch.cat([mouth, mouth]), torch.cat([self.part(sound, zero), wrong]))
        cosine = self.agreement(m, s).clamp(SMALLEST, 1 - SMALLEST)
        right, false = cosine[:n], cosine[n:]
        each = -(right.log() + (1 - false).log()) / 2
        return (each * good).sum() / good.sum().clamp(min=1), right[good], false[good]

    def _shifts(
        self, model: torch.nn.Module, mouth: torch.Tensor, sound: torch.Tensor, good: torch.Tensor,
        keys: list[str], rng: torch.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
        """Cross-entropy over the same window's sound at wrong shifts, and the sounds of other clips in the batch, of
        which one is right."""
        n, zero, wrongs = len(mouth), torch.zeros(len(mouth), dtype=torch.long, device=mouth.device), self.config.wrongs
        wrong = [self.part(sound, self.wrong_shifts(n, rng)) for _ in range(wrongs)]
        m, s = model(torch.cat([mouth] * (1 + wrongs)), torch.cat([self.part(sound, zero), *wrong]))
        m, s, w = m[:n], s[:n], s[n:].reshape(wrongs, n, -1)
        other_key = torch.tensor([[a != b and self.config.foreign for b in keys] for a in keys], device=mouth.device)
        same = torch.eye(n, dtype=torch.bool, device=mouth.device)
        logits = (m @ s.T).masked_fill(~(other_key & good) & ~same, -torch.inf)
        shifted = (m[None] * w).sum(-1).T
        each = torch.nn.functional.cross_entropy(
            torch.cat([logits, shifted], dim=1) / self.config.temperature, torch.arange(n, device=mouth.device),
            reduction="none",
        )  # fmt: skip
        return (each * good).sum() / good.sum().clamp(min=1), (m * s).sum(-1)[good], shifted[good].flatten()

    def agreement(self, mouth: torch.Tensor, sound: torch.Tensor) -> Float[torch.Tensor, " *batch"]:
        """How well unit vectors of mouth and sound go together, 0..1; cosines of canonical encoders may be negative."""
        cosine = (mouth * sound).sum(-1)
        return (1 + cosine) / 2 if self.config.encoders == "canonical" else cosine

    def wrong_shifts(self, n: int, rng: torch.Generator) -> torch.Tensor:
        """Shifts of ``nearest`` to ``reach`` frames, either way."""
        c = self.config
        size = torch.randint(min(c.nearest, c.reach), c.reach + 1, (n,), generator=rng, device=rng.device)
        return size * (torch.randint(0, 2, (n,), generator=rng, device=rng.device) * 2 - 1)

    def other_clip(self, keys: list[str], rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Another place in the batch for each, and whether another clip is there."""
        n = len(keys)
        other = (torch.arange(n) + int(torch.randint(1, max(n, 2), (1,), generator=rng, device=rng.device))) % n
        differs = torch.tensor([keys[i] != keys[j] for i, j in enumerate(other.tolist())])
        return other.to(rng.device), differs.to(rng.device)

    def evaluate(self, model: torch.nn.Module, batches: Iterable[Batch], rng: torch.Generator) -> dict[str, float]:
        """The loss, and the area under the curve of single windows: right against shifted or foreign sound.

        The loss of ``shifts`` is that of telling the right sound from one wrong one, whatever the size of a batch.
        """
        pairs = self.config.loss == "pairs"
        means, right, false = Means(), [np.zeros(0)], [np.zeros(0)]
        for batch in batches:
            found, one, other = (self._pairs if pairs else self._shifts)(model, *self.prepare(batch), batch["key"], rng)
            off = (other.reshape(len(one), other.numel() // max(len(one), 1)) - one[:, None]) / self.config.temperature
            means.add("loss", found if pairs else torch.nn.functional.softplus(off).mean(), len(one))
            right.append(one.float().cpu().numpy())
            false.append(other.float().cpu().numpy())
        return means.found() | {"auc": area_under_curve(np.concatenate(right), np.concatenate(false))}

    def picture(self, model: torch.nn.Module, batch: Batch, rng: torch.Generator) -> UInt8[np.ndarray, "h w 3"]:
        """The cosine at every shift, mean over the batch: it should peak in the middle."""
        mouth, sound, good = self.prepare(batch)
        by_shift = []
        for shift in range(-self.config.reach, self.config.reach + 1):
            shifts = torch.full((len(mouth),), shift, dtype=torch.long, device=mouth.device)
            m, s = model(mouth, self.part(sound, shifts))
            by_shift.append(float((m * s).sum(-1)[good].mean()))
        return curves({"cosine by shift": np.array(by_shift)}, now=self.config.reach)


class Expert:
    """A trained sync expert as the metrics want it (`talkface.metrics.base.SyncExpert`)."""

    def __init__(self, task: Task, net: BlendshapeSyncNet | CcaSync, annotate: Any) -> None:
        """``annotate`` makes the column that the expert hears of 16 kHz samples."""
        self.task, self.net, self.annotate = task, net, annotate
        self._heard: tuple[Face, np.ndarray] | None = None

    @torch.no_grad()
    def distance(self, face: Face, shift_ns: int) -> Float[np.ndarray, " windows"]:
        """Euclidean distance of both unit vectors in every window of T frames, the sound taken ``shift_ns`` later."""
        mouth, sound = self.embeddings(face, shift_ns)
        return (mouth - sound).norm(dim=-1).numpy()

    @torch.no_grad()
    def embeddings(self, face: Face, shift_ns: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit vectors of mouth and sound of all windows in which no mouth shape is missing."""
        c, facts = self.task.config, self.task.facts["mouth"]
        frames = int((face.pts_ns[-1] - face.pts_ns[0]) * c.rate / NS) + 1 if len(face.pts_ns) else 0
        if frames < c.frames or face.sound is None:
            return torch.zeros(0, 1), torch.zeros(0, 1)
        times = steady_pts(frames, c.rate)
        arkit = resample(face.columns["arkit"], face.pts_ns, times + face.pts_ns[0])
        shapes, known = mouth_of({"arkit": torch.from_numpy(arkit)}, facts)
        mouth = every_window(self.task.centred(shapes, (shapes, known)), c.frames)
        good = every_window((known | ~torch.tensor(facts["valid"])).all(-1), c.frames).all(1)
        rows = self._rows(face)
        heard = sound_of(self.task.sound, rows, times + int(face.pts_ns[0]) + shift_ns, c.rate)[0]
        sound = every_window(heard, c.frames)
        good &= sound[..., -1].min(dim=1).values > 0
        return of_chosen(self.net.embed_mouth, mouth, good), of_chosen(self.net.embed_sound, sound, good)

    def _rows(self, face: Face) -> np.ndarray:
        # The face itself is kept: another one may get its place in memory, and with it its id.
        if self._heard is None or self._heard[0] is not face:
            self._heard = face, self.annotate(face.sound)
        return self._heard[1]
