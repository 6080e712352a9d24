"""Batches to models: one loop, and one file a task."""
