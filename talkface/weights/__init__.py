"""Model files: what is known of them, and where they are on this machine.

``registry`` lists the files, ``models`` finds, fetches and checks them.
"""

from talkface.weights.entry import Part, Weight, how_to_get
from talkface.weights.models import VARIABLE, Models, Status
from talkface.weights.registry import REGISTRY

__all__ = ["REGISTRY", "VARIABLE", "Models", "Part", "Status", "Weight", "how_to_get"]
