"""Word counts of any kind as a checked csr_array, the names of their columns, and rows of embeddings.

All functions that take counts use these: structure and values are checked before anything is converted,
and entries are converted before they are summed.
"""

from __future__ import annotations

from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import scipy.sparse as sp

from flip_sklearn.io import as_numpy
from flip_sklearn.parameters import is_integer, short_repr, warn_caller

TOO_LARGE = float(np.finfo(np.float32).max)


def count_matrix(Y: Any, *, integers: bool = False) -> sp.csr_array:
    """Return counts as CSR with sorted, unique, positive entries, without changing Y.

    Entries of one cell are summed in float64. The entries have the number format of Y, or float64.
    """
    counts = _as_sparse(Y)
    _check_values(counts, integers)
    if counts.format == "coo":  # its conversion sums entries of one cell, in their own format
        counts = sp.coo_array((counts.data.astype(np.float64), counts.coords), shape=counts.shape)
    counts = sp.csr_array(counts.tocsr())
    if not counts.has_canonical_format:
        counts = sp.csr_array(counts, dtype=np.float64, copy=True)
        counts.sum_duplicates()
    if counts.nnz and not counts.data.all():
        counts = counts.copy()
        counts.eliminate_zeros()
    return counts


def _as_sparse(Y: Any) -> sp.csr_array | sp.coo_array:
    """Y in any supported form as CSR, CSC or COO whose structure is right; entries are not summed."""
    if hasattr(Y, "sparse") and hasattr(Y.sparse, "to_coo"):  # a pandas frame of sparse columns
        Y = Y.sparse.to_coo()
    elif hasattr(Y, "layout") and "strided" not in str(Y.layout):
        Y = _from_sparse_tensor(Y)
    if not sp.issparse(Y):
        return _from_dense(dense_array(Y, "Y", "word counts of shape (n, V)"))
    return checked_sparse(Y, "Y")


def checked_sparse(Y: Any, name: str) -> Any:
    """Sparse rows of any format as CSR, CSC or COO whose structure is right; 1-D ones are one column.

    SciPy's conversions trust the structure, and read and write outside of the arrays if it is wrong.
    """
    if Y.ndim not in (1, 2):
        raise ValueError(f"{name} has {Y.ndim} dimensions; pass an array of shape (n, V), dense or sparse.")
    try:
        if Y.format == "lil":
            if [len(row) for row in Y.rows] != [len(row) for row in Y.data]:
                raise _Malformed("its rows have other numbers of values than of columns")
            Y = Y.tocsr()
        elif Y.format in ("dok", "dia"):
            Y = Y.tocoo()
        return _checked_coo(Y) if Y.format == "coo" else _checked_compressed(Y)
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"{name} is a malformed {type(Y).__name__} of shape {tuple(Y.shape)}: {error}. Indices must lie "
            "within its shape; build it again, for example as scipy.sparse.csr_array((values, (rows, "
            "columns)), shape)."
        ) from error


class _Malformed(ValueError):
    """What is wrong with the structure of a sparse array."""


def _checked_coo(Y: Any) -> sp.coo_array:
    """COO whose coordinates lie within its shape; 1-D counts are one column."""
    coordinates = [np.asarray(axis) for axis in Y.coords]
    data = _plain(Y.data)
    if len({axis.shape for axis in (data, *coordinates)}) != 1 or data.ndim != 1:
        raise _Malformed(f"it has {data.shape} values at {coordinates[0].shape} places")
    for name, axis, length in zip(("row", "column"), coordinates, Y.shape, strict=False):
        _check_range(name, axis, length)
    if Y.ndim == 1:
        coordinates.append(np.zeros_like(coordinates[0]))
    shape = (*Y.shape, 1)[:2]
    return sp.coo_array((data, tuple(coordinates)), shape=shape)


def _checked_compressed(Y: Any) -> Any:
    """CSR, CSC or BSR whose row starts and indices are right, as CSR or CSC (or COO if Y is 1-D)."""
    indptr, indices, data = np.asarray(Y.indptr), np.asarray(Y.indices), _plain(Y.data)
    height, width = Y.blocksize if Y.format == "bsr" else (1, 1)
    major, minor = (1, *Y.shape)[-2:]
    if Y.format == "csc":
        major, minor = minor, major
    _check_range("start", indptr, len(indices) + 1)
    if indptr.shape != (major // height + 1,) or indptr[0] != 0 or (np.diff(indptr) < 0).any():
        raise _Malformed("indptr does not rise from 0 with one entry per row (or column) and one more")
    if len(data) < indptr[-1]:
        raise _Malformed(f"it has {len(data)} values at {indptr[-1]} places")
    if len(data) != len(indices) or len(data) > indptr[-1]:
        indices, data = indices[: indptr[-1]], data[: indptr[-1]]
    _check_range("index", indices, minor // width)
    parts = data, indices, indptr
    if Y.format == "bsr":
        return sp.bsr_array(parts, shape=Y.shape).tocsr()
    if Y.ndim == 1:
        return sp.coo_array((data, (indices, np.zeros_like(indices))), shape=(minor, 1))
    return (sp.csr_array if Y.format == "csr" else sp.csc_array)(parts, shape=Y.shape)


def _check_range(name: str, indices: np.ndarray, length: int) -> None:
    if indices.dtype.kind not in "iu" or indices.ndim != 1:
        raise _Malformed(f"its indices are of type {indices.dtype} and {indices.ndim} dimensions")
    if len(indices) and (indices.min() < 0 or indices.max() >= length):
        value = indices.min() if indices.min() < 0 else indices.max()
        raise _Malformed(f"it has the {name} {value}, which is not in 0 to {length - 1}")


def _from_sparse_tensor(Y: Any) -> Any:
    """A sparse tensor of torch as SciPy's array; its entries are not summed."""
    layout, tensor = str(Y.layout).removeprefix("torch.sparse_"), Y.detach().cpu()
    if tensor.dense_dim():
        raise ValueError(
            f"Y is a sparse tensor with {tensor.dense_dim()} dense dimensions; pass Y.to_dense()."
        )
    if layout == "coo":
        values, indices = as_numpy(tensor._values()), as_numpy(tensor._indices())
        return _raw(sp.coo_array, tuple(tensor.shape), data=_plain(values), coords=tuple(indices))
    if layout not in ("csr", "csc"):
        raise ValueError(f"Y is a sparse tensor of layout {Y.layout}; pass Y.to_sparse_coo().")
    starts, indices = (
        (tensor.crow_indices(), tensor.col_indices())
        if layout == "csr"
        else (tensor.ccol_indices(), tensor.row_indices())
    )
    container = sp.csr_array if layout == "csr" else sp.csc_array
    parts = {"data": as_numpy(tensor.values()), "indices": as_numpy(indices), "indptr": as_numpy(starts)}
    return _raw(container, tuple(tensor.shape), **parts)


def _raw(container: Any, shape: tuple[int, ...], **parts: Any) -> Any:
    """A sparse array of parts that have not been checked."""
    array = container(shape)
    for name, value in parts.items():
        setattr(array, name, value)
    return array


def _from_dense(array: np.ndarray) -> sp.csr_array:
    """The non-zero entries of dense counts; a 1-D array is one column."""
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise ValueError(f"Y has {array.ndim} dimensions; pass word counts of shape (n, V), dense or sparse.")
    if array.dtype.kind not in "buifc":
        array = _from_objects(array)
    rows, columns = array.nonzero()
    # The format that SciPy gives to dense arrays; the file of a checkpoint is named after it, too.
    indices = np.int32 if array.size < 2**31 else np.int64
    starts = np.zeros(array.shape[0] + 1, dtype=indices)
    np.cumsum(np.bincount(rows, minlength=array.shape[0]), out=starts[1:])
    return sp.csr_array((_plain(array[rows, columns]), columns.astype(indices), starts), shape=array.shape)


def _from_objects(array: np.ndarray) -> np.ndarray:
    """Python numbers as float64. Texts, dates and missing values are refused."""
    try:
        if array.dtype.kind != "O" or any(isinstance(value, str | bytes) for value in array.flat):
            raise TypeError
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Y holds values of type {array.dtype}; pass word counts, for example "
            "CountVectorizer().fit_transform(texts)."
        ) from error


def _plain(values: Any) -> np.ndarray:
    """Values in a number format that SciPy has."""
    data: np.ndarray = np.asarray(values)
    if data.dtype.kind == "f" and data.dtype.itemsize not in (4, 8):
        return data.astype(np.float32 if data.dtype.itemsize < 4 else np.float64)
    return data.astype(data.dtype.newbyteorder("="), copy=False)


def _check_values(counts: Any, integers: bool) -> None:
    data = counts.data
    if data.dtype.kind not in "buif":
        raise ValueError(f"Y holds values of type {data.dtype}; pass word counts, which are real.")
    if data.dtype.kind == "f":
        _reject(
            counts,
            ~np.isfinite(data),
            "is not finite; counts must be finite numbers >= 0, not NaN or infinity",
        )
    if data.dtype.kind in "if":
        _reject(counts, data < 0, "is negative; word counts must be >= 0")
    if data.dtype.kind == "f":
        _reject(counts, data > TOO_LARGE, f"is too large; counts must stay below {TOO_LARGE:.1g}")
        if integers:
            _reject(
                counts,
                data != np.floor(data),
                "is not an integer; word counts are integers (weight rows with sample_weight instead)",
            )


def _reject(counts: Any, bad: np.ndarray, reason: str) -> None:
    """Raise for the first entry that is bad."""
    if bad.any():
        entry, places = int(np.argmax(bad)), counts.tocoo(copy=False)
        raise ValueError(f"Y[{places.row[entry]}, {places.col[entry]}] = {counts.data[entry]} {reason}.")


def dense_array(value: Any, name: str, content: str) -> np.ndarray:
    """A dense array-like, frame or column as an ndarray; dates and masked values are refused."""
    native = value
    if hasattr(value, "to_pylist") and hasattr(value, "to_numpy"):  # pyarrow arrays may hold lists
        value = value.to_numpy() if hasattr(value, "chunks") else value.to_numpy(zero_copy_only=False)
    try:
        array = np.asanyarray(as_numpy(value))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} cannot be read as an array of rows of one length; pass {content}. ({error})"
        ) from error
    if isinstance(array, np.ma.MaskedArray):
        n_masked = int(np.ma.getmaskarray(array).sum())
        if n_masked:
            raise ValueError(
                f"{name} is a masked array with {n_masked} masked values; drop these rows, or fill them "
                f"({name}.filled(0))."
            )
        array = array.data
    if array.dtype.kind in "mM":
        raise ValueError(f"{name} holds dates or durations ({array.dtype}); pass numbers.")
    if array.dtype.kind == "O" and nw.dependencies.is_into_dataframe(native):  # nullable columns
        array = nw.from_native(native, eager_only=True).to_numpy()
    return np.asarray(array)


def embedding_rows(X: Any) -> Any:
    """Embeddings with a column or list of vectors as an array (n, d); frames of numbers stay frames."""
    if nw.dependencies.is_into_dataframe(X):
        frame = nw.from_native(X, eager_only=True)
        dates = [name for name, dtype in frame.schema.items() if dtype.is_temporal()]
        if dates:
            raise ValueError(f"X holds dates or durations in column {dates[0]!r}; pass columns of numbers.")
        if frame.shape[1] != 1 or not hasattr(frame[:1, 0].to_list()[0], "__len__"):
            return X
        X = frame[:, 0].to_native()
    is_list = isinstance(X, list | tuple)
    if not is_list and hasattr(X, "to_pylist"):  # pyarrow
        X = X.to_numpy() if hasattr(X, "chunks") else X.to_numpy(zero_copy_only=False)
    if not is_list:
        X = dense_array(X, "X", "embeddings of shape (n, d)")
    if X.ndim == 1 if not is_list else len(X):
        return _rows_of_items(X, is_list)
    return X


def _rows_of_items(X: Any, is_list: bool) -> Any:
    """A list or 1-D array of vectors as an array (n, d)."""
    first = X[0] if len(X) else None
    if isinstance(first, str | bytes):
        raise ValueError(
            f"X holds texts, such as {short_repr(first)}; encode them first: "
            "SentenceEncoder(...).transform(texts), with the encoder of the model."
        )
    if np.ndim(as_numpy(first)) == 0 and not hasattr(first, "__len__"):
        raise ValueError(
            f"X is one vector, a 1D array of {len(X)} numbers. Expected 2D array of shape (n, d). "
            "Reshape your data: X.reshape(1, -1) is one row, X.reshape(-1, 1) one column."
        )
    if is_list and not any(hasattr(row, "detach") for row in X):
        lengths = [len(row) if hasattr(row, "__len__") else 0 for row in X]
        for i, length in enumerate(lengths):
            if length != lengths[0]:
                raise ValueError(
                    f"X[{i}] holds {length} numbers and X[0] holds {lengths[0]}; every row needs an "
                    "embedding of the same encoder."
                )
        return X  # lists of numbers, which scikit-learn converts
    rows = [np.asarray(as_numpy(row)) for row in X]
    for i, row in enumerate(rows):
        if row.ndim != rows[0].ndim or row.shape != rows[0].shape or row.dtype.kind not in "buif":
            raise ValueError(
                f"X[{i}] is {short_repr(X[i])}, not a vector like X[0], of shape {rows[0].shape}; every row "
                "needs one embedding, drop the others."
            )
    return np.stack(rows)


def column_names(Y: Any) -> list[str] | None:
    """The column names of a frame (pandas, polars, pyarrow and others); None if Y is no frame."""
    if not nw.dependencies.is_into_dataframe(Y):
        return None
    names = list(Y.columns if nw.dependencies.is_pandas_dataframe(Y) else nw.from_native(Y).columns)
    for name in names:
        if not isinstance(name, str) and not is_integer(name):
            raise ValueError(
                f"Y has the column name {short_repr(name)}, which is not a str; name all columns by their "
                "words, or pass Y without names (Y.to_numpy())."
            )
    return [str(name) for name in names]


def check_columns(names: list[str] | None, words: Any, *, renamed: bool, source: str = "Y") -> None:
    """Check that the column names of counts, if there are any, are a model's words in their order.

    ``renamed`` says that the words of the model were passed as ``vocabulary``, which may name columns anew.
    """
    if names is None or words is None or len(names) != len(words) or names == list(words):
        return
    if set(names).isdisjoint(words) and (renamed or _are_numbers(names) or _are_numbers(words)):
        return
    column = next(j for j, word in enumerate(words) if names[j] != word)
    raise ValueError(
        f"column {column} of {source} is {names[column]!r}, and the word of the model there is "
        f"{words[column]!r}; count both with the same vocabulary, and pass the columns in the order of the "
        "model's vocabulary_, or counts without names."
    )


def _are_numbers(names: Any) -> bool:
    """Whether columns are named by their numbers, as pandas and a fit without vocabulary name them."""
    return all(name in (str(j), f"word{j}") for j, name in enumerate(names))


def warn_of_capitals(words: Any, counts: sp.csr_array) -> None:
    """Warn of words with capitals if texts were lower-cased, so that none of them was counted.

    ``counts`` comes from ``count_matrix``. How texts were counted is not known: the sign is that no word with
    capitals occurs, while others do.
    """
    capitals = [j for j, word in enumerate(words) if isinstance(word, str) and word != word.lower()]
    if not capitals or not counts.nnz:
        return
    occurs = np.zeros(counts.shape[1], dtype=bool)
    occurs[counts.indices] = True
    if not occurs[capitals].any():
        warn_caller(
            f"{len(capitals)} of {len(words)} words have capitals, such as {words[capitals[0]]!r:.60}, and "
            "none of them occurs in Y. CountVectorizer(vocabulary=...) lower-cases texts, but not its "
            "vocabulary, so that it never counts them: use ConceptVectorizer(vocabulary=...), which treats "
            "both alike, or lowercase=False."
        )


def check_columns_of(model: Any, Y: Any, counts: sp.csr_array) -> None:
    """Check the columns of Y against the words of any fitted model that has a ``vocabulary_``.

    Names of columns must be these words; ``counts`` are those of Y. Of a pipeline or a search the words are
    those of its last step or best estimator.
    """
    while hasattr(model, "best_estimator_") or hasattr(model, "steps"):
        model = model.best_estimator_ if hasattr(model, "best_estimator_") else model.steps[-1][1]
    words, renamed = getattr(model, "vocabulary_", None), getattr(model, "vocabulary", None) is not None
    if isinstance(words, np.ndarray):
        check_columns(column_names(Y), words, renamed=renamed)
        if len(words) == counts.shape[1]:
            warn_of_capitals(words, counts)
