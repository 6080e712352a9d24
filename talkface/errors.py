"""Everything talkface raises on purpose.

    TalkfaceError                what, where, and what to do, in one line (and one line each for all that is missing)
    |-- ConfigError              a configuration or a command line that cannot be honoured
    |-- SourceError              an input file: missing, unreadable, empty, not a video
    |   `-- MediaError           a container, a picture stream or a sound stream that cannot be decoded
    |       `-- StorageError     the storage or the network may be at fault, not the file: worth another try
    |-- WeightsError             a model file: missing, wrong hash, refused licence
    |-- DatasetError             a dataset on disk: a broken shard, a missing member, a wrong shape
    `-- RunError                 the run itself: no workers, no disk

User mistakes raise one of these; a broken promise between two parts of talkface is an AssertionError.
"""


class TalkfaceError(Exception):
    """Base of all errors a user may see; its text says what, where and what to do."""


class ConfigError(TalkfaceError):
    """A configuration or a command line that cannot be honoured."""


class SourceError(TalkfaceError):
    """An input file that cannot be used.

    ``reason`` is the short code that goes to rejects.parquet.
    """

    def __init__(self, message: str, reason: str = "unreadable") -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (str(self), self.reason)


class MediaError(SourceError):
    """A container or stream that cannot be decoded."""


class StorageError(MediaError):
    """An input file that could not be read just now, and not because of what is in it."""

    def __init__(self, message: str, reason: str = "storage") -> None:
        super().__init__(message, reason)


class WeightsError(TalkfaceError):
    """A model file that is missing, has the wrong hash, or whose licence is refused."""


class DatasetError(TalkfaceError):
    """A dataset on disk that does not hold what its manifest promises."""


class RunError(TalkfaceError):
    """The run cannot go on: no workers, no disk, a failed scheduler."""
