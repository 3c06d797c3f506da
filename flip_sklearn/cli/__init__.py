"""The ``flip-sklearn`` command."""

from flip_sklearn.cli.app import main

__all__ = ["main"]
