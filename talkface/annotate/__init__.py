"""Pictures and sound to named columns: one file an annotator."""

from talkface import make_callable

make_callable(__name__)
