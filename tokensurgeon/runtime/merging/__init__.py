"""Tokens of the input merged while a model runs, with rows made for them; no weight changes."""
