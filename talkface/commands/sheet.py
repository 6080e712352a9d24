"""``toolkit sheet``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from talkface.commands._options import ModelsDir, NoNetwork, Url

if TYPE_CHECKING:
    from talkface.datasets.reader import Dataset
    from talkface.flame import Flame


def command(
    url: Url,
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG to write.")] = Path("sheet.png"),
    clips: Annotated[int, typer.Option(min=1, help="How many clips, spread over the dataset.")] = 6,
    models: ModelsDir = None,
    offline: NoNetwork = False,
) -> None:
    """Draw clips with box, mesh, head axes and curves into one picture, and FLAME's head where the dataset has it.

    Example: `toolkit sheet dataset --out sheet.png`
    """
    from talkface.console import console
    from talkface.datasets.open import open_dataset
    from talkface.render.sheet import sheet

    dataset = open_dataset(url)
    sheet(dataset, out, clips, _flame(dataset, models))
    console.print(str(out), markup=False)


def _flame(dataset: "Dataset", models: str | None) -> "Flame | None":
    """FLAME's head, where the dataset has its parameters; says how to get the model where it is not here."""
    from talkface.console import console
    from talkface.flame import find_flame
    from talkface.render.sheet import FLAME_NEEDS
    from talkface.weights import Models

    if not {spec.name for spec in dataset.specs()}.issuperset(FLAME_NEEDS):
        return None
    found = find_flame(Models(models, offline=True))
    if isinstance(found, str):
        console.print(f"FLAME's head is not drawn: {found}", markup=False)
        return None
    return found
