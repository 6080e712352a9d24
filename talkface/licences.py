"""Whose terms bind, and the gate that refuses some before anything is done."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from talkface.errors import ConfigError

Use = Literal["any", "commercial"]
"""What the output is for: ``commercial`` refuses whatever forbids it."""

UNKNOWN: Final = "unknown"

_NAMES: Final = re.compile(
    r"\b(?:academic free|educational community|research public) licen[cs]e\b|\b(?:no|not|without) (?:\w+ )?restrict\w*"
)
"""Free licences whose names sound like a limit, and words that say that there is none."""
_BOTH: Final = re.compile(
    r"\b(?:research|non ?commercial) (?:and|or) commercial\b|\bcommercial (?:and|or) (?:research|non ?commercial)\b"
)
_NO: Final = re.compile(
    r"\b(?:no|non|not|never|without|cannot|dont|(?:prohibit|forbid|exclud|disallow|restrict|except)\w*)\b"
)
NON_COMMERCIAL: Final = re.compile(r"\b(?:nc\d*|(?:cc ?)?by ?nc\w*|noncommercial\w*|(?:non|not for) ?profit)\b")
LIMITED: Final = re.compile(
    r"\b(?:research(?:ers?)?|academics?|academia|evaluation|proprietary|all rights reserved|for (?:personal|private)"
    r"|(?:personal|private|internal|scientific|education(?:al)?|teaching|students?) (?:use[sd]?|purposes?|only))\b"
)
"""Words that allow a purpose which commerce is not."""
UNSTATED: Final = re.compile(
    r"^$|\b(?:unknown|none|unstated|unspecified|undisclosed|not (?:stated|specified|known)|n a|no licen[cs]e|tbd)\b"
)


def strictest(licences: Sequence[str]) -> str:
    """The licence that binds most: non-commercial, then for research and the like, then unknown, then the rest."""
    return max(sorted(licences), key=_strictness, default=UNKNOWN)


def _strictness(licence: str) -> tuple[bool, ...]:
    """Whether a licence has each kind of term, the strictest kind first: they are compared in this order.

    One that is unknown may turn out to allow nothing at all. It still gives way to one that is known to forbid:
    ``forbids_commerce`` of the strictest is then that of all, so that what is forbidden never hides behind what nobody
    knows. It goes before all that is known to allow. What somebody takes an unstated licence for is no term of it.
    """
    text, unknown = _plain(licence), is_unknown(licence)
    limited = LIMITED.search(text) is not None
    return (
        _is_non_commercial(text),
        limited and not unknown,
        unknown,
        limited,
        re.search(r"\bsa\b", text) is not None,
        re.search(r"\bby\b", text) is not None,
    )


def is_unknown(licence: str) -> bool:
    """Whether a licence's name says that nobody knows it, or that none is stated."""
    return UNSTATED.search(_plain(licence)) is not None


def forbids_commerce(licence: str) -> bool:
    """Whether a licence's name says that commercial use is not allowed; one that is unknown does not say.

    Any text may come in: where it can be read either way, it forbids.
    """
    text = _plain(licence)
    return _is_non_commercial(text) or LIMITED.search(text) is not None


def _is_non_commercial(text: str) -> bool:
    """Forbidden by its name, or commerce and a no in one text."""
    return NON_COMMERCIAL.search(text) is not None or ("commercial" in text and _NO.search(text) is not None)


def _plain(licence: str) -> str:
    """Words in small letters with a space between, without what limits nothing: ``CC_BY-NC`` is ``cc by nc``."""
    words = re.sub(r"[\W_]+", " ", re.sub("['’]", "", licence.lower())).strip()
    return _BOTH.sub("commercial", _NAMES.sub("free", words))


def require_use(use: Use, annotators: Mapping[str, tuple[str, Iterable[Mapping[str, Any]]]]) -> None:
    """Raise ConfigError naming annotator, weight and licence where one of them forbids the use, a line for each.

    ``annotators`` maps a name to its licence and its weights, as ``Weight.row`` has them.
    """
    refused = [line for name, terms in annotators.items() for line in _refusals(name, *terms)]
    if use == "commercial" and refused:
        raise ConfigError("\n".join(refused))


def _refusals(name: str, licence: str, weights: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """What of an annotator forbids commercial use."""
    if forbids_commerce(licence):
        yield f"{name}: its licence, {licence}, forbids commercial use. Leave it out."
    for weight in weights:
        if not weight["commercial"]:
            yield (
                f"{name}: its model file {weight['name']} has the licence {weight['licence']}, which does not "
                "allow commercial use. Leave it out."
            )


def require_sources(use: Use, licences: Mapping[str, str]) -> None:
    """Raise ConfigError for the first source (name to licence) whose licence is known to forbid the use."""
    for name, licence in licences.items() if use == "commercial" else ():
        if forbids_commerce(licence):
            raise ConfigError(f"{name}: its licence, {licence}, forbids commercial use. Leave it out of the input.")
