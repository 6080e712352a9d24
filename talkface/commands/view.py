"""``toolkit view``."""

from contextlib import suppress
from typing import Annotated

import typer

from talkface.commands._options import Url


def command(
    url: Url,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port (default: 8700, or any where that is taken; 0: any).")
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
) -> None:
    """Look into a dataset: a page for this machine alone, to search, play, compare and mark clips.

    Example: `toolkit view dataset`
    """
    import webbrowser

    from talkface.console import console
    from talkface.errors import RunError

    try:
        from talkface.datasets.view.server import serve
    except ModuleNotFoundError as error:
        raise RunError(f"{error.name} is not installed. Run: pip install 'talkface[view]'") from error

    def opened(address: str) -> None:
        console.print(f"{address}\nCtrl-C ends it.", markup=False)
        if browser:
            webbrowser.open(address)

    with suppress(KeyboardInterrupt):
        serve(url, port, opened)
