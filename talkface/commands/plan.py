"""``toolkit plan``."""

from talkface.commands._options import (
    Config,
    Inputs,
    Layout,
    ModelsDir,
    Offline,
    Out,
    Speaking,
    Video,
    With,
    Workers,
    settings_of,
    worker_count,
)


def command(
    inputs: Inputs,
    out: Out = "dataset",
    workers: Workers = None,
    models: ModelsDir = None,
    offline: Offline = False,
    config: Config = None,
    layout: Layout = None,
    with_: With = None,
    video: Video = True,
    speaking: Speaking = False,
) -> None:
    """Try a few seconds and say what an ingest would take: time, disk, clips, rejects. Writes nothing.

    Example: `toolkit plan ./videos`
    """
    from talkface.console import print_forecast
    from talkface.ingest.plan import forecast
    from talkface.ingest.scan import scan
    from talkface.store import Folder
    from talkface.weights import Models

    settings = settings_of(config, layout, with_, video, speaking)
    scanned = scan(inputs, settings.layout, duplicates=settings.duplicates, but=out)
    count = worker_count(workers)
    store = Models(models, offline=offline)
    print_forecast(forecast(scanned, Folder(out), settings, store, workers=count), count)
