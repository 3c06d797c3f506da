"""KeywordMapper: a callable that adds keywords to batches, for Dask, Ray Data and Spark."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from flip_sklearn.estimation import presence, scoring
from flip_sklearn.estimation.validation import check_embeddings
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.parameters import check_bool, check_integer


class KeywordMapper:
    """Picklable callable that adds the keywords to a batch of embeddings.

    For Dask, Ray Data, Spark and other engines that map a callable over batches. The words are those of
    ``model.extract_keywords``. A pickle contains only the part of the model that scoring needs, in
    float32, and no tensor of a device: the device is resolved in the process that calls the mapper, from
    the model's ``device``. The mapper starts no process or thread; torch uses the threads of the worker.

    Parameters
    ----------
    model : FLiPExtractor
        A fitted model. Later changes to it do not change the mapper.
    column : str, default="embedding"
        Column of a table, or key of a dict, that holds one vector of d numbers per row.
    output : str, default="keywords"
        Column or key for the words; an existing one is replaced.
    top_k : int, default=None
        Words per row, >= 1. When None, the model's ``top_k``, or with ``min_probability`` no limit.
    use_bias : bool, default=None
        Score with or without b; the model's ``use_bias`` when None.
    return_scores : bool, default=False
        Whether to return each word's score z (nats), too: in ``<output>_scores``, or for an array as
        (word, score) pairs. With ``min_probability`` the score is the probability.
    min_probability : float, default=None
        Return the words that occur with at least this probability, in (0, 1], likeliest first, instead of
        the best ``top_k`` (see ``FLiPExtractor.predict_presence``); ``use_bias`` then has no effect.

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

    min_probability: float | None = None  # of mappers that an earlier version has pickled

    def __init__(
        self,
        model: FLiPExtractor,
        *,
        column: str = "embedding",
        output: str = "keywords",
        top_k: int | None = None,
        use_bias: bool | None = None,
        return_scores: bool = False,
        min_probability: float | None = None,
    ) -> None:
        if not isinstance(model, FLiPExtractor):
            raise TypeError(
                f"model is a {type(model).__name__}; pass a fitted FLiPExtractor, of a pipeline its last "
                "step, and batches of embeddings that the earlier steps have transformed."
            )
        check_is_fitted(model)
        self.column = column
        self.output = output
        self.return_scores = check_bool("return_scores", return_scores)
        if column == output or (self.return_scores and column == f"{output}_scores"):
            raise ValueError(
                f"output={output!r} would overwrite the vectors in column {column!r}; choose another name."
            )
        self.min_probability = min_probability
        if min_probability is not None:
            self.min_probability = presence.check_min_probability(model, min_probability)
            top_k = len(model.vocabulary_) if top_k is None else top_k
        k = check_integer("top_k", model.top_k if top_k is None else top_k, 1)
        bias = check_bool("use_bias", model.use_bias if use_bias is None else use_bias)
        self._model = _scoring_model(model, top_k=k, use_bias=bias)
        self._scorer: Any = None

    def __call__(self, batch: Any) -> Any:
        """Extract the keywords of one batch.

        Parameters
        ----------
        batch : array of shape (n, d), dict of arrays, DataFrame or pyarrow Table
            In a dict or table ``column`` holds the vectors: an array (n, d), or one array or list per
            row. A row without a vector (None, NA) gets None for its words. Empty batches are allowed, and
            so are the placeholder batches with which Dask infers the type of the result.

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
        is_array = isinstance(batch, (np.ndarray, *_loaded_types("torch", "Tensor")))
        source = "the batch" if is_array else f"column {self.column!r}"
        vectors, present = _stack(batch if is_array else self._select_column(batch), source)
        words, scores = self._extract(vectors, source)
        if is_array:
            keywords = scoring.with_scores(words, scores) if self.return_scores else words
            return _object_array(keywords, present)
        columns = {self.output: _object_array(words, present)}
        if self.return_scores:
            columns[f"{self.output}_scores"] = _object_array(scores, present)
        if isinstance(batch, Mapping):
            return {**batch, **columns}
        if isinstance(batch, _loaded_types("pandas", "DataFrame")):
            import pandas

            # Series of dtype object: pandas gives arrays of text another dtype.
            return batch.assign(
                **{name: pandas.Series(cells, batch.index, object) for name, cells in columns.items()}
            )
        return _add_arrow_columns(batch, columns)

    def __getstate__(self) -> dict[str, Any]:
        # The scorer holds tensors on a device of this process; the next process makes its own.
        return {**self.__dict__, "_scorer": None}

    def __repr__(self) -> str:
        n_words, d = len(self._model.vocabulary_), self._model.n_features_in_
        return (
            f"{type(self).__name__}({n_words} words from {d} numbers, column={self.column!r}, "
            f"output={self.output!r}, top_k={self._model.top_k}, use_bias={self._model.use_bias})"
        )

    def _select_column(self, batch: Any) -> Any:
        """Return the column of vectors of a dict or table."""
        if isinstance(batch, Mapping):
            names = list(batch)
        elif isinstance(batch, _loaded_types("pandas", "DataFrame")):
            names = list(batch.columns)
        elif isinstance(batch, _loaded_types("pyarrow", "Table", "RecordBatch")):
            names = list(batch.schema.names)
        else:
            raise ValueError(
                f"a batch of type {type(batch).__name__} is not supported; pass an array (n, d), a dict of "
                "arrays, a pandas DataFrame or a pyarrow Table."
            )
        n_columns = names.count(self.column)
        if n_columns != 1:
            raise ValueError(
                f"{n_columns or 'no'} columns are called {self.column!r} among those of the batch "
                f"({', '.join(map(repr, names)) or 'none'}); name the one that holds the embeddings with "
                "column=."
            )
        return batch[self.column]

    def _extract(self, vectors: Any, source: str) -> tuple[list[Any], list[Any]]:
        """Return the words of each row, best first, and their scores."""
        if len(vectors) == 0:
            return [], []
        d = self._model.n_features_in_
        if vectors.ndim != 2 or vectors.shape[1] != d:
            raise ValueError(
                f"{source} holds vectors of shape {vectors.shape[1:]}, the model reads {(d,)}; use the "
                "encoder that made the training embeddings."
            )
        X = check_embeddings(self._model, vectors, reset=False)[0]
        if self.min_probability is not None:
            k = scoring.resolve_top_k(self._model, self._model.top_k)
            rows = presence.keywords_by_presence(self._model, X, k, self.min_probability, True)
            return [[word for word, _ in row] for row in rows], [[value for _, value in row] for row in rows]
        if self._scorer is None:  # once per process, so that a warning about the device is given once
            self._scorer = scoring.make_scorer(self._model)
        k = min(self._model.top_k, int(self._model.word_counts_.sum()))
        indices, scores = self._scorer.top(X, k)
        return self._model.vocabulary_[indices].tolist(), scores.tolist()


def _scoring_model(model: FLiPExtractor, *, top_k: int, use_bias: bool) -> FLiPExtractor:
    """Return a model with the attributes that scoring needs and no others, in float32."""
    precision = "float32" if model.precision == "float64" else model.precision
    reduced = FLiPExtractor(top_k=top_k, use_bias=use_bias, device=model.device, precision=precision)
    for name in ("word_embeddings_", "projection_", "bias_", "embedding_mean_"):
        setattr(reduced, name, getattr(model, name).astype(np.float32, copy=False))
    reduced.ranking_offset_ = scoring.ranking_offset(model).astype(np.float32, copy=False)
    if hasattr(model, "lift_offset_"):
        reduced.lift_offset_ = model.lift_offset_.astype(np.float32, copy=False)
    for name in ("vocabulary_", "rank_", "n_features_in_", "device_"):
        setattr(reduced, name, getattr(model, name))
    for name in presence.ATTRIBUTES:
        if hasattr(model, name):
            setattr(reduced, name, getattr(model, name))
    reduced.word_counts_ = model.word_counts_ > 0  # scoring asks only which words training saw
    return reduced


def _loaded_types(library: str, *names: str) -> tuple[Any, ...]:
    """Return types of a library, or none if it is not loaded: then no object can have such a type."""
    module = sys.modules.get(library)
    return () if module is None else tuple(getattr(module, name) for name in names)


def _stack(values: Any, source: str) -> tuple[Any, np.ndarray | None]:
    """Return the vectors (m, d), and which of the n rows have one: a mask (n,), or None for all."""
    is_tensor = isinstance(values, _loaded_types("torch", "Tensor"))
    if is_tensor or (isinstance(values, np.ndarray) and values.dtype != object and values.ndim > 1):
        return values, None
    if isinstance(values, _loaded_types("pandas", "Series")) and hasattr(values.dtype, "pyarrow_dtype"):
        import pyarrow

        values = pyarrow.array(values)
    if isinstance(values, _loaded_types("pyarrow", "Array", "ChunkedArray")):
        return _stack_arrow(values, source)
    return _stack_rows(list(values), source)


def _stack_rows(rows: list[Any], source: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Stack one array or list per row."""
    try:
        stacked = np.array(rows)
        if stacked.dtype.kind in "buif" and stacked.ndim > 1:
            return stacked, None
    except ValueError:
        pass  # rows of different lengths, or without a vector
    present = np.array([not _is_missing(row) for row in rows], dtype=bool)
    vectors = [row for row, has_vector in zip(rows, present, strict=True) if has_vector]
    for vector in vectors:
        if isinstance(vector, str):
            raise ValueError(
                f"{source} holds text, such as {vector[:30]!r}; it must hold one vector per row. Dask "
                "converts object columns to text: turn that off with "
                "dask.config.set({'dataframe.convert-string': False}) before the table is made."
            )
    lengths = [len(row) if isinstance(row, Sequence) or np.ndim(row) else 0 for row in vectors]
    _check_equal_lengths(np.array(lengths, dtype=np.int64), np.flatnonzero(present), source)
    try:
        return np.array(vectors, dtype=np.float64), present
    except (TypeError, ValueError) as error:
        raise ValueError(f"{source} must hold one vector of numbers per row: {error}") from error


def _is_missing(row: Any) -> bool:
    """Return whether a row is None, pandas.NA, NaN, or a placeholder of Dask: a bare object, or "foo"."""
    if isinstance(row, float):
        return math.isnan(row)
    if isinstance(row, str):
        return row == "foo"
    pandas = sys.modules.get("pandas")
    return row is None or type(row) is object or (pandas is not None and row is pandas.NA)


def _stack_arrow(column: Any, source: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Stack a list column of pyarrow without a Python object per number."""
    import pyarrow
    import pyarrow.compute

    if isinstance(column, pyarrow.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pyarrow.ExtensionArray):  # tensors of a fixed shape
        column = column.storage
    types = pyarrow.types
    is_list = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    if not any(check(column.type) for check in is_list):
        raise ValueError(f"{source} is of type {column.type}; it must hold one list of numbers per row.")
    present = None
    rows = np.arange(len(column))
    if column.null_count:
        present = column.is_valid().to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(present)
        column = column.drop_null()
    lengths = pyarrow.compute.list_value_length(column).to_numpy(zero_copy_only=False)
    _check_equal_lengths(lengths, rows, source)
    width = int(lengths[0]) if len(lengths) else 0
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), width), present


def _check_equal_lengths(lengths: np.ndarray, rows: np.ndarray, source: str) -> None:
    """Check that all vectors have one length; ``rows`` are their row numbers in the batch."""
    different = np.flatnonzero(lengths != lengths[:1])
    if len(different):
        i = different[0]
        raise ValueError(
            f"{source} holds vectors of different lengths: {lengths[0]} numbers in row {rows[0]}, "
            f"{lengths[i]} in row {rows[i]}; every row needs one vector of the same encoder."
        )


def _object_array(rows: list[Any], present: np.ndarray | None) -> np.ndarray:
    """Return an array of one Python object per row, None where ``present`` is false."""
    if present is None:
        present = np.ones(len(rows), dtype=bool)
    result = np.full(len(present), None, dtype=object)
    result[present] = np.fromiter(rows, dtype=object, count=len(rows))
    return result


def _add_arrow_columns(table: Any, columns: dict[str, np.ndarray]) -> Any:
    """Return a pyarrow Table or RecordBatch with list columns added: words, and perhaps their scores."""
    import pyarrow

    item_types = (pyarrow.string(), pyarrow.float32())
    for (name, cells), item_type in zip(columns.items(), item_types, strict=False):
        array = pyarrow.array(cells, type=pyarrow.list_(item_type))
        position = table.schema.get_field_index(name)
        if position < 0:
            table = table.append_column(name, array)
        else:
            table = table.set_column(position, name, array)
    return table
