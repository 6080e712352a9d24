"""From raw videos to a finished dataset: an ingest, and what is built of its packs."""

from talkface.config import Ingest
from talkface.datasets.build.packs import PackUse, Plan
from talkface.ingest.job import IngestResult


def plan_of(result: IngestResult, settings: Ingest) -> Plan:
    """What to build a dataset of after an ingest."""
    return Plan(
        sources=result.sources,
        packs=[PackUse(name=u.name, source=u.source.name, prefix=f"{u.key}-") for u in result.units],
        rejects=result.rejects,
        columns=result.columns,
        scores=result.scores,
        info=result.info,
        has_video=settings.pack.keep_video,
        build=settings.build,
    )
