"""An annotator, a task and a metric that talkface finds once this package is installed."""
