"""Columns added to a finished dataset."""
