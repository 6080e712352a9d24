"""Inputs to sources: find files, probe them without decoding, hash their content, read labels from list and layout."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal

from talkface.clip import Labels, Probe, Reject, Source
from talkface.errors import ConfigError, MediaError, SourceError, StorageError
from talkface.ingest.inputs import (
    ACCESS_ERRORS,
    READ_AGAIN_SECONDS,
    Found,
    Input,
    content_of,
    exists,
    expand,
    open_binary,
    split_chain,
)
from talkface.ingest.layouts.base import (
    AUTO,
    EMOTION_WORDS,
    PLAIN,
    Layout,
    emotion_of,
    layout_class,
    layout_names,
    load,
)
from talkface.media import probe
from talkface.vocab import EMOTIONS, INTENSITIES

THREADS = 4
"""Files probed and hashed at once: they wait for the disk, and both leave Python's lock."""


@dataclass(frozen=True)
class ScanResult:
    """Usable sources and rejects, in the order of the inputs and, within each, of names.

    ``layout`` is what was used, with a comma between where inputs differ. ``ignored`` counts files in folders that are
    no videos by their ending, sound files among them.
    """

    sources: tuple[Source, ...]
    rejects: tuple[Reject, ...]
    layout: str
    ignored: int = 0


@dataclass(frozen=True)
class _Job:
    found: Found
    layout: Layout
    labels: Labels | None


def scan(
    inputs: Sequence[str],
    layout: str = AUTO,
    *,
    duplicates: Literal["reject", "keep"] = "reject",
    threads: int = THREADS,
    but: str | None = None,
) -> ScanResult:
    """Find, probe, hash and label the sources of ``inputs``: folders, globs, files and lists, as paths or fsspec urls.

    What cannot be used becomes a reject of stage ``scan`` with reason ``missing``, ``empty``, ``not_media``,
    ``no_video``, ``unreadable`` or ``duplicate``; what could not be read now, but perhaps another time, gets
    ``storage``. A list's labels come before the layout's. Files are opened for reading only, and nothing in the folder
    ``but`` is looked at.

    Raises ConfigError for an unknown layout or a list that cannot be used, SourceError if there is nothing at all.
    """
    if layout != AUTO:
        layout_class(layout)
    groups = _unique_names([_with_text_names(group) for group in expand(inputs, but)])
    layouts = [_layout_of(group, layout) for group in groups]
    jobs = [_job(f, used) for group, used in zip(groups, layouts, strict=True) for f in group.found]
    rejects = [r for group in groups for r in group.rejects]
    ignored = sum(group.ignored for group in groups)
    pool = ThreadPoolExecutor(max(threads, 1))
    try:
        examined = list(pool.map(_examine, jobs))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # whoever stops the scan does not wait for what is being read
    sources = [x for x in examined if isinstance(x, Source)]
    rejects += [x for x in examined if isinstance(x, Reject)]
    if duplicates == "reject":
        sources, doubles = _without_duplicates(sources)
        rejects += doubles
    if not sources and all(r.reason in ("missing", "storage") for r in rejects):
        raise SourceError(_nothing(inputs, rejects, ignored), "missing")
    names = dict.fromkeys(used.name for used, group in zip(layouts, groups, strict=True) if group.found)
    return ScanResult(tuple(sources), tuple(rejects), ", ".join(names) or layout, ignored)


def _nothing(inputs: Sequence[str], rejects: Sequence[Reject], ignored: int) -> str:
    if rejects:
        return rejects[0].message
    return f"{', '.join(inputs)}: no videos found ({ignored} other files). Name a folder, a file, a pattern or a list."


def _with_text_names(group: Input) -> Input:
    """Without the files whose names are no text: tables, keys and other programs could not name them."""
    odd = [f.uri for f in group.found if not _is_text(f.uri)]
    printable = [uri.encode(errors="backslashreplace").decode() for uri in odd]
    rejects = [
        Reject(
            stage="scan",
            reason="unreadable",
            source=uri.removeprefix(group.root).lstrip("/"),
            message=f"{uri}: its name is not UTF-8. Rename it, or the folder that it is in.",
        )
        for uri in printable
    ]
    return replace(group, found=[f for f in group.found if _is_text(f.uri)], rejects=[*group.rejects, *rejects])


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that Python could not read as a name
        return False
    return True


def _unique_names(groups: Sequence[Input]) -> list[Input]:
    """Drop files that an earlier input named already; names taken by an earlier input get the folder's in front."""
    uris: set[str] = set()
    names: set[str] = set()
    result = []
    for group in groups:
        new = list({f.uri: f for f in group.found if f.uri not in uris}.values())
        prefix = _free_prefix(PurePosixPath(group.root).name or "input", new, names)
        found = [replace(f, name=prefix + f.name) for f in new]
        uris |= {f.uri for f in found}
        names |= {f.name for f in found}
        rejects = [replace(r, source=prefix + r.source) for r in group.rejects]
        result.append(replace(group, found=found, rejects=rejects))
    return result


def _free_prefix(folder: str, found: Sequence[Found], taken: set[str]) -> str:
    prefix, number = "", 1
    while any(prefix + f.name in taken for f in found):
        prefix = f"{folder}/" if number == 1 else f"{folder}-{number}/"
        number += 1
    return prefix


def _layout_of(group: Input, layout: str) -> Layout:
    places = (group.root, group.root.rpartition("/")[0])
    sides = {}
    for name in {layout_class(n).side_file for n in (layout_names() if layout == AUTO else (layout,))} - {""}:
        place = next((p for p in places if exists(f"{p}/{name}{group.chain}")), None)
        if place is not None:
            with open_binary(f"{place}/{name}{group.chain}") as file:
                sides[name] = file.read()
    return load(layout, [f.uri for f in group.found], sides)


def _job(found: Found, layout: Layout) -> _Job:
    """Settle the labels, before anything is opened: a mistake in a list stops the run at once."""
    labels = layout.labels(split_chain(found.uri)[0])
    if labels is None:
        layout = layout_class(PLAIN)()
    return _Job(found, layout, _from_row(found, labels or Labels()))


def _from_row(found: Found, labels: Labels) -> Labels:
    row = found.row
    told: dict[str, str | int | None] = {k: row[k] for k in ("speaker", "camera", "language") if k in row}
    if "emotion" in row:
        told["emotion"] = emotion_of(row["emotion"])
        if told["emotion"] is None:
            understood = ", ".join(w for w in EMOTION_WORDS if w not in EMOTIONS)
            raise ConfigError(
                f"{found.name}: emotion {row['emotion']!r} in the list is not known. "
                f"Use one of {', '.join(EMOTIONS)} (understood too: {understood})."
            )
    if "intensity" in row:
        if row["intensity"] not in map(str, INTENSITIES):
            raise ConfigError(f"{found.name}: intensity {row['intensity']!r} in the list is not 1, 2 or 3.")
        told["intensity"] = int(row["intensity"])
    return replace(labels, **told)  # type: ignore[arg-type]


def _examine(job: _Job, waits: Sequence[float] = READ_AGAIN_SECONDS) -> Source | Reject:
    try:
        return _source(job)
    except SourceError as error:
        if isinstance(error, StorageError) and waits:
            time.sleep(waits[0])
            return _examine(job, waits[1:])
        return Reject(stage="scan", reason=error.reason, source=job.found.name, message=str(error))


def _source(job: _Job) -> Source:
    found = job.found
    facts = _probe(found.uri)
    audio_uri = found.row.get("audio")
    if audio_uri is None and facts.audio_codec is None:
        audio_uri = next((a for a in _places(job) if exists(a)), None)
    if audio_uri is not None:
        facts = _with_sound(facts, audio_uri)
    sha256, size = content_of([found.uri] if audio_uri is None else [found.uri, audio_uri])
    return Source(
        uri=found.uri,
        name=found.name,
        sha256=sha256,
        size=size,
        layout=job.layout.name,
        labels=job.labels or Labels(),
        audio_uri=audio_uri,
        licence=found.row.get("licence", job.layout.licence),
        probe=facts,
    )


def _places(job: _Job) -> list[str]:
    path, chain = split_chain(job.found.uri)
    return [place + chain for place in job.layout.audio(path)]


def _probe(uri: str, *, sound_only: bool = False) -> Probe:
    try:
        return probe(uri, sound_only=sound_only)
    except ACCESS_ERRORS as error:
        raise MediaError(f"{uri}: cannot be read ({error}). Check permissions and storage.", "unreadable") from error


def _with_sound(facts: Probe, audio_uri: str) -> Probe:
    sound = _probe(audio_uri, sound_only=True)
    return replace(
        facts,
        audio_codec=sound.audio_codec,
        audio_rate=sound.audio_rate,
        audio_channels=sound.audio_channels,
    )


def _without_duplicates(sources: Sequence[Source]) -> tuple[list[Source], list[Reject]]:
    first: dict[str, Source] = {}
    doubles = []
    for source in sources:
        known = first.setdefault(source.sha256, source)
        if known is not source:
            message = f'{source.uri}: the same content as {known.name}. Keep one, or set duplicates = "keep".'
            doubles.append(Reject(stage="scan", reason="duplicate", source=source.name, message=message))
    return list(first.values()), doubles
