"""Vocabularies that change while a model runs."""
