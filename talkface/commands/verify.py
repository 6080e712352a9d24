"""``toolkit verify``."""

from typing import Annotated

import typer

from talkface.commands._options import FAILED, OK, ModelsDir, Offline, Url, Workers, worker_count


def command(
    url: Url,
    repair: Annotated[bool, typer.Option("--repair", help="Make what is broken anew from the packs.")] = False,
    models: ModelsDir = None,
    offline: Offline = False,
    workers: Workers = None,
) -> None:
    """Check checksums, members, shapes, clocks and manifests, sidecars too, and that three readers open it.

    With --repair, what no pack of a sidecar holds is annotated again: --models, --offline and --workers are for that.

    Example: `toolkit verify dataset`
    """
    from talkface.console import console, errors
    from talkface.datasets.build.job import rebuild
    from talkface.datasets.reader import Dataset
    from talkface.datasets.sidecars.job import remake
    from talkface.datasets.verify.dataset import verify
    from talkface.datasets.verify.sidecar import broken_sidecars
    from talkface.store import Folder
    from talkface.weights import Models

    problems = verify(url)
    wrong = [p for p in problems if not p.note]
    folder = Folder(url)
    if wrong and repair and folder.exists():
        for problem in wrong:
            console.print(f"found: {problem}", markup=False)
        with folder.lock():
            if any(not p.note for p in verify(url, sidecars=False)):
                rebuild(folder)
            for name in broken_sidecars(Dataset(url)):
                remake(url, name, Models(models, offline=offline), workers=worker_count(workers))
        problems = verify(url)
        wrong = [p for p in problems if not p.note]
    for problem in problems:
        if problem.note:
            console.print(f"note: {problem}", markup=False)
        else:
            errors.print(str(problem), markup=False)
    console.print(f"{url}: {len(wrong)} problems" if wrong else f"{url}: {len(Dataset(url))} clips, all as promised")
    raise typer.Exit(FAILED if wrong else OK)
