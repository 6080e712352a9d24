"""Offset between picture and sound, and whether they belong together: from mouth shapes and mel alone."""

from typing import Final

from pydantic import Field

from talkface.annotate._sync import estimate, load_model
from talkface.annotate.base import AnnotatorConfig, ClipView, Result
from talkface.annotate.mel import log_mel
from talkface.clip import NS, ScoreSpec, ns_to_samples, samples_to_ns
from talkface.weights import Models

SHIFT: Final = "sync_shift_ms"
"""The score by which an ingest moves the sound; then all is annotated again."""


class SyncConfig(AnnotatorConfig):
    """What becomes of an offset that was found."""

    fix_offset: bool = Field(
        False, description="shift the sound by whole samples where sync_confidence is above 0 (while ingesting only)"
    )


class Annotator:
    """Scores alone; NaN where nothing can be said: no sound, under 1.5 s, a mouth or a sound that never changes."""

    name = "sync"
    version = 1
    columns = ()
    scores = (
        ScoreSpec(
            name="sync_offset_ms",
            unit="ms",
            description="how much later the sound is than the picture: positive is sound late, -1000 to 1000",
        ),
        ScoreSpec(
            name="sync_confidence",
            unit="log-odds",
            description="that mouth and sound belong together, at whichever offset; 0 is even",
        ),
        ScoreSpec(
            name="sync_margin", unit="0..1", description="by how much of its height the peak stands above the second"
        ),
        ScoreSpec(
            name=SHIFT,
            unit="ms",
            description="by how much the sound was moved to earlier (negative: later); 0 unless fix_offset",
        ),
    )
    needs = ("lm",)
    reads = ("flac",)
    weights = (("sync",),)
    licence = "Apache-2.0"
    Config = SyncConfig

    def __init__(self, config: SyncConfig) -> None:
        self.config = config

    def open(self, models: Models) -> None:
        """Load the model in this package."""
        self._model = load_model()

    def clip(self, view: ClipView) -> Result:
        """The clip's scores."""
        scores = dict.fromkeys((s.name for s in self.scores), float("nan")) | {SHIFT: 0.0}
        meshes, pts_ns = view.table.columns["lm"], view.table.timeline.pts_ns
        offset = estimate(self._model, meshes, pts_ns, log_mel(view.sound)) if view.has_sound else None
        if offset is None:
            return Result(scores=scores)
        confidence = self._model.confidence(offset)
        if self.config.fix_offset and confidence > 0:
            scores[SHIFT] = samples_to_ns(ns_to_samples(round(offset.ms * NS / 1000))) * 1000 / NS
        return Result(
            scores=scores | {"sync_offset_ms": offset.ms, "sync_confidence": confidence, "sync_margin": offset.margin}
        )
