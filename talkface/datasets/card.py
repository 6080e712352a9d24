"""The dataset card: README.md of a dataset, filled from its manifests."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from talkface.datasets.schema import DatasetInfo

LOAD = """\
```python
import webdataset as wds

for sample in wds.WebDataset("train/000000.tar", shardshuffle=False).decode():
    print(sample["__key__"], sample["arkit.npy"].shape, sample["json"]["labels"])
```
"""


def card(info: DatasetInfo, clips: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: what is in it, how much, whose terms, how to load it."""
    parts = [
        "# Talking-face dataset",
        f"Made with talkface {info.talkface}, schema version {info.schema_version}, layout `{info.layout}`.",
        _splits(info),
        _labels(clips),
        "## Columns",
        _table(("member", "dtype", "shape", "unit", "clock", "meaning"), [_column(c) for c in info.columns]),
        "## Models and terms",
        f"Strictest term of all that went in: **{info.strictest_licence}**.",
        _table(
            ("annotator", "version", "licence", "weights"), [_annotator(*a) for a in sorted(info.annotators.items())]
        ),
        "## Load",
        LOAD,
    ]
    return "\n\n".join(p.rstrip() for p in parts if p) + "\n"


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
