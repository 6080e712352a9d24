"""Networks in PyTorch, one file each: they know tensors and nothing of datasets, annotators or tasks."""
