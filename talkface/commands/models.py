"""``toolkit models``: list, pull, add, verify."""

from pathlib import Path
from typing import Annotated

import typer

from talkface.commands._options import FAILED, OK, ModelsDir, NoNetwork

app = typer.Typer(no_args_is_help=True, help="Model files: what is here, fetch, add, check.")


@app.command("list")
def models_list(models: ModelsDir = None, offline: NoNetwork = False) -> None:
    """List model files: where they are, size, licence.

    Example: `toolkit models list`
    """
    from talkface.console import console
    from talkface.weights import Models, how_to_get

    for row in Models(models, offline=True).status():
        where = row.path or f"not here. {how_to_get(row.weight)}"
        state = "" if row.ok or not row.path else "  DAMAGED"
        console.print(
            f"{row.weight.name}  {size_of(row.size)}  {row.weight.licence}  {where}{state}",
            markup=False,
            soft_wrap=True,
        )


def size_of(n_bytes: int) -> str:
    """In words; 0 is a file whose size cannot be known before it is here."""
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e5 else f"{n_bytes / 1e3:.0f} kB" if n_bytes else "any size"


@app.command("pull")
def models_pull(
    names: Annotated[list[str] | None, typer.Argument(help="Names; none: all that can be downloaded.")] = None,
) -> None:
    """Download model files into the user cache and check them.

    Example: `toolkit models pull face_landmarker`
    """
    from talkface.console import console
    from talkface.weights import Models

    for path in Models().pull(names or []):
        console.print(str(path), markup=False)


@app.command("add")
def models_add(name: str, path: Path) -> None:
    """Put a file that you have into the user cache, if it is the right one.

    Example: `toolkit models add face_landmarker ./face_landmarker.task`
    """
    from talkface.console import console
    from talkface.weights import Models

    console.print(str(Models(offline=True).add(name, path)), markup=False)


@app.command("verify")
def models_verify(models: ModelsDir = None, offline: NoNetwork = False) -> None:
    """Check the hash of every model file that is here, or what is in it where the hash cannot be known.

    Example: `toolkit models verify`
    """
    from talkface.console import console, errors
    from talkface.weights import Models

    rows = Models(models, offline=True).verify()
    for row in rows:
        if row.ok:
            console.print(f"{row.weight.name}  ok  {row.path}", markup=False)
        else:
            errors.print(row.problem, markup=False)
    raise typer.Exit(OK if all(row.ok for row in rows) else FAILED)
