"""Batches to models: one loop, and one file a task."""

from talkface import make_callable

make_callable(__name__)
