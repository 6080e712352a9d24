"""``toolkit split``."""

from typing import Annotated

import typer

from talkface.commands._options import Url


def command(
    url: Url,
    by: Annotated[
        str, typer.Option(help="auto (labels, else faces, else sources), speaker, identity or source.")
    ] = "auto",
    val: Annotated[float | None, typer.Option(help="Share of groups for validation (default: as it is).")] = None,
    test: Annotated[float | None, typer.Option(help="Share of groups for the test (default: as it is).")] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed draws other groups (default: as it is).")] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Cosine above which faces are one person (default: as it is or the model's)."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell.")] = False,
) -> None:
    """Decide anew who is in train, val and test; people are never cut apart. Nothing is decoded.

    Example: `toolkit split dataset --by identity --val 0.1 --test 0.1`
    """
    from talkface.console import console, errors
    from talkface.datasets.build.job import planned
    from talkface.datasets.filter import rebuild_by
    from talkface.datasets.open import open_dataset
    from talkface.datasets.selection import read_selection
    from talkface.datasets.split import decide, doubt, read_splitting, summary, write_splitting

    dataset = open_dataset(url, selection=False)
    old = read_splitting(dataset.folder, planned(dataset.folder).build)
    splitting = decide(
        dataset,
        by,  # type: ignore[arg-type]
        val=old.val if val is None else val,
        test=old.test if test is None else test,
        seed=old.seed if seed is None else seed,
        threshold=old.threshold if threshold is None else threshold,
    )
    for name, (groups, clips, hours) in summary(dataset, splitting).items():
        console.print(f"{name:6} {groups:6d} groups {clips:7d} clips {hours:9.3f} h", markup=False)
    if (doubtful := doubt(dataset, splitting)) is not None:
        errors.print(doubtful, markup=False)
    if dry_run:
        console.print("nothing written (--dry-run)")
        return
    with dataset.folder.lock():
        write_splitting(dataset.folder, splitting)
        rebuild_by(dataset, read_selection(dataset.folder))
    console.print(f"written: {dataset.folder.path('split.json')}; the shards were rebuilt", markup=False)
    for name in dataset.sidecars:
        console.print(
            f"sidecar '{name}' is out of date: the shards were rebuilt. Run: toolkit annotate {url} --with {name}",
            markup=False,
        )
