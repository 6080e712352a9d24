"""The Layout protocol, discovery by file name, recognition, and the one place where emotion words are understood.

A new dataset is one new file here: ``xyz.py`` with a class ``Layout`` makes ``--layout xyz`` work and lets ``auto``
find it. Modules whose name starts with an underscore are not discovered.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from talkface import discover
from talkface.clip import Labels

AUTO: Final = "auto"
PLAIN: Final = "plain"

ENOUGH: Final = 0.5
"""Share of an input's files that a layout must recognise before ``auto`` takes it."""

SOUND_ENDINGS: Final = (".wav", ".m4a", ".flac", ".mp3", ".aac", ".ogg", ".opus")
"""Endings of a sound file that may belong to a picture file, the most wanted first."""


class Layout(Protocol):
    """How one dataset lays out its files. Paths have ``/`` between their parts, whatever the system.

    ``side_file`` names a file of labels that may lie in the input folder or beside it; its content is given to the
    constructor. ``hint`` is a word that must be in the paths for ``auto`` to consider the layout without its side file,
    where names alone say too little. ``licence`` is the dataset's own.
    """

    name: str
    licence: str
    side_file: str
    hint: str

    def __init__(self, side: bytes | None = None) -> None: ...

    def labels(self, path: str) -> Labels | None:
        """What the path says; None if it is not a path of this dataset."""

    def audio(self, path: str) -> Sequence[str]:
        """Paths where the sound of a silent picture file may lie, the likeliest first."""


def layout_names() -> tuple[str, ...]:
    """Names of all layouts: the files of this folder, and what installed packages offer."""
    return discover.names(discover.LAYOUTS)


def layout_class(name: str) -> type[Layout]:
    """The class of a layout by its name, or by ``package.module:Class``.

    Raises ConfigError for one that is not there.
    """
    loaded: type[Layout] = discover.load(discover.LAYOUTS, name)
    return loaded


def share(layout: Layout, paths: Sequence[str]) -> float:
    """Share of the paths that the layout recognises."""
    return sum(layout.labels(p) is not None for p in paths) / len(paths) if paths else 0.0


def load(name: str, paths: Sequence[str], sides: Mapping[str, bytes]) -> Layout:
    """The layout of that name, or for ``auto`` the one that recognises the paths. ``sides`` are side files by name.

    ``auto`` takes the layout that recognises most paths, ``plain`` if none recognises ``ENOUGH`` of them. A tie goes to
    the layout that tells more labels, then to the first by name.
    """
    names = layout_names() if name == AUTO else (name,)
    layouts = [cls(sides.get(cls.side_file)) for cls in map(layout_class, names)]
    if name != AUTO:
        return layouts[0]
    known = [x for x in layouts if x.name != PLAIN and _may_be(x, paths, sides)]
    scores = [(share(x, paths), _labels_told(x, paths), x) for x in known]
    scores.sort(key=lambda score: (-score[0], -score[1], score[2].name))
    best = scores[0] if scores and scores[0][0] >= ENOUGH else None
    return best[2] if best else layout_class(PLAIN)()


def _may_be(layout: Layout, paths: Sequence[str], sides: Mapping[str, bytes]) -> bool:
    return layout.side_file in sides or any(layout.hint in path.lower() for path in paths)


def _labels_told(layout: Layout, paths: Sequence[str]) -> int:
    found = (layout.labels(p) for p in paths)
    return sum(value is not None for labels in found if labels for value in vars(labels).values())


_WORDS: Final = {
    "angry": ("anger", "ang"),
    "contempt": ("contemptuous", "con"),
    "disgusted": ("disgust", "dis"),
    "fear": ("fearful", "afraid", "scared", "fea"),
    "happy": ("happiness", "joy", "hap"),
    "neutral": ("calm", "neu"),
    "sad": ("sadness",),
    "surprised": ("surprise", "sur"),
}

EMOTION_WORDS: Final = {word: name for name, words in _WORDS.items() for word in (name, *words)}
"""Every word for an emotion that any layout or list may use, in lower case, to its name in `talkface.vocab`."""


def emotion_of(word: str) -> str | None:
    """The emotion's name in `talkface.vocab.EMOTIONS`, or None for a word that is not known."""
    return EMOTION_WORDS.get(word.strip().lower())


def with_ending(path: str, endings: Sequence[str] = SOUND_ENDINGS) -> list[str]:
    """The path with other endings instead of its own."""
    stem = path.rpartition(".")[0] if "." in path.rpartition("/")[2] else path
    return [stem + ending for ending in endings]
