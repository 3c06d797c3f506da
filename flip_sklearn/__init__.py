"""Read words off sentence embeddings: FLiP, factorized linear projection, for scikit-learn.

The public names are imported when they are first used, so that ``import flip_sklearn`` loads neither torch
nor scikit-learn.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from flip_sklearn.persistence import renamed

if TYPE_CHECKING:
    from flip_sklearn.bulk import KeywordMapper
    from flip_sklearn.eraser import WordEraser
    from flip_sklearn.estimation.directions import DirectionWords
    from flip_sklearn.extractor import FLiPExtractor
    from flip_sklearn.metrics import keyword_accuracy, keyword_accuracy_scorer
    from flip_sklearn.path import RegularizationPath, kkt_residual, regularization_path
    from flip_sklearn.splice import SpLiCEExtractor
    from flip_sklearn.text import TextKeywordExtractor
    from flip_sklearn.views import StackedViews, ViewCenterer, stack_views
    from flip_sklearn.vocabulary import ConceptVectorizer

__version__ = "0.2.0.dev0"

__all__ = [
    "ConceptVectorizer",
    "DirectionWords",
    "FLiPExtractor",
    "KeywordMapper",
    "RegularizationPath",
    "SpLiCEExtractor",
    "StackedViews",
    "TextKeywordExtractor",
    "ViewCenterer",
    "WordEraser",
    "keyword_accuracy",
    "keyword_accuracy_scorer",
    "kkt_residual",
    "regularization_path",
    "stack_views",
]

_MODULE_OF = {
    "ConceptVectorizer": "vocabulary",
    "DirectionWords": "estimation.directions",
    "FLiPExtractor": "extractor",
    "KeywordMapper": "bulk",
    "RegularizationPath": "path",
    "SpLiCEExtractor": "splice",
    "StackedViews": "views",
    "TextKeywordExtractor": "text",
    "ViewCenterer": "views",
    "WordEraser": "eraser",
    "keyword_accuracy": "metrics",
    "keyword_accuracy_scorer": "metrics",
    "kkt_residual": "path",
    "regularization_path": "path",
    "stack_views": "views",
}
# Imported on attribute access, too: `import flip_sklearn; flip_sklearn.metrics.perplexity`.
_SUBMODULES = {
    "bulk", "datasets", "diagnostics", "encoders", "eraser", "extractor", "metrics", "path", "plots",
    "report", "splice", "text", "views", "vocabulary",
}  # fmt: skip

renamed.register()


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})
