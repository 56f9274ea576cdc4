"""The version of this package, which stores and reports name."""

__version__ = "0.1.0"
