"""Whose terms bind, and the gate that refuses some before anything is done."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from talkface.errors import ConfigError

Use = Literal["any", "commercial"]
"""What the output is for: ``commercial`` refuses whatever forbids it."""

UNKNOWN: Final = "unknown"

_USE: Final = "(?:use[sd]?|purposes?|only)"
_FORBIDDEN: Final = (
    "(?:not|never|cannot|dont) (?:(?:be|to|for|in|any|or|and|use[sd]?|allowed|permitted|licensed|intended|research) )*"
)
NON_COMMERCIAL: Final = re.compile(
    r"\b(?:nc\d*|(?:cc ?)?by ?nc\w*|without commercial"
    r"|(?<!commercial and )(?<!commercial or )(?:non|no) ?commercial(?:ly)?(?! (?:and|or) commercial)"
    rf"|{_FORBIDDEN}commercial(?:ly)?"
    r"|commercial(?: \w+)?(?: (?:is|are))? (?:not (?:allowed|permitted)|prohibited|forbidden|excluded)"
    rf"|non ?profit {_USE})\b"
)
"""Words that forbid commercial use outright, in a text as `_plain` has it. What is also for commerce is not meant."""
LIMITED: Final = re.compile(
    r"\b(?:(?:research(?:ers?)?|academics?|academia)(?! (?:and|or) commercial)(?! (?:free|public) licen[cs]e)"
    rf"|(?:personal|private|scientific|education|educational|teaching) {_USE}|for (?:personal|private)"
    r"|for evaluation|evaluation (?:\w+ )?only|evaluation licen[cs]e)\b"
)
"""Words that allow a purpose which commerce is not. The names of AFL and OCLC's licence, which are free, have some."""
UNSTATED: Final = re.compile(r"^$|\b(?:unknown|none|unstated|unspecified|undisclosed|not (?:stated|specified|known))\b")


def strictest(licences: Sequence[str]) -> str:
    """The licence that binds most: non-commercial, then for research and the like, then unknown, then the rest."""
    return max(sorted(licences), key=_strictness, default=UNKNOWN)


def _strictness(licence: str) -> tuple[bool, ...]:
    """Whether a licence has each kind of term, the strictest kind first: they are compared in this order.

    One that is unknown may turn out to allow nothing at all. It still gives way to one that is known to forbid:
    ``forbids_commerce`` of the strictest is then that of all, so that what is forbidden never hides behind what nobody
    knows. It goes before all that is known to allow. What somebody takes an unstated licence for is no term of it.
    """
    text = _plain(licence)
    unknown, limited = is_unknown(licence), LIMITED.search(text) is not None
    return (
        NON_COMMERCIAL.search(text) is not None,
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
    return NON_COMMERCIAL.search(text) is not None or LIMITED.search(text) is not None


def _plain(licence: str) -> str:
    """Words in small letters with a space between: ``CC_BY-NC`` is ``cc by nc``."""
    return re.sub(r"[\W_]+", " ", re.sub("['’]", "", licence.lower())).strip()


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
