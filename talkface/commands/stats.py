"""``toolkit stats``."""

import json
from typing import Annotated

import typer

from talkface.commands._options import Url


def command(url: Url, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Hours, speakers, emotions by intensity, quantiles of every score, rejects by reason.

    Example: `toolkit stats dataset`
    """
    from talkface.console import print_stats
    from talkface.datasets.open import open_dataset
    from talkface.datasets.stats import stats

    found = stats(open_dataset(url))
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        print_stats(found)
