"""Jobs: several steps that belong together as one function, with the proof of what they kept."""

from __future__ import annotations
