"""Jobs: several steps that belong together, as one function each."""

from tokensurgeon.jobs.extend import extend

__all__ = ["extend"]
