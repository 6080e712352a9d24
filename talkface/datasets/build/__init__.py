"""Packs to shards, manifests and a card."""
