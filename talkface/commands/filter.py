"""``toolkit filter``."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from talkface.commands._options import Url
from talkface.config import PRESETS, Rule, Threshold
from talkface.errors import ConfigError

if TYPE_CHECKING:
    from talkface.datasets.selection import Selection


def command(
    url: Url,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SCORE.min=VALUE", help="A bound, .min or .max; without a value: take it away."),
    ] = None,
    preset: Annotated[str | None, typer.Option(help=f"Bounds for a kind of footage: {', '.join(PRESETS)}.")] = None,
    reset: Annotated[
        bool, typer.Option("--reset", help="Forget the thresholds so far but the ingest's; marks stay.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell.")] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build the shards anew from the packs.")] = False,
) -> None:
    """Choose clips by their scores, without decoding anything, and say what each threshold costs.

    Example: `toolkit filter dataset --preset hdtf --set face_pixels.min=200`
    """
    from talkface.console import console, print_filter, print_stale
    from talkface.datasets.filter import ingested_with, rebuild_by, survey, with_bounds
    from talkface.datasets.missing_columns import how_to_add
    from talkface.datasets.open import open_dataset
    from talkface.datasets.reader import Dataset
    from talkface.datasets.selection import change_selection, check_selection, read_selection, score_names

    dataset = open_dataset(url, selection=False)
    rules = {} if preset is None else _preset(preset)
    known = set(score_names(dataset.clips))
    absent = {name: rule for name, rule in rules.items() if name not in known}
    wanted: dict[str, Threshold] = {
        name: Threshold(min=rule.min, max=rule.max) for name, rule in rules.items() if name in known
    }

    def change(selection: "Selection") -> "Selection":
        old: Mapping[str, Threshold] = {} if reset else selection.thresholds
        bounds = with_bounds({**old, **wanted}, set_ or [], ingested_with(dataset))
        return selection.model_copy(update={"thresholds": bounds})

    selection = change(read_selection(dataset.folder))
    check_selection(dataset, selection)
    asked = bool(set_ or preset or reset)
    if asked and not dry_run:
        selection = change_selection(dataset, change)
    print_filter(survey(dataset, selection), rules)
    for name, rule in absent.items():
        console.print(
            f"not applied: {name}, which this dataset does not have. Add it and run this again: "
            f"{how_to_add(dataset.held, [rule.annotator])}",
            markup=False,
        )
    if rebuild and not dry_run:
        with dataset.folder.lock():
            info = rebuild_by(dataset, selection)
        console.print(f"built anew: {sum(s['clips'] for s in info.splits.values()):.0f} clips in the shards")
        print_stale(Dataset(url))
    elif asked:
        console.print("nothing written (--dry-run)" if dry_run else f"written: {dataset.folder.path('selection.json')}")


def _preset(name: str) -> Mapping[str, Rule]:
    from talkface.datasets.selection import nearest

    if name not in PRESETS:
        raise ConfigError(f"--preset: no preset {name!r}. Did you mean {nearest(name, PRESETS)!r}?")
    return PRESETS[name]
