"""What every picture and video that is made here says of itself."""

import json

import talkface


def label(sentence: str, **about: object) -> dict[str, str]:
    """Tags of a file: that it is synthetic, in words and in JSON, and how it was made."""
    return {
        "title": "Synthetic talking face",
        "comment": f"Synthetic: not a recording of a person. {sentence}",
        "description": json.dumps({"synthetic": True, "talkface": talkface.__version__, **about}, sort_keys=True),
    }
