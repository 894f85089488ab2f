"""The version of the package, which reports and vocabularies name."""

__version__ = "0.2.0"
