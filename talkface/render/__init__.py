"""Motion to pictures: the synthetic talking face and overlays."""

from talkface import make_callable

make_callable(__name__)
