from talkface.api.annotate import annotate as annotate
from talkface.api.dataset import export as export
from talkface.api.dataset import open_dataset as open_dataset
from talkface.api.evaluate import evaluate as evaluate
from talkface.api.ingest import ingest as ingest
from talkface.api.render import render as render
from talkface.api.sample import sample as sample
from talkface.api.sample import transfer as transfer
from talkface.api.train import train as train

__version__: str

def make_callable(name: str) -> None: ...
