"""``toolkit report``."""

from pathlib import Path
from typing import Annotated

import typer

from talkface.commands._options import Url


def command(
    url: Url, out: Annotated[Path, typer.Option("--out", "-o", help="HTML to write.")] = Path("report.html")
) -> None:
    """Write one HTML page that opens anywhere: hours, labels, pose, blendshapes, scores, rejects, cost, terms, clips.

    Example: `toolkit report dataset --out report.html`
    """
    from talkface.console import console
    from talkface.datasets.open import open_dataset
    from talkface.datasets.report import report
    from talkface.store import Folder

    Folder(out.parent).write(out.name, report(open_dataset(url)).encode())
    console.print(str(out), markup=False)
