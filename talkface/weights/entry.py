"""What is known of one model file: where it comes from, its content, its terms."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from talkface.licences import UNKNOWN

Kind = Literal["download", "wheel", "package", "pypi", "npm", "registration", "folder", "hub"]

PUBLISHED: Final = ("pypi", "npm")
"""Kinds that lie inside a package of a registry and are taken out of it."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file of a model that is a folder; ``size`` 0 and ``sha256`` "" mean that any content is taken."""

    name: str
    sha256: str = ""
    size: int = 0


@dataclass(frozen=True, kw_only=True)
class Weight:
    """One model file, or a folder of them where ``parts`` names its files.

    ``kind`` says how it is had: ``download`` from ``url``; inside the installed ``wheel`` or ``package`` named
    ``module``, at ``file`` below its folder; as ``member`` of ``module`` ``version`` on ``pypi`` or ``npm``, which the
    package manager's client downloads and nobody installs; or after ``registration`` at ``url``, by hand. Two kinds are
    never in the registry: any ``folder``, and what Hugging Face's ``hub`` keeps under ``owner/name@commit``.

    ``size`` is in bytes; ``size`` 0 and ``sha256`` "" mean that any content is taken, and are filled in for the file
    that was found; a folder's hash is that of its files' names and hashes. ``check`` is ``module:function``, called
    with the path where the hash cannot be known: it raises WeightsError if the content is not that of such a model.
    ``sha256_head`` is the beginning of a hash of which only that is known: torchvision's names end with eight digits.
    ``commercial`` is whether the licence allows commercial use. ``install`` is the command that brings a wheel.
    """

    name: str
    file: str
    kind: Kind
    licence: str
    commercial: bool
    description: str
    url: str = ""
    sha256: str = ""
    size: int = 0
    module: str = ""
    version: str = ""
    member: str = ""
    install: str = ""
    parts: tuple[Part, ...] = ()
    check: str = ""
    sha256_head: str = ""

    @property
    def filename(self) -> str:
        """Name of the file without folders."""
        return Path(self.file).name

    def row(self) -> dict[str, Any]:
        """What a dataset records of a file that it was made with."""
        return {"name": self.name, "sha256": self.sha256, "licence": self.licence, "commercial": self.commercial}


def how_to_get(weight: Weight) -> str:
    """The sentence that ends every message about a file that is missing or wrong."""
    by_hand = f"toolkit models add {weight.name} PATH"
    if weight.kind in ("wheel", "package"):
        return f"Run: {weight.install}"
    if weight.kind == "registration":
        return f"Register and accept its licence at {weight.url}, then run: {by_hand}"
    pull = f"Where there is a network run: toolkit models pull {weight.name}; with a copy at hand"
    if weight.kind == "hub":
        return f"{pull}, give its folder in place of its name"
    return f"{pull}: {by_hand}"


def unregistered(name: str, kind: Literal["folder", "hub"]) -> Weight:
    """The entry of a folder of the user or of a model on Hugging Face: any content, terms unknown.

    Datasets are given away, so a folder goes by its own name, without those above it; the slash at its end tells it
    from an entry of the registry.
    """
    is_folder = kind == "folder"
    called = f"{Path(name).absolute().name}/" if is_folder else name
    what = "folder of the user" if is_folder else "model on Hugging Face"
    return Weight(name=called, file=name, kind=kind, licence=UNKNOWN, commercial=False, description=what)
