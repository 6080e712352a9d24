"""What a dataset holds, and what became of each source."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

import numpy as np

from talkface.datasets.format.schema import SPLITS
from talkface.datasets.reader import Dataset
from talkface.datasets.selection import Selection, nearest, read_selection
from talkface.datasets.turns import turns
from talkface.errors import DatasetError
from talkface.vocab import EMOTIONS

QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)


def stats(dataset: Dataset) -> dict[str, Any]:
    """Clips and hours by split, speakers, emotions by intensity, quantiles of every score, rejects by reason.

    ``hidden`` counts the clips in the shards that are not part of ``dataset``.
    """
    clips = dataset.clips.to_pylist()
    seconds = [c["duration"] for c in clips]
    return {
        "clips": len(clips),
        "hidden": dataset.table("clips").num_rows - len(clips),
        "hours": sum(seconds) / 3600,
        "sources": dataset.table("sources").num_rows,
        "speakers": len({c["speaker"] for c in clips if c["speaker"]}),
        "splits": split_counts(clips),
        "emotions": _emotions(clips),
        "scores": {"duration": _quantiles(seconds)}
        | {s.name: _quantiles([c[s.name] for c in clips]) for s in dataset.scores()},
        "rejects": rejects_by_reason(dataset.rejects()),
    }


def split_counts(clips: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Clips, seconds and shards of each split, counted in rows of the clips table."""
    of_split = {split: [c for c in clips if c["split"] == split] for split in SPLITS}
    return {
        split: {
            "clips": float(len(rows)),
            "seconds": float(sum(c["duration"] for c in rows)),
            "shards": float(len({c["shard"] for c in rows})),
        }
        for split, rows in of_split.items()
    }


def rejects_by_reason(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """``stage/reason`` to how often, the most frequent first."""
    counted = Counter(f"{r['stage']}/{r['reason']}" for r in rows)
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def _emotions(clips: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Emotion to intensity (``-`` unknown) to clips."""
    table: dict[str, dict[str, int]] = {}
    for name in (*EMOTIONS, None):
        of_name = [c for c in clips if c["emotion"] == name]
        if of_name:
            levels = Counter(str(c["intensity"] or "-") for c in of_name)
            table[name or "unlabelled"] = dict(sorted(levels.items()))
    return table


def _quantiles(values: Sequence[float | None]) -> list[float]:
    """Values at QUANTILES, missing ones left out; empty if there is none."""
    known = np.array([v for v in values if v is not None and np.isfinite(v)])
    return [float(q) for q in np.quantile(known, QUANTILES)] if len(known) else []


def why(dataset: Dataset, file: str) -> list[str]:
    """What became of a source, line by line: its clips with their spans, every reject with its reason, and who speaks
    when, where the dataset has ``talk``.

    ``file`` is a name, the end of one, a path, or a pattern. Raises DatasetError, with the nearest names, if no source
    is like it.
    """
    sources = {s["name"]: s for s in dataset.table("sources").to_pylist()}
    rejects, clips = _by_source(dataset.rejects()), _by_source(dataset.clips.to_pylist())
    names = sorted({*sources, *rejects})
    found = [n for n in names if _is_meant(n, file, sources[n]["uri"] if n in sources else None)]
    if not found:
        raise DatasetError(
            f"{file}: no source of {dataset.folder.url} is called that; it has {len(sources)} sources"
            f"{_near(file, names)}. Patterns work too: '*{file.strip('*')}*'."
        )
    selection = read_selection(dataset.folder)
    return [
        line
        for name in found
        for line in (
            *_story(name, sources.get(name), clips[name], rejects[name], selection),
            *_speakers(dataset, name, clips[name]),
        )
    ]


def _by_source(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    grouped: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        grouped[row["source"]].append(row)
    return grouped


def _is_meant(name: str, asked: str, uri: str | None) -> bool:
    return asked in (name, uri) or name.endswith("/" + asked) or asked.endswith("/" + name) or fnmatch(name, asked)


def _near(asked: str, names: Sequence[str]) -> str:
    """Up to three names that hold what was asked for, else the one that is most like it."""
    near = [name for name in names if asked.casefold() in name.casefold()][:3] or [nearest(asked, names)]
    return f" (near: {', '.join(map(repr, near))})" if names else ""


def _story(
    name: str,
    source: Mapping[str, Any] | None,
    clips: Sequence[Mapping[str, Any]],
    rejects: Sequence[Mapping[str, Any]],
    selection: Selection,
) -> list[str]:
    lines = [f"{name}: {source['status'] if source else 'rejected'}"]
    if source and source["duration"]:
        lines[0] += f" ({source['clips']} clips, {source['clip_seconds']:.2f} s of {source['duration']:.2f} s)"
    events = [
        (
            c["start_ns"],
            f"  {_span(c)}  track {c['track']}  clip {c['key']} ({c['frames']} frames){_hidden(c, selection)}",
        )
        for c in clips
    ]
    events += [(r["start_ns"] or 0, f"  {_span(r)}  {_reason(r)}") for r in rejects]
    return lines + [text for _, text in sorted(events)]


def _speakers(dataset: Dataset, name: str, clips: Sequence[Mapping[str, Any]]) -> list[str]:
    """Who speaks from when to when in a source; nothing where that is not known."""
    if "talk" not in {spec.name for spec in dataset.specs()}:
        return []
    starts = {c["key"]: c["start_ns"] for c in clips}
    spoken = [
        f"  {_span({'start_ns': starts[t.key] + t.start_ns, 'end_ns': starts[t.key] + t.end_ns})}  {t.key} speaks"
        for t in turns(dataset, name)
    ]
    return spoken or ["  nobody is seen to speak"]


def _hidden(clip: Mapping[str, Any], selection: Selection) -> str:
    reasons = selection.why_hidden(clip)
    return f" hidden by selection.json: {', '.join(reasons)}" if reasons else ""


def _span(row: Mapping[str, Any]) -> str:
    if row["start_ns"] is None or row["end_ns"] is None:
        return "whole file".ljust(21)
    return f"{row['start_ns'] / 1e9:8.3f} - {row['end_ns'] / 1e9:8.3f} s"


def _reason(row: Mapping[str, Any]) -> str:
    bound = "" if row["threshold"] is None else f" (value {row['value']:.4g}, threshold {row['threshold']:.4g})"
    return f"rejected at {row['stage']}: {row['reason']}{bound}" + (f": {row['message']}" if row["message"] else "")
