"""``toolkit doctor``."""

from pathlib import Path
from typing import Annotated

import typer

from talkface.commands._options import FAILED, OK, ModelsDir, NoNetwork


def command(
    models: ModelsDir = None,
    offline: NoNetwork = False,
    folder: Annotated[Path, typer.Argument(help="Where output would go.")] = Path(),
) -> None:
    """Look at decoders, models, licences, cores, disk and GPU.

    Example: `toolkit doctor`
    """
    from talkface.console import console
    from talkface.doctor import examine
    from talkface.weights import Models

    findings = examine(Models(models, offline=True), folder)
    for finding in findings:
        console.print(f"{finding.level:>4}  {finding.what}: {finding.detail}")
    raise typer.Exit(FAILED if any(f.level == "bad" for f in findings) else OK)
