"""Errors and warnings on standard error; loads neither torch nor NumPy."""

from __future__ import annotations

import sys
from typing import Any

# Errors that a user can correct; is_user_error adds some of the ImportErrors and RuntimeErrors.
USER_ERRORS = (ValueError, OSError, MemoryError, FloatingPointError)


def is_user_error(error: Exception) -> bool:
    """Whether an error is one that the user can correct, not a fault of this package."""
    if isinstance(error, ImportError):
        return error.name is None  # the message of a missing extra; Python's own errors have a name
    if isinstance(error, RuntimeError):
        from flip_sklearn.encoders import EncodingError

        torch = sys.modules.get("torch")
        out_of_memory = () if torch is None else (torch.OutOfMemoryError,)
        return isinstance(error, (EncodingError, *out_of_memory))
    return isinstance(error, USER_ERRORS)


def write_message(text: str) -> None:
    """Write a message to standard error, if it is open."""
    if sys.stderr is not None:
        sys.stderr.write(f"flip-sklearn: {text}\n")


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Write a warning to standard error; replaces ``warnings.showwarning``."""
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stderr):  # clears the progress bars and draws them again
        write_message(f"warning: {message}")
