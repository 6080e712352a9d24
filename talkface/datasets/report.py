"""One self-contained HTML page about a dataset: what is in it, how it is spread, and what was left out.

`measure` reads the columns once, `page` draws. The page holds its own copy of plotly.js and opens without a network.
"""

import base64
import html
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, UInt8
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from talkface.annotate.head import euler_degrees
from talkface.clip import NS, runs
from talkface.datasets.reader import Dataset
from talkface.datasets.selection import read_selection
from talkface.datasets.stats import rejects_by_reason, split_counts
from talkface.media import ClipFrames
from talkface.vocab import ARKIT, EMOTIONS

READ_AT_MOST: Final = 2000
"""Clips whose columns are read, spread evenly; the tables cover all."""

SPEED_BUCKETS: Final = 9
"""EMO, 3.3 (speed layers): d buckets of head rotation speed."""

DEAD_RANGE: Final = 0.02
"""A shape whose 1st and 99th percentiles lie closer than this does not move."""

SAMPLES: Final = 12
CURVES: Final = (("jawOpen", "#d9480f"), ("eyeBlinkLeft", "#1971c2"), ("mouthSmileLeft", "#2f9e44"))
COLOURS: Final = ("#3b5bdb", "#e8590c", "#2f9e44", "#c2255c")


@dataclass(frozen=True)
class Motion:
    """The values of all frames that were read, missing ones left out.

    ``angles`` are yaw, pitch and roll in degrees, ``speed`` is the head's rotation in degrees a second, ``shapes`` the
    blendshapes with NaN where a frame has none.
    """

    clips: int
    angles: Float[np.ndarray, "posed 3"]
    speed: Float[np.ndarray, " posed"]
    shapes: Float[np.ndarray, "frames 52"]


def measure(dataset: Dataset, at_most: int = READ_AT_MOST) -> Motion:
    """Read the head and the blendshapes of at most so many clips, spread evenly over the dataset."""
    known = [s.name for s in dataset.specs()]
    columns = [name for name in ("head", "arkit") if name in known]
    head, shapes = [np.zeros((0, 10), np.float32)], [np.zeros((0, len(ARKIT)), np.float32)]
    rows = spread(len(dataset), at_most)
    for row in rows:
        arrays = dataset.views([row], columns)[0]
        head.append(arrays.get("head", head[0]))
        shapes.append(arrays.get("arkit", shapes[0]))
    poses = np.concatenate(head)
    poses = poses[np.isfinite(poses).all(axis=1)]
    speed = np.degrees(np.linalg.norm(poses[:, 7:10], axis=1))
    return Motion(len(rows), euler_degrees(poses[:, :4]), speed, np.concatenate(shapes))


def spread(n: int, at_most: int) -> list[int]:
    """At most so many rows of n, evenly spread."""
    return sorted({int(i) for i in np.linspace(0, n - 1, min(n, at_most)).round()}) if n else []


def speed_buckets(speed: Float[np.ndarray, " frames"], n: int = SPEED_BUCKETS) -> Float[np.ndarray, "n 2"]:
    """Centre and radius of each bucket of EMO's speed layers, degrees a second.

    Centres are the quantiles (i + 1/2) / n of the data, so that each bucket is equally used; a radius is half the way
    to the further neighbour.
    """
    if len(speed) == 0:
        return np.zeros((0, 2))
    centres = np.quantile(speed, (np.arange(n) + 0.5) / n)
    gaps = np.diff(centres)
    radii = np.maximum(np.append(gaps, gaps[-1]), np.append(gaps[0], gaps)) / 2
    return np.stack([centres, radii], axis=1)


def dead_shapes(shapes: Float[np.ndarray, "frames 52"]) -> dict[str, str]:
    """Blendshapes that carry nothing, and why."""
    found = {}
    for name, values in zip(ARKIT, shapes.T, strict=True):
        known = values[np.isfinite(values)]
        if len(known) == 0:
            found[name] = "no value in any frame"
        elif np.ptp(np.quantile(known, (0.01, 0.99))) < DEAD_RANGE:
            found[name] = f"98 % of its frames within {DEAD_RANGE:g}"
    return found


def report(dataset: Dataset) -> str:
    """The page as HTML, about 5 MB."""
    motion = measure(dataset)
    sections = [
        ("What is in it", _tiles(dataset)),
        ("Speakers and emotions", _labels(dataset) + _splits(dataset)),
        ("Clips", _figure(_lengths(dataset))),
        ("Head", _figure(_pose(motion)) + _buckets(motion)),
        ("Blendshapes", _figure(_ranges(motion)) + _dead(motion)),
        ("Scores and thresholds", _figure(_scores(dataset))),
        ("What was left out", _figure(_funnel(dataset)) + _reasons(dataset)),
        ("Cost", _cost(dataset)),
        ("Models and terms", _terms(dataset)),
        ("Clips to look at", _gallery(dataset)),
    ]
    body = "\n".join(f"<section><h2>{title}</h2>{content}</section>" for title, content in sections if content)
    name = html.escape(dataset.url.rstrip("/").rpartition("/")[2])
    return PAGE.format(title=name, style=STYLE, plotly=get_plotlyjs(), body=body)


def _tiles(dataset: Dataset) -> str:
    clips = dataset.clips
    seconds = clips.column("duration").to_numpy()
    speakers = {s for s in clips.column("speaker").to_pylist() if s}
    facts = {
        "hours": f"{seconds.sum() / 3600:.2f}",
        "clips": f"{len(dataset):,}",
        "frames": f"{clips.column('frames').to_numpy().sum():,}",
        "sources": f"{dataset.table('sources').num_rows:,}",
        "speakers with a label": f"{len(speakers):,}",
        "strictest licence": html.escape(dataset.info.strictest_licence),
    }
    return '<div class="tiles">' + "".join(f"<div><b>{v}</b>{k}</div>" for k, v in facts.items()) + "</div>"


def _labels(dataset: Dataset) -> str:
    """Emotions stacked by intensity, and the speakers with the most seconds."""
    rows = dataset.clips.select(["emotion", "intensity", "speaker", "duration"]).to_pylist()
    if not any(row["emotion"] or row["speaker"] for row in rows):
        return "<p>No clip has a label.</p>"
    figure = make_subplots(1, 2, subplot_titles=("clips by emotion and intensity", "minutes by speaker (40 most)"))
    names = [e for e in (*EMOTIONS, None) if any(r["emotion"] == e for r in rows)]
    for colour, level in zip(COLOURS, (1, 2, 3, None), strict=True):
        counts = Counter(r["emotion"] for r in rows if r["intensity"] == level)
        if counts:
            x, y = [n or "no label" for n in names], [counts[n] for n in names]
            label = "no intensity" if level is None else f"intensity {level}"
            figure.add_bar(x=x, y=y, name=label, marker_color=colour, row=1, col=1)
    minutes: Counter[str] = Counter()
    for row in rows:
        minutes[row["speaker"] or "no label"] += row["duration"] / 60
    top = minutes.most_common(40)
    x, y = [k for k, _ in top], [v for _, v in top]
    figure.add_bar(x=x, y=y, showlegend=False, marker_color="#868e96", row=1, col=2)
    figure.update_xaxes(type="category")
    above = {"orientation": "h", "y": 1.14, "yanchor": "bottom", "traceorder": "normal"}
    return _figure(figure.update_layout(barmode="stack", legend=above))


def _splits(dataset: Dataset) -> str:
    rows = [
        (name, f"{s['clips']:.0f}", f"{s['seconds'] / 3600:.3f}", f"{s['shards']:.0f}")
        for name, s in split_counts(dataset.clips.to_pylist()).items()
    ]
    return _table(("split", "clips", "hours", "shards"), rows)


def _lengths(dataset: Dataset) -> go.Figure:
    figure = make_subplots(1, 3, subplot_titles=("seconds a clip", "frames a second", "drift of sound, ms"))
    for col, name in enumerate(("duration", "fps_avg", "av_drift_ms"), 1):
        figure.add_trace(_histogram(_known(dataset, name).round(3)), row=1, col=col)
    return figure


def _pose(motion: Motion) -> go.Figure:
    titles = ("yaw, degrees", "pitch, degrees", "roll, degrees", "head speed, degrees/s")
    figure = make_subplots(1, 4, subplot_titles=titles)
    for col, values in enumerate((*motion.angles.T, motion.speed), 1):
        figure.add_trace(_histogram(values), row=1, col=col)
    for centre, _ in speed_buckets(motion.speed):
        figure.add_vline(x=centre, line={"color": "#e8590c", "width": 1, "dash": "dot"}, row=1, col=4)
    return figure


def _buckets(motion: Motion) -> str:
    rows = [
        (str(i + 1), f"{c:.2f}", f"{r:.2f}", f"{c / 25:.3f}", f"{r / 25:.3f}")
        for i, (c, r) in enumerate(speed_buckets(motion.speed))
    ]
    head = ("bucket", "centre, degrees/s", "radius", "centre, degrees a frame at 25 fps", "radius")
    note = (
        f"<p>Speed buckets for EMO's speed layers, from quantiles of {len(motion.speed):,} frames "
        f"of {motion.clips:,} clips.</p>"
    )
    return note + _table(head, rows) if rows else ""


def _ranges(motion: Motion) -> go.Figure:
    """5th to 95th percentile of each shape, its median and its largest value."""
    dead = dead_shapes(motion.shapes)
    known = [values[np.isfinite(values)] for values in motion.shapes.T]
    quantiles = [np.quantile(v, (0.05, 0.5, 0.95, 1.0)) if len(v) else np.zeros(4) for v in known]
    low, middle, high, top = np.array(quantiles).T
    colours = ["#e03131" if name in dead else "#3b5bdb" for name in ARKIT]
    figure = go.Figure()
    figure.add_bar(x=ARKIT, base=low, y=high - low, marker_color=colours, name="5th to 95th percentile")
    marks = {"x": ARKIT, "mode": "markers"}
    figure.add_scatter(**marks, y=middle, name="median", marker={"color": "#111", "size": 5})
    figure.add_scatter(**marks, y=top, name="largest", marker={"color": "#868e96", "symbol": "line-ew-open"})
    above = {"orientation": "h", "y": 1.02, "yanchor": "bottom"}
    return figure.update_layout(yaxis_range=[0, 1.02], xaxis_tickangle=-60, legend=above)


def _dead(motion: Motion) -> str:
    dead = dead_shapes(motion.shapes)
    listed = ", ".join(f"{name} ({why})" for name, why in dead.items())
    return (
        f"<p>Shapes that carry nothing: <span class='bad'>{listed}</span>.</p>" if dead else "<p>All shapes move.</p>"
    )


def _scores(dataset: Dataset) -> go.Figure:
    """Each score of the clips kept, the values of those rejected for it in red, and its bounds."""
    names = [s.name for s in dataset.scores() if len(_known(dataset, s.name))]
    rejects = dataset.table("rejects").to_pylist()
    columns = 4
    rows = max(1, -(-len(names) // columns))
    figure = make_subplots(rows, columns, subplot_titles=names, vertical_spacing=min(0.12, 0.4 / rows))
    chosen = read_selection(dataset.folder).thresholds
    bounds = dataset.info.config["build"]["thresholds"] | {name: bound.model_dump() for name, bound in chosen.items()}
    for place, name in enumerate(names):
        at = {"row": place // columns + 1, "col": place % columns + 1}
        figure.add_trace(_histogram(_known(dataset, name)), **at)
        out = [r["value"] for r in rejects if r["stage"] == "filter" and r["reason"] in (f"{name}_low", f"{name}_high")]
        if out:
            figure.add_trace(_histogram(np.array(out), colour="#e03131"), **at)
        for bound in (bounds.get(name) or {}).values():
            if bound is not None:
                figure.add_vline(x=bound, line={"color": "#e03131", "width": 2}, **at)
    return figure.update_layout(height=190 * rows + 60, barmode="overlay")


def _funnel(dataset: Dataset) -> go.Figure:
    """Sources that came in, were decoded, gave a clip; and spans with a face that were long enough, and were kept."""
    sources, rejects = dataset.table("sources").to_pylist(), dataset.table("rejects").to_pylist()
    stages = Counter(r["stage"] for r in rejects)
    at_scan = {r["source"] for r in rejects if r["stage"] == "scan"}
    clipless = {s["name"] for s in sources if not s["clips"]}
    undecoded = clipless & {r["source"] for r in rejects if r["stage"] == "decode"}
    found = {s["name"] for s in sources} | at_scan
    kept = dataset.table("clips").num_rows
    cut = kept + stages["filter"]
    of_sources = {"found": len(found), "decoded": len(found - at_scan - undecoded)}
    of_sources["with a clip"] = len(sources) - len(clipless)
    of_spans = {"face seen": cut + stages["cut"], "long enough": cut, "kept": kept}
    if len(dataset) < kept:
        of_spans["selected"] = len(dataset)
    figure = make_subplots(1, 2, subplot_titles=("sources", "spans of a face"), horizontal_spacing=0.2)
    for col, counts in enumerate((of_sources, of_spans), 1):
        y, x = list(counts), list(counts.values())
        figure.add_trace(go.Funnel(y=y, x=x, marker_color=COLOURS[0], showlegend=False), row=1, col=col)
    return figure


def _reasons(dataset: Dataset) -> str:
    counted = rejects_by_reason(dataset.rejects())
    return _table(("stage / reason", "times"), [(k, str(n)) for k, n in counted.items()]) if counted else ""


def _cost(dataset: Dataset) -> str:
    """Times real time a core of each stage, as the last run's report has it."""
    try:
        run = json.loads(dataset.folder.read("run.json"))
    except (FileNotFoundError, ValueError):
        return ""
    stages = {k: v for k, v in run["cpu_seconds"].items() if v}
    if not stages:
        return "<p>The last run decoded nothing anew.</p>"
    speed = [run["times_real_time_a_core"].get(name) for name in stages]
    figure = make_subplots(1, 2, subplot_titles=("CPU seconds", "times real time a core (log)"))
    figure.add_bar(x=list(stages), y=list(stages.values()), marker_color="#748ffc", showlegend=False, row=1, col=1)
    figure.add_bar(x=list(stages), y=speed, marker_color="#63e6be", showlegend=False, row=1, col=2)
    figure.update_yaxes(type="log", row=1, col=2)
    workers = run["worker_seconds"] / run["wall_seconds"]
    wall = f"{run['video_seconds']:.0f} s of video in {run['wall_seconds']:.0f} s, {workers:.1f} workers at a time."
    return f"<p>The last run: {wall}</p>" + _figure(figure)


def _terms(dataset: Dataset) -> str:
    sources = Counter(s["licence"] for s in dataset.table("sources").to_pylist())
    rows = [("sources", f"{count} files", licence) for licence, count in sorted(sources.items())]
    for name, record in sorted(dataset.annotators.items()):
        rows.append((name, "code", record.licence))
        rows += [(name, str(w["name"]), str(w["licence"])) for w in record.weights]
    return _table(("what", "of which", "licence"), rows)


def _gallery(dataset: Dataset) -> str:
    """Clips spread over the dataset: the middle picture, and curves of three shapes."""
    cards = [_card(dataset, row) for row in spread(len(dataset), SAMPLES)]
    legend = " ".join(f'<span style="color:{colour}">{name}</span>' for name, colour in CURVES)
    return f'<p>Curves: {legend}, 0 to 1.</p><div class="gallery">{"".join(cards)}</div>'


def _card(dataset: Dataset, row: int) -> str:
    clip = dataset.clips.slice(row, 1).to_pylist()[0]
    picture = ""
    if dataset.info.has_video:
        video = dataset.read([row], ["mp4"])[0]["mp4"]
        picture = _picture(ClipFrames(video, backend="av").get([clip["frames"] // 2])[0])
    label = " ".join(str(v) for v in (clip["emotion"], clip["intensity"], clip["speaker"]) if v) or "no label"
    about = f"{html.escape(clip['key'])}<br>{html.escape(label)}, {clip['duration']:.1f} s"
    return f"<div>{picture}{_curves(dataset, row)}<small>{about}</small></div>"


def _picture(rgb: UInt8[np.ndarray, "height width 3"], side: int = 176) -> str:
    small = cv2.resize(rgb, (side, side), interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])
    return (
        f'<img width="{side}" height="{side}" src="data:image/jpeg;base64,{base64.b64encode(jpeg.tobytes()).decode()}">'
    )


def _curves(dataset: Dataset, row: int, width: int = 176, height: int = 56) -> str:
    if "arkit" not in [s.name for s in dataset.specs()]:
        return ""
    arrays = dataset.views([row], ["pts", "arkit"])[0]
    seconds = arrays["pts"] / NS
    x = seconds / max(float(seconds[-1]), 1e-9) * width
    lines = []
    for name, colour in CURVES:
        y = (1 - arrays["arkit"][:, ARKIT.index(name)]) * (height - 2) + 1
        parts = [slice(start, end) for start, end, known in runs(np.isfinite(y)) if known]
        for part in parts:  # a gap is not drawn over
            points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x[part], y[part], strict=True))
            lines.append(f'<polyline fill="none" stroke="{colour}" points="{points}"/>')
    return f'<svg width="{width}" height="{height}">{"".join(lines)}</svg>'


def _known(dataset: Dataset, name: str) -> np.ndarray:
    values = np.array([np.nan if v is None else v for v in dataset.clips.column(name).to_pylist()], np.float64)
    return values[np.isfinite(values)]


def _histogram(values: np.ndarray, colour: str = "#3b5bdb", bins: int = 40) -> go.Bar:
    """Counted here: the page then carries bins instead of every frame's value."""
    counts, edges = np.histogram(values, bins) if len(values) else (np.zeros(0), np.zeros(1))
    return go.Bar(
        x=(edges[:-1] + edges[1:]) / 2,
        y=counts,
        width=np.diff(edges),
        marker={"color": colour, "line": {"width": 0}},
        opacity=0.85,
        showlegend=False,
    )


def _figure(figure: go.Figure) -> str:
    figure.update_layout(
        template="plotly_white",
        margin={"l": 40, "r": 20, "t": 60, "b": 40},
        height=figure.layout.height or 330,
        bargap=0.05,
        font={"family": "system-ui, sans-serif", "size": 12},
    )
    figure.update_annotations(font_size=12)
    drawn: str = figure.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False})
    return drawn


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    return "<table><tr>" + "".join(f"<th>{html.escape(h)}</th>" for h in head) + f"</tr>{cells}</table>"


STYLE: Final = """
body { font: 14px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2em auto; padding: 0 1em; color: #212529 }
h2 { border-bottom: 1px solid #dee2e6; padding-bottom: .2em; margin-top: 2em }
.tiles { display: flex; flex-wrap: wrap; gap: 12px }
.tiles div { background: #f1f3f5; border-radius: 8px; padding: 10px 18px } .tiles b { display: block; font-size: 22px }
table { border-collapse: collapse; margin: 1em 0 } td, th { padding: 3px 14px 3px 0; text-align: left }
th { color: #868e96; font-weight: 500 } .bad { color: #e03131 }
.gallery { display: flex; flex-wrap: wrap; gap: 16px } .gallery div { width: 176px } .gallery small { color: #495057;
overflow-wrap: anywhere; display: block } .gallery svg { background: #f8f9fa; display: block }
"""

PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}: dataset report</title><style>{style}</style>
<script>{plotly}</script></head><body><h1>{title}</h1>
{body}
</body></html>
"""
