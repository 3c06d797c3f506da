"""scikit-learn's array API: X stays on its device, and dense results are arrays of its library there.

This applies under ``sklearn.config_context(array_api_dispatch=True)``. Inside the package such an X is a
tensor that shares its memory. Fitted attributes, words and sparse results do not depend on it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn import get_config
from sklearn.utils._array_api import _is_numpy_namespace, get_namespace

from flip_sklearn.backend.device import Embeddings, as_shared_tensor, dense_tensor

FLOAT_FORMATS = ("float64", "float32", "float16", "bfloat16")


def namespace_of(X: Any) -> Any:
    """The functions of X's array library, or None if X is to be converted to NumPy."""
    if not get_config()["array_api_dispatch"]:
        return None
    xp, is_array = get_namespace(X)
    return xp if is_array and not _is_numpy_namespace(xp) else None


def float_formats(xp: Any) -> list[Any]:
    """The formats of embeddings that a library has, the one for integers first."""
    return [getattr(xp, name) for name in FLOAT_FORMATS if hasattr(xp, name)]


def beside(X: Embeddings, array: np.ndarray) -> Embeddings:
    """A small array, such as a mean, as an array of the kind of X and on its device."""
    return array if isinstance(X, np.ndarray) else as_shared_tensor(array).to(X.device)


def like(X: Any, result: Any, dtype: np.dtype) -> Any:
    """A dense result in a number format, as an array of the library of X and on the device of X.

    ``result`` is a tensor on that device, or an ndarray if X is not of another library.
    """
    xp = namespace_of(X)
    if xp is None:
        return result.astype(dtype, copy=False)
    if not hasattr(X, "detach"):
        result = xp.from_dlpack(result, device=X.device)
    return xp.astype(result, getattr(xp, dtype.name), copy=False)


def to_dense(rows: sp.csr_array, embeddings: Embeddings) -> Any:
    """Sparse rows as a dense array of the kind of the checked embeddings, on their device."""
    if isinstance(embeddings, np.ndarray):
        return rows.toarray()
    return dense_tensor(rows, embeddings.device)
