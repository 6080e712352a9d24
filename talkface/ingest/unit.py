"""Work units: what one worker turns into one pack, with what settings, and what that cost."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from talkface.clip import NS, Source
from talkface.config import Pack
from talkface.weights import Models


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A span of a source that one worker turns into one pack. ``end_ns`` None is the end of the source.

    ``name`` is the pack's: it says content and configuration, but neither name nor labels of the source. ``key`` is the
    start of its clips' keys.
    """

    name: str
    key: str
    source: Source
    start_ns: int
    end_ns: int | None

    @property
    def seconds(self) -> float:
        """Length by the container's headers."""
        duration = self.source.probe.duration if self.source.probe else 0.0
        return max(0.0, (duration if self.end_ns is None else self.end_ns / NS) - self.start_ns / NS)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is the same for all units of a run."""

    pack: Pack
    packs_url: str
    models: Models
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class UnitReport:
    """What a unit cost: CPU seconds by stage, and frames decoded. ``failed`` tells of clips annotators could not do."""

    cpu: dict[str, float]
    frames: int
    clips: int
    failed: tuple[str, ...] = ()


@dataclass
class Stopwatch:
    """CPU seconds of this process by stage; those of a stage within another are the inner one's alone."""

    cpu: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        outside = time.process_time() - sum(self.cpu.values())
        try:
            yield
        finally:
            self.cpu[stage] += time.process_time() - sum(self.cpu.values()) - outside
