"""Raw files to packs of annotated clips."""

from talkface import make_callable

make_callable(__name__)
