"""Run metrics over a comparison: every number with its unit, and a reason for every metric that could not run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from talkface.errors import WeightsError
from talkface.metrics.base import Comparison, Face, Metric, WithWeights, metric, metric_names
from talkface.metrics.clocks import notes
from talkface.weights import Models

_SETS = ("pairs", "references", "sync_expert", "flame_model")


def evaluate(given: Comparison, names: Sequence[str] | None = None, models: Models | None = None) -> dict[str, Any]:
    """Plain JSON: ``values`` by name (value, reference, unit, better, description, metric, faces), and why others, and
    columns that must not be read, were ``skipped``; ``weights`` by metric; ``notes`` on how pairs met.

    ``reference`` is the same number of the references, where a metric describes faces. Raises ConfigError for a metric
    that is not there.
    """
    found: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    weights: dict[str, Any] = {}
    there = Models() if models is None else models
    for name in metric_names() if names is None else names:
        measure = metric(name)
        ready = ready_for(measure, given)
        if isinstance(ready, str):
            skipped[name] = ready
            continue
        try:
            weights |= _opened(measure, there)
        except WeightsError as error:
            skipped[name] = str(error)
            continue
        numbers = measure.compute(ready)
        mirrored = _of_references(measure, given)
        for value, about in measure.values.items():
            found[value] = {
                "value": _plain(numbers[value]),
                "reference": _plain(mirrored.get(value, np.nan)),
                "unit": about.unit,
                "better": about.better,
                "description": about.description,
                "metric": name,
                "faces": len(ready.pairs if "pairs" in measure.needs else ready.generated),
                "settings": dict(getattr(measure, "settings", {})),
            }
    for face in (*given.generated, *given.references):
        skipped |= face.lacking
    return {"values": found, "skipped": skipped, "weights": weights, "notes": notes(given.pairs)}


def _opened(measure: Metric, models: Models) -> dict[str, Any]:
    """The files that a metric looks through, by its name; none for a metric without."""
    if not isinstance(measure, WithWeights):
        return {}
    chosen = [models.choose(group)[0] for group in measure.weights]
    measure.open(models)
    return {measure.name: [weight.row() for weight in chosen]}


def ready_for(measure: Metric, given: Comparison) -> Comparison | str:
    """The part of a comparison that a metric can look at, or what is lacking."""
    for what in _SETS:
        if what in measure.needs and not getattr(given, what):
            return given.lacking.get(what, f"no {what.replace('_', ' ')}")
    wanted = [n for n in measure.needs if n not in _SETS]

    def fits(face: Face) -> bool:
        return all(face.has(n) for n in wanted)

    part = replace(
        given,
        generated=[f for f in given.generated if fits(f)],
        references=[f for f in given.references if fits(f)],
        pairs=[(a, b) for a, b in given.pairs if fits(a) and all(b.has(n) for n in wanted if n != "sound")],
    )
    for what in ("generated", *(n for n in ("pairs", "references") if n in measure.needs)):
        if not getattr(part, what):
            return f"no {what.removesuffix('s')} face with {' and '.join(wanted)}"
    return part


def _of_references(measure: Metric, given: Comparison) -> Mapping[str, float]:
    if not measure.describes or not given.references:
        return {}
    mirrored = ready_for(measure, replace(given, generated=given.references))
    return {} if isinstance(mirrored, str) else measure.compute(mirrored)


def _plain(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None
