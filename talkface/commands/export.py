"""``toolkit export``."""

from typing import Annotated

import typer

from talkface.commands._options import Url


def command(
    url: Url,
    out: Annotated[str, typer.Option("--out", "-o", help="Folder or fsspec url to write.", show_default=False)],
    form: Annotated[str, typer.Option("--as", help="parquet, livelink or folders.")] = "parquet",
    split: Annotated[str | None, typer.Option(help="train, val or test; all of them unless told.")] = None,
) -> None:
    """Write a dataset in a form that others read: Hugging Face Parquet, Live Link Face CSV, plain folders.

    Example: `toolkit export dataset --as livelink --out recordings`
    """
    from talkface.api.dataset import export
    from talkface.console import console

    clips = export(url, out, form, split=split)
    console.print(f"{out}: {clips} clips as {form}", markup=False)
