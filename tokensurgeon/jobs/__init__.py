"""Whole jobs on a model's vocabulary, each with the proof of what it kept."""

from __future__ import annotations
