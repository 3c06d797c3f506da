"""The ``flip-sklearn`` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command and exit with its exit code.

    Parameters
    ----------
    argv : sequence of str, default=None
        The arguments; those of the process when None.

    Raises
    ------
    SystemExit
        Always, with the exit code.
    """
    try:
        # Imported here, so that Ctrl-C during the import has no traceback.
        from flip_sklearn.cli.app import main as run

        run(argv)
    except KeyboardInterrupt:
        if sys.stderr is not None:
            sys.stderr.write("flip-sklearn: interrupted\n")
        sys.exit(130)
