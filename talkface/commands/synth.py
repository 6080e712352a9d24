"""``toolkit synth``."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    folder: Annotated[Path, typer.Argument(help="Where the clips go.", show_default=False)],
    seconds: Annotated[float, typer.Option(help="Length of each clip.")] = 4.4,
) -> None:
    """Make synthetic talking faces with known truth: several people, emotions and head motions.

    Example: `toolkit synth ./videos`
    """
    from talkface.console import console
    from talkface.render.synthetic import make_demo

    for path in make_demo(folder, seconds=seconds):
        console.print(str(path), markup=False)
