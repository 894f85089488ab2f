"""Vocabularies that move while a model runs; no weight changes."""
