"""talkface: raw talking-face videos in, trustworthy annotated datasets and talking faces out.

    ingest        raw videos to a dataset            train      a dataset to a trained model
    annotate      columns added to a dataset         sample     a sound to motion or video
    open_dataset  a dataset to read                  transfer   a picture that moves as another face does
    evaluate      numbers of generated faces         render     motion to a picture or video
    export        a dataset in other forms

Each does what the command of its name does, with the same defaults, returns its result and raises `TalkfaceError`.
Nothing is imported before it is called. Examples are in docs/python.md.
"""

import importlib.util
import sys
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

_PLACES = {
    "ingest": "ingest", "annotate": "annotate", "open_dataset": "dataset", "train": "train", "sample": "sample",
    "transfer": "sample", "evaluate": "evaluate", "render": "render", "export": "dataset",
}  # fmt: skip
"""Where in `talkface.api` each function is."""

__all__ = (
    "annotate", "evaluate", "export", "ingest", "open_dataset", "render", "sample", "train", "transfer",
)  # fmt: skip


def _function(name: str) -> Any:
    return getattr(importlib.import_module(f"talkface.api.{_PLACES[name]}"), name)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'talkface' has no attribute {name!r}")
    # A folder of this name is a module that can be called (`CallableModule`): it is what imports leave here, too.
    is_folder = importlib.util.find_spec(f"talkface.{name}") is not None
    return importlib.import_module(f"talkface.{name}") if is_folder else _function(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})


class CallableModule(ModuleType):
    """A package whose name is also that of a public function: ``talkface.ingest(...)`` calls the function, and
    ``talkface.ingest.scan`` is still a module of the package."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _function(self.__name__.rpartition(".")[2])(*args, **kwargs)

    @property
    def __wrapped__(self) -> Any:
        return _function(self.__name__.rpartition(".")[2])


def make_callable(name: str) -> None:
    """Make the module of this name callable."""
    sys.modules[name].__class__ = CallableModule
