"""Whose terms bind, and the gate that refuses some before anything is done."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from talkface.errors import ConfigError

Use = Literal["any", "commercial"]
"""What the output is for: ``commercial`` refuses whatever forbids it."""

NON_COMMERCIAL: Final = re.compile(r"\b(nc|non-?commercial|research|academic)\b", re.IGNORECASE)

UNKNOWN: Final = "unknown"

ORDER: Final = (UNKNOWN, r"research|academic|non-?commercial|nc", "sa", "by")


def strictest(licences: Sequence[str]) -> str:
    """The licence that binds most: unknown, then non-commercial, then share-alike, then the rest."""

    def rank(licence: str) -> tuple[int, str]:
        text = licence.lower()
        return next((i for i, words in enumerate(ORDER) if re.search(rf"\b({words})\b", text)), len(ORDER)), text

    return min(licences, key=rank, default=UNKNOWN)


def forbids_commerce(licence: str) -> bool:
    """Whether a licence's name says that commercial use is not allowed; one that is unknown does not say."""
    return NON_COMMERCIAL.search(licence) is not None


def require_use(use: Use, annotators: Mapping[str, tuple[str, Iterable[Mapping[str, Any]]]]) -> None:
    """Raise ConfigError naming annotator, weight and licence where one of them forbids the use.

    ``annotators`` maps a name to its licence and its weights, as ``Weight.row`` has them.
    """
    if use == "any":
        return
    for name, (licence, weights) in annotators.items():
        if forbids_commerce(licence):
            raise ConfigError(f"{name}: its licence, {licence}, forbids commercial use. Leave it out.")
        for weight in weights:
            if not weight["commercial"]:
                raise ConfigError(
                    f"{name}: its model file {weight['name']} has the licence {weight['licence']}, which does not "
                    "allow commercial use. Leave it out."
                )


def require_sources(use: Use, licences: Mapping[str, str]) -> None:
    """Raise ConfigError for the first source (name to licence) whose licence is known to forbid the use."""
    for name, licence in licences.items() if use == "commercial" else ():
        if forbids_commerce(licence):
            raise ConfigError(f"{name}: its licence, {licence}, forbids commercial use. Leave it out of the input.")
