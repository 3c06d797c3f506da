"""Keywords for more rows than one process should read: a callable for engines that work by batches."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from flip_sklearn.estimation import scoring
from flip_sklearn.estimation.validation import check_embeddings
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.parameters import check_bool, check_integer

# What scoring reads of a fit. Moments, history and parameters of training stay behind.
_FACTORS = ("word_embeddings_", "projection_", "bias_", "embedding_mean_")
_FACTS = ("vocabulary_", "rank_", "n_features_in_", "device_")


class KeywordMapper:
    """Batch of embeddings in, the same batch with its keywords out.

    For Dask, Ray Data, Spark and whatever else maps a picklable callable over batches. The words are
    those of ``model.extract_keywords``. What is pickled is the part of the model that scoring needs, in
    float32, and no handle of a device: the device is chosen where the batch is, by the model's
    ``device``. No process or thread is started here; torch uses as many threads as the worker allows.

    Parameters
    ----------
    model : FLiPExtractor
        A fitted model. Later changes to it do not reach the mapper.
    column : str, default="embedding"
        The column of a table, or key of a dict, that holds one vector of d numbers per row.
    output : str, default="keywords"
        The column or key that the words go to; one that is there already is replaced.
    top_k : int, default=None
        Words per row, >= 1; the model's ``top_k`` when None.
    use_bias : bool, default=None
        Score with or without b; the model's ``use_bias`` when None.
    return_scores : bool, default=False
        Also give each word's score z in nats: in ``<output>_scores``, or, for an array, as
        (word, score) pairs.

    Raises
    ------
    TypeError
        If ``model`` is not a FLiPExtractor.
    ValueError
        If the model is not fitted, or a parameter is not allowed.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from flip_sklearn import FLiPExtractor, KeywordMapper
    >>> Y = np.eye(4, dtype=int)[np.arange(40) % 4]
    >>> X = Y + 0.01 * np.random.default_rng(0).normal(size=(40, 4))
    >>> flip = FLiPExtractor(vocabulary=["red", "green", "dog", "cat"], max_iter=50, tol=0.1,
    ...                      random_state=0).fit(X, Y)
    >>> mapper = KeywordMapper(flip, top_k=1)
    >>> mapper(pd.DataFrame({"id": [7, 8], "embedding": list(X[2:4])}))[["id", "keywords"]]
       id keywords
    0   7    [dog]
    1   8    [cat]
    """

    def __init__(
        self,
        model: FLiPExtractor,
        *,
        column: str = "embedding",
        output: str = "keywords",
        top_k: int | None = None,
        use_bias: bool | None = None,
        return_scores: bool = False,
    ) -> None:
        if not isinstance(model, FLiPExtractor):
            raise TypeError(
                f"model is a {type(model).__name__}; pass a fitted FLiPExtractor (of a pipeline its last "
                "step, with embeddings that the steps before have transformed)."
            )
        check_is_fitted(model)
        self.column = column
        self.output = output
        self.return_scores = check_bool("return_scores", return_scores)
        if column in self._outputs():
            raise ValueError(
                f"output={output!r} would overwrite the vectors in column {column!r}; choose another "
                "name."
            )
        k = check_integer("top_k", model.top_k if top_k is None else top_k, 1)
        bias = check_bool("use_bias", model.use_bias if use_bias is None else use_bias)
        self._model = _reduced(model, top_k=k, use_bias=bias)
        self._scorer: Any = None

    def __call__(self, batch: Any) -> Any:
        """Read the words of one batch.

        Parameters
        ----------
        batch : array of shape (n, d), dict of arrays, DataFrame or pyarrow Table
            In a dict or table ``column`` holds the vectors: an array (n, d), or one array or list per
            row. A row without a vector (None, NA) gets None for its words. Empty batches are fine, and
            so are the placeholders with which Dask finds out what a function returns.

        Returns
        -------
        batch with keywords
            - NumPy array or torch tensor: an object array of n lists of str;
            - dict (Ray Data's default): a new dict with the output added;
            - pandas DataFrame (Dask, Spark's ``mapInPandas``): a copy with the output added, same index;
            - pyarrow Table or RecordBatch (Spark's ``mapInArrow``): the same with a ``list<string>``
              column added.

        Raises
        ------
        ValueError
            If the column is missing, or its vectors differ in length, are not those of the model's
            encoder or hold NaN.
        """
        names = _column_names(batch)
        where = "the batch" if names is None else f"column {self.column!r}"
        values = batch if names is None else self._take(batch, names)
        vectors, present = _stack(values, where)
        words, scores = self._read(vectors, where)
        if names is None:
            if self.return_scores:
                words = [list(zip(*row, strict=True)) for row in zip(words, scores, strict=True)]
            return _cells(words, present)
        columns = {
            name: _cells(rows, present)
            for name, rows in zip(self._outputs(), (words, scores), strict=False)
        }
        if isinstance(batch, Mapping):
            return {**batch, **columns}
        return (_with_series if hasattr(batch, "assign") else _with_lists)(batch, columns)

    def __getstate__(self) -> dict[str, Any]:
        # The scorer holds tensors on this process's device: the next process makes its own.
        return {**self.__dict__, "_scorer": None}

    def __repr__(self) -> str:
        n_words, d = len(self._model.vocabulary_), self._model.n_features_in_
        return (
            f"{type(self).__name__}({n_words} words from {d} numbers, column={self.column!r}, "
            f"output={self.output!r}, top_k={self._model.top_k}, use_bias={self._model.use_bias})"
        )

    def _outputs(self) -> list[str]:
        return [self.output, f"{self.output}_scores"][: 1 + self.return_scores]

    def _take(self, batch: Any, names: list[Any]) -> Any:
        """The vectors of a table."""
        found = names.count(self.column)
        if found != 1:
            there = ", ".join(map(repr, names)) or "none"
            raise ValueError(
                f"{found or 'no'} columns are called {self.column!r} among those of the batch ({there}); "
                "name the one that holds the embeddings with column=."
            )
        return batch[self.column]

    def _read(self, vectors: Any, where: str) -> tuple[list[Any], list[Any]]:
        """Words and scores of each row, best first."""
        if len(vectors) == 0:
            return [], []
        d = self._model.n_features_in_
        if vectors.ndim != 2 or vectors.shape[1] != d:
            raise ValueError(
                f"{where} holds vectors of shape {vectors.shape[1:]}, the model reads {(d,)}; use the "
                "encoder that made the training embeddings."
            )
        X = check_embeddings(self._model, vectors, reset=False)[0]
        if self._scorer is None:  # the device is chosen once per process, with its one warning
            self._scorer = scoring.make_scorer(self._model)
        k = min(self._model.top_k, int(self._model.word_counts_.sum()))
        indices, scores = self._scorer.top(X, k)
        return self._model.vocabulary_[indices].tolist(), scores.tolist()


def _reduced(model: FLiPExtractor, *, top_k: int, use_bias: bool) -> FLiPExtractor:
    """A model that can score and nothing else, in float32."""
    precision = "float32" if model.precision == "float64" else model.precision
    reduced = FLiPExtractor(
        top_k=top_k, use_bias=use_bias, device=model.device, precision=precision
    )
    fitted = {name: getattr(model, name) for name in (*_FACTORS, *_FACTS)}
    for name in _FACTORS:
        fitted[name] = fitted[name].astype(np.float32, copy=False)
    fitted["word_counts_"] = model.word_counts_ > 0  # scoring asks only which words were seen
    reduced.__dict__.update(fitted)
    return reduced


def _column_names(batch: Any) -> list[Any] | None:
    """The columns of a table, None for an array."""
    if isinstance(batch, np.ndarray) or hasattr(batch, "detach"):
        return None
    if isinstance(batch, Mapping):
        return list(batch)
    if _is_a(batch, "pandas", "DataFrame"):
        return list(batch.columns)
    if _is_a(batch, "pyarrow", "Table", "RecordBatch"):
        return list(batch.schema.names)
    raise ValueError(
        f"a batch of type {type(batch).__name__} is not supported; pass an array (n, d), a dict of "
        "arrays, a pandas DataFrame or a pyarrow Table."
    )


def _is_a(batch: Any, module: str, *names: str) -> bool:
    """isinstance, without importing what the batch cannot come from."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(batch, tuple(getattr(loaded, n) for n in names))


# ---------------------------------------------------------------------- vectors in


def _stack(values: Any, where: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The vectors that are there (m, d), and the mask (n,) of their rows, None for all."""
    if _is_a(values, "pandas", "Series") and hasattr(values.dtype, "pyarrow_dtype"):
        import pyarrow

        values = pyarrow.array(values)
    if _is_a(values, "pyarrow", "Array", "ChunkedArray"):
        return _stack_arrow(values, where)
    is_array = isinstance(values, np.ndarray) and values.dtype != object and values.ndim > 1
    if is_array or hasattr(values, "detach"):
        return values, None
    rows = list(values)
    try:
        stacked = np.array(rows)
        if stacked.dtype.kind in "buif" and stacked.ndim > 1:
            return stacked, None
    except ValueError:
        pass  # rows of different lengths, or without a vector: below
    present = np.array([not _is_missing(row) for row in rows], dtype=bool)
    kept = [row for row, there in zip(rows, present, strict=True) if there]
    if any(isinstance(row, str) for row in kept):
        raise ValueError(
            f"{where} holds text, such as {next(r for r in kept if isinstance(r, str))[:30]!r}; it must "
            "hold one vector per row. Dask turns object columns into text: switch that off with "
            "dask.config.set({'dataframe.convert-string': False}) before the table is made."
        )
    lengths = [len(row) if isinstance(row, Sequence) or np.ndim(row) else 0 for row in kept]
    _refuse_ragged(np.array(lengths, dtype=np.int64), np.flatnonzero(present), where)
    try:
        return np.array(kept, dtype=np.float64), present
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} must hold one vector of numbers per row: {error}") from error


def _is_missing(row: Any) -> bool:
    """None, pandas' NA, a lone NaN, or Dask's placeholder."""
    if isinstance(row, float):
        return row != row
    return row is None or type(row) is object or type(row).__name__ == "NAType"


def _stack_arrow(column: Any, where: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The same for a list column of pyarrow, without a Python object per number."""
    import pyarrow
    import pyarrow.compute

    if isinstance(column, pyarrow.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pyarrow.ExtensionArray):  # tensors of fixed shape
        column = column.storage
    kind = column.type
    types = pyarrow.types
    if not (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)):
        raise ValueError(f"{where} is of type {kind}; it must hold one list of numbers per row.")
    present = None
    if column.null_count:
        present = column.is_valid().to_numpy(zero_copy_only=False)
        column = column.drop_null()
    lengths = pyarrow.compute.list_value_length(column).to_numpy(zero_copy_only=False)
    rows = np.arange(len(column)) if present is None else np.flatnonzero(present)
    width = _refuse_ragged(lengths, rows, where)
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), width), present


def _refuse_ragged(lengths: np.ndarray, rows: np.ndarray, where: str) -> int:
    """The one length of all vectors."""
    different = np.flatnonzero(lengths != lengths[:1])
    if len(different):
        at = different[0]
        raise ValueError(
            f"{where} holds vectors of different lengths: {lengths[0]} numbers in row {rows[0]}, "
            f"{lengths[at]} in row {rows[at]}; every row needs one vector of the same encoder."
        )
    return int(lengths[0]) if len(lengths) else 0


# ---------------------------------------------------------------------- cells out


def _cells(rows: list[Any], present: np.ndarray | None = None) -> np.ndarray:
    """One Python object per row, None where a vector was missing."""
    cells = np.fromiter(rows, dtype=object, count=len(rows))
    if present is None:
        return cells
    spread = np.full(len(present), None, dtype=object)
    spread[present] = cells
    return spread


def _with_series(frame: Any, columns: dict[str, np.ndarray]) -> Any:
    """A shallow copy of a DataFrame with more columns, of dtype object also when it is empty."""
    import pandas

    series = {
        name: pandas.Series(cells, index=frame.index, dtype=object)
        for name, cells in columns.items()
    }
    return frame.assign(**series)


def _with_lists(table: Any, columns: dict[str, np.ndarray]) -> Any:
    """A pyarrow Table or RecordBatch with more list columns: words, then their scores."""
    import pyarrow

    kinds = (pyarrow.string(), pyarrow.float32())
    for (name, cells), kind in zip(columns.items(), kinds, strict=False):
        array = pyarrow.array(cells, type=pyarrow.list_(kind))
        at = table.schema.get_field_index(name)
        table = table.append_column(name, array) if at < 0 else table.set_column(at, name, array)
    return table
