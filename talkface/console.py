"""What the terminal shows: one progress bar, and the closing summaries."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Column, Table
from tqdm import tqdm

from talkface.datasets.selection import bounds_of
from talkface.datasets.stats import rejects_by_reason
from talkface.progress import advance, bar

if TYPE_CHECKING:
    from talkface.config import Rule
    from talkface.datasets.filter import Survey
    from talkface.datasets.reader import Dataset
    from talkface.datasets.sidecars.job import Made
    from talkface.datasets.sidecars.job import Progress as Annotating
    from talkface.ingest.job import IngestResult, Progress
    from talkface.ingest.plan import Forecast

console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

_TABLE = 120
"""Columns that a table of numbers takes at least: none of it is cut where the terminal is narrower, or a file."""


@contextmanager
def progress_bar() -> Iterator[Callable[["Progress"], None]]:
    """One bar: seconds of video, time left, files, times real time. Gives the function that feeds it."""
    with ExitStack() as shown:
        bars: list[tqdm] = []

        def observe(progress: "Progress") -> None:
            if not bars:
                kept = progress.seconds_done
                bars.append(shown.enter_context(bar("ingest", progress.seconds, "s of video", done=kept)))
            files = f"{progress.files_done}/{progress.files} files"
            advance(bars[0], progress.seconds_done, f"{files}, {progress.times_real_time:.1f} x real time")

        yield observe


@contextmanager
def annotate_bar() -> Iterator[Callable[["Annotating"], None]]:
    """One bar an annotator: seconds of clips, time left, clips, times real time. Gives the function that feeds it."""
    with ExitStack() as shown:
        bars: dict[str, tqdm] = {}

        def observe(progress: "Annotating") -> None:
            if progress.name not in bars:
                kept = progress.seconds_done
                made = bar(progress.name, round(progress.seconds, 1), "s of clips", done=kept)
                bars[progress.name] = shown.enter_context(made)
            clips = f"{progress.clips_done}/{progress.clips} clips"
            advance(bars[progress.name], progress.seconds_done, f"{clips}, {progress.times_real_time:.1f} x real time")

        yield observe


def print_annotated(made: "Made") -> None:
    """What became of one annotator's run over a dataset."""
    info, progress = made.info, made.progress
    added = [*(f"{c['name']}.npy" for c in info.columns), *(s["name"] for s in info.scores)]
    worked = progress.seconds_done - progress.seconds_kept
    speed = f", {worked / progress.cpu:.1f} x real time a core" if worked and progress.cpu else ""
    console.print(
        f"{info.name}: {', '.join(added)} for {progress.clips} clips, {progress.clips_kept} of them kept from an "
        f"earlier run{speed}",
        markup=False,
    )
    if info.weights:
        console.print("  made with " + ", ".join(f"{w['name']} ({w['licence']})" for w in info.weights), markup=False)
    for row in made.rejects:
        errors.print(f"failed: {row['key']} of {row['source']}: {row['message']}", markup=False)


def print_stale(dataset: "Dataset") -> None:
    """What to do about sidecars of shards that are no longer there."""
    if stale := [name for name, sidecar in dataset.sidecars.items() if sidecar.stale]:
        console.print(
            f"sidecars of the shards before: {', '.join(stale)}. Bring them up to date (unchanged clips are kept; for "
            f"new ones give --models and --offline as before): toolkit annotate {dataset.url}",
            markup=False,
        )


def print_ingest(result: "IngestResult", dataset: Mapping[str, Any], url: str) -> None:
    """The summary at the end of an ingest: clips, hours, rejects by reason, times real time per stage, models."""
    progress = result.progress
    clips = sum(s["clips"] for s in dataset["splits"].values())
    seconds = sum(s["seconds"] for s in dataset["splits"].values())
    splits = ", ".join(f"{name} {s['clips']:.0f}" for name, s in dataset["splits"].items() if s["clips"])
    console.print(
        f"{len(result.sources)} sources, {progress.seconds:.0f} s of video -> "
        f"{clips:.0f} clips ({splits or 'none'}), {seconds / 3600:.3f} h"
    )
    if progress.seconds_kept:
        console.print(f"kept from an earlier run: {progress.units_kept} of {progress.units} units")
    print_rejects(dataset["rejects"])
    worked = progress.seconds - progress.seconds_kept
    if worked and progress.cpu:
        print_stages(progress, worked)
    for line in models_used(dataset["info"]):
        console.print(line)
    for failure in result.failures:
        errors.print(f"failed: {failure}")
    console.print(f"dataset: {url}")


def print_rejects(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rejects by reason, on one line."""
    reasons = rejects_by_reason(rows)
    text = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
    console.print(f"rejects: {text or 'none'}" + (" (toolkit why DATASET FILE tells more)" if reasons else ""))


def print_stages(progress: "Progress", worked: float) -> None:
    """CPU seconds of each stage, and how many times real time one core does it at."""
    table = Table("stage", "CPU s", "share", "x real time a core", box=None, header_style="")
    total = sum(progress.cpu.values())
    for stage, cpu in sorted(progress.cpu.items(), key=lambda item: -item[1]):
        table.add_row(stage, f"{cpu:.1f}", f"{cpu / total:.0%}", f"{worked / cpu:.1f}" if cpu > 0.005 else "-")
    console.print(table)
    console.print(
        f"{progress.frames} frames in {progress.wall:.1f} s: {progress.frames / progress.wall:.1f} frames/s, "
        f"{worked / progress.wall:.2f} x real time, "
        f"{progress.busy:.0%} of the workers' time in the stages"
    )


def models_used(info: Mapping[str, Any]) -> list[str]:
    """Which model made faces, mesh and blendshapes; loud where it is the preview head."""
    weights = {name: [w["name"] for w in a["weights"]] for name, a in info["annotators"].items()}
    lines = [
        f"faces: {', '.join(w['name'] for w in info['faces'])}; "
        + "; ".join(f"{n}: {', '.join(w)}" for n, w in weights.items() if w)
    ]
    if "arkit_head" in weights.get("arkit", []):
        lines.append(
            "[bold]NOTE: blendshapes are of PREVIEW quality (talkface's embedded head): face_landmarker.task could "
            "not be downloaded. Get it: toolkit models pull face_landmarker[/bold]"
        )
    return lines


def print_forecast(plan: "Forecast", workers: int) -> None:
    """What ``toolkit plan`` found."""
    console.print(
        f"{plan.sources} sources in {plan.units} units ({plan.units_done} done already), "
        f"{plan.seconds:.0f} s of video, {plan.rejected_sources} sources unusable"
    )
    rejects = ", ".join(f"{reason} {count}" for reason, count in plan.rejects.items())
    console.print(
        f"tried {plan.tried_seconds:.1f} s: {plan.clip_share:.0%} of the time ends in clips; "
        f"rejects there: {rejects or 'none'}"
    )
    console.print(
        f"expected: {plan.wall_seconds / 60:.1f} min with {workers} workers ({plan.cpu_seconds / 60:.1f} min CPU)"
    )
    free = "" if plan.free_bytes is None else f", {plan.free_bytes / 1e9:.1f} GB free"
    console.print(f"disk: {plan.disk_bytes / 1e9:.2f} GB (packs and shards){free}")


def print_filter(found: "Survey", reasons: Mapping[str, "Rule"]) -> None:
    """``toolkit filter``: what each bound hides on its own, what nothing else hides, and all together."""
    if found.costs:
        table = Table("score", "bound", "hidden", "hidden by this alone", "why", box=None, header_style="")
        for cost in found.costs:
            why = reasons[cost.score].why if cost.score in reasons else ""
            table.add_row(cost.score, _bound(cost.side, cost.bound), str(cost.alone), str(cost.only), why)
        console.print(table)
    console.print(
        f"{found.clips} clips, {found.together} outside the thresholds; marks: {found.keep} keep, {found.drop} drop; "
        f"{found.shown} shown"
    )
    for name, bound, side in bounds_of(found.built_with):
        console.print(f"the ingest asked for {name} {_bound(side, bound)}")
    if found.rejected:
        back = (
            "the packs are gone: only a new ingest brings them back"
            if found.returning is None
            else f"{found.returning} would come back with --rebuild"
        )
        console.print(f"{found.rejected} more were left out when the dataset was built; {back}")


def _bound(side: str, bound: float) -> str:
    return f"{'>=' if side == 'min' else '<='} {bound:g}"


def print_stats(found: Mapping[str, Any]) -> None:
    """``toolkit stats`` as text."""
    console.print(
        f"{found['clips']} clips, {found['hours']:.3f} hours, {found['sources']} sources, "
        f"{found['speakers']} labelled speakers"
    )
    if found["hidden"]:
        console.print(f"hidden by selection.json: {found['hidden']} clips (toolkit filter DATASET tells more)")
    console.print(
        "splits: "
        + ", ".join(f"{n} {s['clips']:.0f} clips in {s['shards']:.0f} shards" for n, s in found["splits"].items())
    )
    for emotion, levels in found["emotions"].items():
        console.print(f"  {emotion}: " + ", ".join(f"intensity {level}: {n}" for level, n in levels.items()))
    table = Table("score", "min", "5 %", "median", "95 %", "max", box=None, header_style="")
    for name, quantiles in found["scores"].items():
        table.add_row(name, *(f"{q:.4g}" for q in quantiles))
    console.print(table)
    console.print("rejects: " + (", ".join(f"{r} {n}" for r, n in found["rejects"].items()) or "none"))


def print_evaluation(found: Mapping[str, Any]) -> None:
    """``toolkit evaluate`` as text: a row a number, then what has none and why."""
    made, known = found["generated"], found["reference"]
    console.print(f"{made['faces']} generated, {known['faces']} reference faces, {known['pairs']} pairs")
    for note in found["notes"]:
        console.print(note)
    columns = [Column(name, no_wrap=True) for name in ("value", "generated", "reference", "unit", "better")]
    table = Table(*columns, box=None, header_style="")
    for name, row in found["values"].items():
        if row["value"] is not None:
            numbers = ("-" if n is None else f"{n:.4g}" for n in (row["value"], row["reference"]))
            table.add_row(name, *numbers, row["unit"], row["better"])
    console.print(table, width=max(console.width, _TABLE), crop=False)
    empty = [name for name, row in found["values"].items() if row["value"] is None]
    if empty:
        console.print(f"nothing to measure: {', '.join(empty)}")
    for name, reason in found["skipped"].items():
        console.print(f"skipped {name}: {reason}")
