"""Live Link Face recordings beside videos: found, read once to see that they fit, made part of their source."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from talkface.annotate.base import in_order, make_annotator
from talkface.clip import Reject, Source
from talkface.config import Pack
from talkface.errors import SourceError
from talkface.ingest.inputs import content_of, exists, split_chain
from talkface.ingest.scan import THREADS, ScanResult
from talkface.motion.take import frame_log_name, read_take, recording_names


def with_recordings(scanned: ScanResult, pack: Pack) -> ScanResult:
    """The sources with the recordings that ``pack``'s annotator ``arkit`` asks for, whose content joins theirs.

    A source whose recording cannot be used becomes a reject of stage ``scan`` with reason ``bad_recording``; so does
    one that has none, with ``no_recording``, where the annotator requires it.
    """
    mode = make_annotator("arkit", pack.annotate.get("arkit", {})).config.recording
    if mode == "off" or "arkit" not in in_order(pack.wanted):
        return scanned
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(_with_recording, scanned.sources))
    if mode == "required":
        found = [_without(s) if isinstance(s, Source) and not s.recording else s for s in found]
    sources = tuple(s for s in found if isinstance(s, Source))
    return replace(scanned, sources=sources, rejects=(*scanned.rejects, *(r for r in found if isinstance(r, Reject))))


def _with_recording(source: Source) -> Source | Reject:
    path, chain = split_chain(source.uri)
    recording = next((name + chain for name in recording_names(path) if exists(name + chain)), None)
    if recording is None:
        return source
    log = frame_log_name(path) + chain
    files = (recording, log) if exists(log) else (recording,)
    try:
        read_take(source.uri, files)
        sha256, _ = content_of((*source.files, *files))
    except SourceError as error:
        return Reject(stage="scan", reason=error.reason, source=source.name, message=str(error))
    return replace(source, recording=files, sha256=sha256)


def _without(source: Source) -> Reject:
    names = ", ".join(name.rpartition("/")[2] for name in recording_names(split_chain(source.uri)[0]))
    message = f"{source.uri}: no recording beside it ({names}). Add it, or say --without estimate."
    return Reject(stage="scan", reason="no_recording", source=source.name, message=message)
