"""talkface: raw talking-face videos in, trustworthy annotated datasets out."""

__version__ = "0.1.0"
