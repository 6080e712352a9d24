"""``toolkit verify``."""

from typing import Annotated

import typer

from talkface.commands._options import FAILED, OK, Url


def command(
    url: Url,
    repair: Annotated[bool, typer.Option("--repair", help="Make what is broken anew from the packs.")] = False,
) -> None:
    """Check checksums, members, shapes, clocks and manifests, and that three readers open it.

    Example: `toolkit verify dataset`
    """
    from talkface.console import console, errors
    from talkface.datasets.build import rebuild
    from talkface.datasets.reader import Dataset
    from talkface.datasets.verify import verify
    from talkface.store import Folder

    problems = verify(url)
    folder = Folder(url)
    if problems and repair and folder.exists():
        for problem in problems:
            console.print(f"found: {problem}", markup=False)
        with folder.lock():
            rebuild(folder)
        problems = verify(url)
    for problem in problems:
        errors.print(str(problem), markup=False)
    console.print(
        f"{url}: {len(problems)} problems" if problems else f"{url}: {len(Dataset(url))} clips, all as promised"
    )
    raise typer.Exit(FAILED if problems else OK)
