"""Decoding sound to 16 kHz mono on the source clock."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from typing import Any, Self

import av
import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.container import InputContainer
from av.stream import Stream
from jaxtyping import Float, Int16, Int64

from talkface.clip import NS
from talkface.media.container import (
    Clock,
    open_media,
    picture_stream,
    read_only,
    require_picture,
    sound_stream,
    start_of,
    zero_of,
)
from talkface.media.picture import packets, seek
from talkface.vocab import SAMPLE_RATE

STEP_NS = NS // SAMPLE_RATE
"""Nanoseconds a sample: 62500, exactly."""

_BREAK_NS = 10_000_000
"""A jump of the timestamps by more than this, that also most of the next packets share, is a gap or an overlap."""

_LOOKAHEAD = 5
_FOLLOW = 25
"""Packets that say whether a jump lasts, and past ones that say what to expect."""

_WARP_NS = 1_000_000
"""Drift within a run of up to this is left alone: the run is placed at its median time."""

LEAST = SAMPLE_RATE // 1000
"""Samples: shorter gaps and overlaps than this, a millisecond, are rounding."""

_PREROLL_NS = NS
_TAIL_NS = NS // 2
_UNTIMED = {"mp3", "aac", "ac3", "eac3", "au"}
"""Sound files without timestamps: a seek in them lands at an estimate, so they are read from the start."""


Spans = tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Sound:
    """Sound of a span of the source clock: sample i at ``start_ns + i * 62500``, silence where there was none.

    ``present`` says whether the source has a sound stream at all; without one all samples are 0 and the whole span is
    a gap. ``gaps`` are the spans, in source ns, that no decoded sound covers, late starts and early ends included;
    ``overlaps`` those for which there was sound twice, of which the earlier was kept.
    ``start_offset_ms`` is the start of the sound stream minus the start of the picture stream (NaN if either is
    missing). ``drift_ms`` is the presentation time that passed minus the time that the samples say passed
    (count / rate), over the sound in the span, gaps not counted: what a tool that counts samples gets wrong, positive
    where it would hear the sound too early.
    """

    samples: Int16[np.ndarray, " samples"]
    start_ns: int
    present: bool
    gaps: Spans = ()
    overlaps: Spans = ()
    start_offset_ms: float = float("nan")
    drift_at_ns: Int64[np.ndarray, " knots"] = field(default_factory=lambda: np.zeros(1, np.int64))
    drift_by_ms: Float[np.ndarray, " knots"] = field(default_factory=lambda: np.zeros(1))

    @property
    def end_ns(self) -> int:
        """End of the last sample, source ns."""
        return self.start_ns + len(self.samples) * STEP_NS

    @property
    def filled_seconds(self) -> float:
        """How much of the span is silence because there was no sound."""
        return sum(b - a for a, b in self.gaps) / NS

    @property
    def dropped_seconds(self) -> float:
        """How much sound was left out because its place was taken."""
        return sum(b - a for a, b in self.overlaps) / NS

    @property
    def drift_ms(self) -> float:
        """Drift over the whole span, in ms."""
        return float(self.drift_by_ms[-1] - self.drift_by_ms[0])

    def between(self, start_ns: int, end_ns: int) -> Self:
        """The part that covers ``[start_ns, end_ns)``, with its own gaps and drift; zeros beyond what was read.

        The first sample is the one nearest to ``start_ns``: at most 31.25 us away.
        """
        first = round((start_ns - self.start_ns) / STEP_NS)
        samples = np.zeros(n_samples(start_ns, end_ns), np.int16)
        low, high = max(first, 0), min(first + len(samples), len(self.samples))
        if low < high:
            samples[low - first : high - first] = self.samples[low:high]
        inside = (self.drift_at_ns > start_ns) & (self.drift_at_ns < end_ns)
        at = np.concatenate([[start_ns], self.drift_at_ns[inside], [end_ns]]).astype(np.int64)
        return type(self)(
            samples=samples,
            start_ns=start_ns,
            present=self.present,
            gaps=_within(self.gaps, start_ns, end_ns),
            overlaps=_within(self.overlaps, start_ns, end_ns),
            start_offset_ms=self.start_offset_ms,
            drift_at_ns=at,
            drift_by_ms=np.interp(at, self.drift_at_ns, self.drift_by_ms),
        )


def _within(spans: Spans, start_ns: int, end_ns: int) -> Spans:
    return tuple((max(a, start_ns), min(b, end_ns)) for a, b in spans if a < end_ns and b > start_ns)


def n_samples(start_ns: int, end_ns: int) -> int:
    """How many samples cover ``[start_ns, end_ns)``."""
    return max(0, -((start_ns - end_ns) // STEP_NS))


def read_sound(uri: str, start_ns: int, end_ns: int, *, clock_of: str | None = None) -> Sound:
    """Sound of ``[start_ns, end_ns)`` as 16 kHz mono, placed by presentation time.

    Jumps of the timestamps against the sample count become silence, or crop what overlaps; jitter of single packets is
    ignored; drift is followed by stretching the sound. ``clock_of`` is the picture file that a separate sound file
    belongs to: the sound's start is then the zero of that file's clock. Memory grows with the span, not with the file.

    Raises MediaError with reason ``missing``, ``empty``, ``not_media`` or ``unreadable``. A file without sound is no
    error: see ``Sound.present``.
    """
    with open_media(uri) as container:
        stream = sound_stream(container)
        offset_ms = _offset_ms(container) if clock_of is None else _apart_offset_ms(clock_of)
        if stream is None:
            return Sound(
                samples=np.zeros(n_samples(start_ns, end_ns), np.int16),
                start_ns=start_ns,
                present=False,
                gaps=((start_ns, end_ns),),
            )
        read_only(container, stream)
        clock = Clock(stream.time_base or Fraction(1), zero_of(container))
        page = _Page(start_ns, end_ns)
        for run in _runs(_blocks(container, stream, clock, start_ns, end_ns)):
            page.place(run)
    return page.sound(offset_ms)


def _offset_ms(container: InputContainer) -> float:
    picture, sound = picture_stream(container), sound_stream(container)
    if picture is None or sound is None:
        return float("nan")
    return float((start_of(sound) - start_of(picture)) * 1000)


def _apart_offset_ms(picture_uri: str) -> float:
    with open_media(picture_uri) as container:
        return float((zero_of(container) - start_of(require_picture(picture_uri, container))) * 1000)


@dataclass(frozen=True, slots=True)
class _Block:
    """One decoded frame of sound and its source time; None where the container gives none."""

    start_ns: int | None
    frame: AudioFrame

    @property
    def length_ns(self) -> float:
        return float(self.frame.samples * NS / self.frame.sample_rate)

    def without(self, n: int) -> "_Block":
        """The block less its first ``n`` samples."""
        if n == 0 or self.start_ns is None:
            return self
        planar = self.frame.format.is_planar
        data = self.frame.to_ndarray()[:, n * (1 if planar else self.frame.layout.nb_channels) :]
        frame = AudioFrame.from_ndarray(
            np.ascontiguousarray(data), format=self.frame.format.name, layout=self.frame.layout.name
        )
        frame.sample_rate = self.frame.sample_rate
        return _Block(self.start_ns + round(n * NS / frame.sample_rate), frame)

    @property
    def kind(self) -> tuple[str, str, int]:
        return self.frame.format.name, self.frame.layout.name, self.frame.sample_rate


def _blocks(container: InputContainer, stream: Stream, clock: Clock, start_ns: int, end_ns: int) -> Iterator[_Block]:
    """Decoded sound that covers the span, from a little before it to a little after."""
    seekable = container.format.name not in _UNTIMED and start_ns > _PREROLL_NS
    if seekable and seek(container, stream, clock.ticks(start_ns - _PREROLL_NS)):
        first = next(_decode(container, stream, clock), None)
        late = first is None or first.start_ns is None or first.start_ns > start_ns
        seek(container, stream, (stream.start_time or 0) if late else clock.ticks(start_ns - _PREROLL_NS))
    blocks = _decode(container, stream, clock)
    for block in _aligned(blocks, start_ns):
        if block.start_ns is not None:
            if block.start_ns > end_ns + _TAIL_NS:
                return
            if block.start_ns + block.length_ns < start_ns - _PREROLL_NS:
                continue
        yield block


def _decode(container: InputContainer, stream: Stream, clock: Clock) -> Iterator[_Block]:
    for packet in packets(container, stream):
        try:
            frames: list[Any] = packet.decode() if packet is not None else []
        except av.error.FFmpegError:
            continue
        for frame in frames:
            yield _Block(clock.ns(frame.pts) if frame.pts is not None else None, frame)


def _aligned(blocks: Iterator[_Block], grid_ns: int) -> Iterator[_Block]:
    """Drop the first few samples of sound that starts before the span, so that the rest falls on the span's samples.

    Sound that is read in parts then equals sound that is read whole.
    """
    first = next(blocks, None)
    if first is None:
        return
    if first.start_ns is not None and first.start_ns < grid_ns - _PREROLL_NS // 2:
        at = first.start_ns + np.arange(first.frame.samples) * (NS / first.frame.sample_rate) - grid_ns
        off = np.abs(at - np.round(at / STEP_NS) * STEP_NS)
        # Of equally good ones the earliest: timestamps are only good to a ns or two.
        first = first.without(int(np.argmax(off <= off.min() + 5)))
    yield first
    yield from blocks


@dataclass
class _Run:
    """Sound without a break: samples at 16 kHz from ``start_ns`` on, by count.

    ``late_ns[i]`` is how much later block i was presented than the count says, at ``at_ns[i]`` since the start.
    """

    start_ns: int
    chunks: list[np.ndarray] = field(default_factory=list)
    at_ns: list[float] = field(default_factory=list)
    late_ns: list[float] = field(default_factory=list)
    length_ns: float = 0.0

    def lateness(self, block: _Block, ahead_ns: float = 0.0) -> float | None:
        """How much later than expected a block comes that follows the last one after ``ahead_ns`` of sound."""
        if block.start_ns is None:
            return None
        recent = self.late_ns[-_FOLLOW:]
        offset = float(np.median(recent)) if recent else 0.0
        return block.start_ns - self.start_ns - self.length_ns - ahead_ns - offset

    def breaks(self, coming: list[_Block]) -> bool:
        """Whether the first of the coming blocks does not continue the run: it and most after it jump."""
        jumps, ahead_ns = [], 0.0
        for block in coming:
            jump = self.lateness(block, ahead_ns)
            jumps += [] if jump is None else [jump]
            ahead_ns += block.length_ns
        if coming[0].start_ns is None or not jumps:
            return False
        return abs(jumps[0]) > _BREAK_NS and abs(float(np.median(jumps))) > _BREAK_NS

    def add(self, block: _Block, resampler: AudioResampler) -> None:
        if block.start_ns is not None:
            self.at_ns.append(self.length_ns)
            self.late_ns.append(block.start_ns - self.start_ns - self.length_ns)
        self.length_ns += block.length_ns
        self.take(resampler, block.frame)

    def take(self, resampler: AudioResampler, frame: AudioFrame | None) -> None:
        if frame is not None:
            frame.pts = None
        self.chunks += [out.to_ndarray().reshape(-1) for out in resampler.resample(frame)]

    def smooth_late(self) -> tuple[np.ndarray, np.ndarray]:
        """Knots of the drift: ns since the start, and lateness in ns with the jitter taken out."""
        if not self.late_ns:
            return np.zeros(1), np.zeros(1)
        at, late = np.array(self.at_ns), np.array(self.late_ns)
        bins = np.arange(len(at)) * max(1, round(self.length_ns / NS)) // len(at)
        middles = np.array([at[bins == b].mean() for b in range(bins[-1] + 1)])
        medians = np.array([np.median(late[bins == b]) for b in range(bins[-1] + 1)])
        return _line_or_knots(middles, medians, self.length_ns, float(np.median(np.abs(late - medians[bins]))))


def _line_or_knots(at: np.ndarray, late: np.ndarray, length: float, jitter: float) -> tuple[np.ndarray, np.ndarray]:
    """A straight line where the lateness follows one but for its jitter, as clocks that differ make it; else knots."""
    if len(at) > 2:
        slope, base = np.polyfit(at, late, 1)
        if np.abs(late - base - slope * at).max() <= _WARP_NS + jitter:
            return np.array([0.0, length]), np.array([base, base + slope * length])
    return _to_ends(at, late, length)


def _to_ends(at: np.ndarray, late: np.ndarray, length: float) -> tuple[np.ndarray, np.ndarray]:
    """Knots from 0 to ``length``: the outer ones continue the first and the last slope."""
    if len(at) < 2:
        return np.array([0.0, length]), np.repeat(late, 2)
    slopes = np.diff(late) / np.diff(at)
    first, last = late[0] - slopes[0] * at[0], late[-1] + slopes[-1] * (length - at[-1])
    return np.array([0.0, *at, length]), np.array([first, *late, last])


def _runs(blocks: Iterator[_Block]) -> Iterator[_Run]:
    coming = deque(islice(blocks, _LOOKAHEAD))
    run: _Run | None = None
    kind, resampler = None, AudioResampler()
    while coming:
        block = coming[0]
        if run is None or block.kind != kind or run.breaks(list(coming)):
            start_ns = block.start_ns
            if run is not None:
                run.take(resampler, None)
                start_ns = start_ns if start_ns is not None else run.start_ns + round(run.length_ns)
                yield run
            run, kind = _Run(start_ns or 0), block.kind
            resampler = AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        run.add(block, resampler)
        coming.popleft()
        coming.extend(islice(blocks, 1))
    if run is not None:
        run.take(resampler, None)
        yield run


class _Page:
    """The samples of a span, filled run by run."""

    def __init__(self, start_ns: int, end_ns: int) -> None:
        self.start_ns = start_ns
        self.samples = np.zeros(n_samples(start_ns, end_ns), np.int16)
        self.covered: list[tuple[int, int]] = []
        self.overlaps: list[tuple[int, int]] = []
        self.drift_at: list[float] = []
        self.drift_by: list[float] = []

    def place(self, run: _Run) -> None:
        """Write a run's samples where they are presented; what is already written stays."""
        y = np.concatenate(run.chunks) if run.chunks else np.zeros(0, np.int16)
        at, late = run.smooth_late()
        self._note_drift(run.start_ns, at, late)
        if np.ptp(late) <= _WARP_NS:
            first = round((run.start_ns + float(np.median(late)) - self.start_ns) / STEP_NS)
        else:
            first, y = _stretched(y, run.start_ns - self.start_ns, at, late)
        written = self.covered[-1][1] if self.covered else 0
        low, high = max(first, written, 0), min(first + len(y), len(self.samples))
        if min(written, high) - max(first, 0) > LEAST:
            self.overlaps.append((max(first, 0), min(written, high)))
        if low < high:
            self.samples[low:high] = y[low - first : high - first]
            self.covered.append((low, high))

    def _note_drift(self, start_ns: int, at: np.ndarray, late: np.ndarray) -> None:
        base = self.drift_by[-1] if self.drift_by else 0.0
        self.drift_at += list(start_ns + at + late)
        self.drift_by += list(base + (late - late[0]) / 1e6)

    def sound(self, offset_ms: float) -> Sound:
        end_ns = self.start_ns + len(self.samples) * STEP_NS
        at = np.array(self.drift_at or [self.start_ns]).round().astype(np.int64)
        whole = Sound(
            samples=self.samples,
            start_ns=self.start_ns,
            present=True,
            gaps=self._spans(self._gaps()),
            overlaps=self._spans(self.overlaps),
            start_offset_ms=offset_ms,
            drift_at_ns=at,
            drift_by_ms=np.array(self.drift_by or [0.0]),
        )
        return whole.between(self.start_ns, end_ns)

    def _gaps(self) -> Iterator[tuple[int, int]]:
        edges = [0, *(edge for span in self.covered for edge in span), len(self.samples)]
        return ((low, high) for low, high in zip(edges[::2], edges[1::2], strict=True) if high - low > LEAST)

    def _spans(self, samples: Iterable[tuple[int, int]]) -> Spans:
        return tuple((self.start_ns + a * STEP_NS, self.start_ns + b * STEP_NS) for a, b in samples)


def _stretched(y: np.ndarray, start_ns: float, at: np.ndarray, late: np.ndarray) -> tuple[int, np.ndarray]:
    """Samples by count, resampled to the grid on which they are presented; also the grid's first index."""
    edges = np.array([0.0, len(y) * STEP_NS])
    counted = np.union1d(edges, at[(at > 0) & (at < edges[1])])
    shown = start_ns + counted + np.interp(counted, at, late)
    first = int(np.ceil(shown[0] / STEP_NS))
    grid = np.arange(first, int(shown[-1] // STEP_NS), dtype=np.float64) * STEP_NS
    return first, _sinc(y, np.interp(grid, shown, counted) / STEP_NS)


def _sinc(y: np.ndarray, x: np.ndarray, half: int = 16, phases: int = 4096, step: int = 1 << 14) -> np.ndarray:
    """``y`` at fractional indices ``x``: Hann-windowed sinc of ``2 * half`` taps, to 1 / ``phases`` of a sample."""
    taps = np.arange(1 - half, half + 1)
    distance = np.arange(phases + 1)[:, None] / phases - taps
    kernels = (np.sinc(distance) * (0.5 + 0.5 * np.cos(np.pi * distance / half))).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(y.astype(np.float32), half), 2 * half)
    out = np.empty(len(x), np.int16)
    for low in range(0, len(x), step):
        at = x[low : low + step]
        base = np.floor(at).astype(int)
        values = np.einsum("ij,ij->i", windows[base + 1], kernels[np.rint((at - base) * phases).astype(int)])
        out[low : low + step] = np.clip(np.rint(values), -32768, 32767)
    return out
