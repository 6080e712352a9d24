"""``toolkit sheet``."""

from pathlib import Path
from typing import Annotated

import typer

from talkface.commands._options import Url


def command(
    url: Url,
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG to write.")] = Path("sheet.png"),
    clips: Annotated[int, typer.Option(min=1, help="How many clips, spread over the dataset.")] = 6,
) -> None:
    """Draw clips with box, mesh, head axes and curves into one picture.

    Example: `toolkit sheet dataset --out sheet.png`
    """
    from talkface.console import console
    from talkface.datasets.reader import open_dataset
    from talkface.render.sheet import sheet

    sheet(open_dataset(url), out, clips)
    console.print(str(out), markup=False)
