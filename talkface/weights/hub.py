"""Models on Hugging Face, by ``owner/name@commit``: where its cache keeps them, and how they get there."""

import re
from pathlib import Path
from typing import Final

HUB_NAME: Final = re.compile(r"([\w.-]+/[\w.-]+)@([0-9a-f]{40})")
"""A model and the commit that pins its files."""
UNPINNED: Final = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(@[^/]*)?")
"""A model without a commit, or with what is none."""
HUB_FILES: Final = ("*.json", "*.txt", "*.safetensors", "*.bin")


def from_hub(name: str, *, offline: bool) -> Path | None:
    """Folder of a model in Hugging Face's cache; None if it is not there and ``offline``."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415 (0.15 s that no command should wait for)
    from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: PLC0415

    match = HUB_NAME.fullmatch(name)
    assert match, name
    try:
        folder = snapshot_download(
            match[1], revision=match[2], local_files_only=offline, allow_patterns=list(HUB_FILES)
        )
    except LocalEntryNotFoundError:
        if offline:
            return None
        raise
    return Path(folder)
