"""``toolkit why``."""

from typing import Annotated

import typer

from talkface.commands._options import Url


def command(url: Url, file: Annotated[str, typer.Argument(help="A source: its name, path, or a pattern.")]) -> None:
    """Tell what became of a source: clips with their spans, each reject with its reason, and who speaks when.

    The last needs the column talk: `toolkit annotate dataset --with speaker`.

    Example: `toolkit why dataset M003/video/front/angry/level_3/001.mp4`
    """
    from talkface.console import console
    from talkface.datasets.reader import Dataset
    from talkface.datasets.stats import why

    for line in why(Dataset(url), file):
        console.print(line, markup=False)
