"""A patched checkpoint handed over to the tools with which people train on."""

from __future__ import annotations
