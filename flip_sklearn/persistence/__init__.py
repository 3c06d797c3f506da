"""Fitted models in folders and on the Hugging Face hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flip_sklearn.persistence.mixin import PretrainedMixin

__all__ = ["PretrainedMixin"]


def __getattr__(name: str) -> Any:
    # Imported when it is used: `import flip_sklearn` needs this folder, but not torch.
    if name != "PretrainedMixin":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from flip_sklearn.persistence.mixin import PretrainedMixin

    return PretrainedMixin
