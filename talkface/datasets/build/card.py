"""The dataset card: README.md of a dataset, filled from its manifests."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from talkface.datasets.format.schema import DatasetInfo
from talkface.datasets.format.sidecar import SidecarInfo
from talkface.licences import is_unknown, strictest

LOAD = """\
```python
import webdataset as wds

for sample in wds.WebDataset("train/000000.tar", shardshuffle=False).decode():
    print(sample["__key__"], sample["arkit.npy"].shape, sample["json"]["labels"])
```
"""


def card(info: DatasetInfo, clips: Sequence[Mapping[str, Any]], sidecars: Sequence[SidecarInfo] = ()) -> str:
    """Markdown: what is in it, how much, whose terms, how to load it."""
    parts = [
        "# Talking-face dataset",
        f"Made with talkface {info.talkface}, schema version {info.schema_version}, layout `{info.layout}`.",
        _splits(info),
        _labels(clips),
        _recorded(clips),
        "## Columns",
        _table(("member", "dtype", "shape", "unit", "clock", "meaning"), [_column(c) for c in info.columns]),
        *_sidecars(sidecars),
        *terms(info, sidecars),
        "## Load",
        LOAD,
    ]
    return "\n\n".join(p.rstrip() for p in parts if p) + "\n"


def terms(info: DatasetInfo, sidecars: Sequence[SidecarInfo] = ()) -> list[str]:
    """Whose code and weights made the columns, and the strictest term of all."""
    records = info.annotators | {s.name: s.annotator() for s in sidecars}
    rows = [_annotator(*a) for a in sorted(records.items())]
    models = [*info.faces, *(w for record in records.values() for w in record.weights)]
    known = [w["licence"] for w in models if not is_unknown(w["licence"])]
    all_in = [info.strictest_licence, *(w["licence"] for w in models)]
    return [
        "## Models and terms",
        f"Strictest term of all that went in: **{strictest(all_in)}**. Of the models whose terms are known: "
        f"**{strictest(known) if known else 'none'}**.",
        _table(("annotator", "version", "licence", "weights"), rows),
    ]


def _sidecars(sidecars: Sequence[SidecarInfo]) -> list[str]:
    """Columns that were added later, and where they lie."""
    columns = [(f"`{s.name}`", *_column(c)) for s in sidecars for c in s.columns]
    if not sidecars:
        return []
    return [
        "## Sidecars",
        "Added later, in shards of their own with the same keys: `train-NAME/000000.tar` goes with `train/000000.tar`.",
        _table(("sidecar", "member", "dtype", "shape", "unit", "clock", "meaning"), columns),
        *(f"`{s.name}` adds the scores {', '.join(x['name'] for x in s.scores)}." for s in sidecars if s.scores),
    ]


def _splits(info: DatasetInfo) -> str:
    rows = [
        (name, f"{s['clips']:.0f}", f"{s['seconds'] / 3600:.3f}", f"{s['shards']:.0f}")
        for name, s in info.splits.items()
    ]
    return _table(("split", "clips", "hours", "shards"), rows)


def _labels(clips: Sequence[Mapping[str, Any]]) -> str:
    speakers = {c["speaker"] for c in clips if c["speaker"]}
    emotions = Counter(c["emotion"] or "unlabelled" for c in clips)
    counted = ", ".join(f"{name} {n}" for name, n in sorted(emotions.items()))
    return f"Speakers with a label: {len(speakers)}. Clips by emotion: {counted or 'none'}."


def _recorded(clips: Sequence[Mapping[str, Any]]) -> str:
    """Where blendshapes come from, if any were recorded (the annotator arkit's scores say so)."""
    shares = [c["recorded_share"] for c in clips if c.get("recorded_share") is not None]
    if not shares:
        return ""
    recorded = sum(share > 0 for share in shares)
    text = f"Blendshapes (`arkit`) were recorded with Live Link Face in {recorded} of {len(clips)} clips"
    return f"{text}; in the others they are estimated from the pictures." if recorded < len(clips) else f"{text}."


def _column(column: Mapping[str, Any]) -> tuple[str, ...]:
    first = {"frame": "frames", "sound": "rows", "clip": ""}[column["clock"]]
    shape = ", ".join([first, *map(str, column["shape"])]).strip(", ")
    clock = f"{column['rate']:g} a second" if column["clock"] == "sound" and column["rate"] else column["clock"]
    return f"`{column['name']}.npy`", column["dtype"], f"({shape})", column["unit"], clock, column["description"]


def _annotator(name: str, record: Any) -> tuple[str, ...]:
    weights = "; ".join(f"{w['name']} ({w['licence']}, sha256 {w['sha256'][:12]})" for w in record.weights)
    return name, str(record.version), record.licence, weights or "none"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(r) + " |" for r in rows])
