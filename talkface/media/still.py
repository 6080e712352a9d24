"""Decoding a picture file."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from talkface.errors import MediaError


def read_picture(path: str | Path) -> UInt8[np.ndarray, "height width 3"]:
    """RGB pixels of a picture file (PNG, JPEG, WebP, ...), turned upright as its EXIF data says.

    Raises MediaError for what is missing, cannot be read, or is no picture.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        reason = "missing" if isinstance(error, FileNotFoundError) else "unreadable"
        raise MediaError(f"{path}: cannot be read ({error.strerror}). Check the path.", reason) from error
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
    if found is None:
        raise MediaError(f"{path}: not a picture that can be decoded. Give a PNG, JPEG or WebP file.", "not_media")
    return np.asarray(found, np.uint8)
