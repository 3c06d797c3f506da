"""find_rows: the embeddings of a collection whose texts have given words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flip_sklearn.backend.device import Compute, Embeddings, slices
from flip_sklearn.backend.distributed import ProcessGroup
from flip_sklearn.backend.scoring.presence import PresenceParameters
from flip_sklearn.backend.scoring.scorer import CHUNK_ROWS
from flip_sklearn.backend.scoring.search import BestRows, PresenceSearch, Query
from flip_sklearn.estimation import presence, scoring
from flip_sklearn.estimation.processes import check_same_call
from flip_sklearn.estimation.words import check_words
from flip_sklearn.io import show_progress
from flip_sklearn.parameters import check_bool, check_choice, check_integer, short_repr

MODES = ("all", "any")
# Column of tables, as of KeywordMapper.
COLUMN = "embedding"


@dataclass(frozen=True)
class RowScorer:
    """How a fitted model scores rows for a query."""

    score: Callable[[Embeddings], np.ndarray]  # rows (m, d) -> what they are ranked by, float64 (m,)
    compute: Compute
    to_output: Callable[[np.ndarray], np.ndarray]  # to the returned scores, in the same order


class RowSearchMixin:
    """Search of embeddings by words, for extractors."""

    def find_rows(
        self,
        X: Any,
        include: Any,
        exclude: Any = (),
        *,
        mode: str = "all",
        top_k: int = 10,
        return_scores: bool = False,
    ) -> Any:
        """Find the embeddings whose texts have given words, where the texts are not at hand.

        A FLiPExtractor ranks the rows by the probability that the text has the words::

            P = prod_{j in include} p_j  prod_{j in exclude} (1 - p_j),

        or, with ``mode="any"``, (1 - prod_{j in include} (1 - p_j)) in place of the first product. p_j is the
        probability of :meth:`FLiPExtractor.predict_presence`, and words are taken to be independent given the
        row. A SpLiCEExtractor, which has no probabilities, ranks by the weights w_j of the decomposition::

            S = 0.99 min_{j in include} w_j + 0.01 mean_{j in include} w_j - sum_{j in exclude} w_j,

        or with the sum over include of w_j. The mean ranks rows that lack a word.

        X is read in blocks, so that memory does not grow with n, and is at most read twice.

        Parameters
        ----------
        X : array-like of shape (n, d), or iterator of such chunks
            Embeddings of the encoder of ``fit``, such as a memory-mapped array. The chunks of an iterator
            are of any length, and their rows are numbered through. Of a table or dict that has a column
            ``embedding``, this column of vectors is taken, as :class:`KeywordMapper` does.
        include : str or sequence of str
            A word, or words, of ``vocabulary_``, or that ``extend_vocabulary`` can add (see Notes).
        exclude : str or sequence of str, default=()
            Words that the text is not to have.
        mode : {"all", "any"}, default="all"
            Whether all words of ``include`` are to occur, or at least one of them.
        top_k : int, default=10
            Number of rows, >= 1; all rows if there are fewer.
        return_scores : bool, default=False
            Whether to return the scores, too.

        Returns
        -------
        rows : ndarray of shape (min(top_k, n),), int64
            Numbers of the rows, best first; of rows with equal scores the first one comes first.
        scores : ndarray of shape (min(top_k, n),), float64
            P or S of these rows, only with ``return_scores=True``.

        Raises
        ------
        ValueError
            If a word is not in the vocabulary (the message names similar ones), was never seen in training,
            or is both included and excluded; if a FLiPExtractor has no ``presence_`` attributes; if X has
            another dimension than the embeddings of ``fit``, has NaN, or has no rows.

        Notes
        -----
        In a process group of ``torch.distributed`` every process calls ``find_rows`` with the same
        arguments and gets the same rows; each scores a part of them (docs/find.md).

        Words that training never saw are added by ``extend_vocabulary`` for the search, if the model was
        fitted with features of words and those of the new words are at hand.

        Examples
        --------
        >>> import numpy as np
        >>> from flip_sklearn import FLiPExtractor
        >>> rng = np.random.default_rng(0)
        >>> Y = rng.poisson(0.3, size=(400, 5))
        >>> X = Y @ rng.normal(size=(5, 12))
        >>> flip = FLiPExtractor(vocabulary=["red", "green", "blue", "dog", "cat"], max_iter=20,
        ...                      early_stopping=True, random_state=0).fit(X, Y)
        >>> rows = flip.find_rows(X, ["red", "dog"], exclude=["cat"], top_k=3)
        >>> Y[rows][:, [0, 3, 4]] > 0  # red, dog, cat
        array([[ True,  True, False],
               [ True,  True, False],
               [ True,  True, False]])
        """
        model, query = check_query(scoring.snapshot(self), include, exclude, mode)
        k = check_integer("top_k", top_k, 1)
        return_scores = check_bool("return_scores", return_scores)
        scorer = model._row_scorer(query)
        rows, scores = _best_rows(model, X, scorer, k, f"{query} {k}")
        return (rows, scorer.to_output(scores)) if return_scores else rows

    def _row_scorer(self, query: Query) -> RowScorer:
        """Return how this model scores rows: by the probability that the words occur."""
        presence.check_has_presence(self)
        scorer = scoring.make_scorer(self, use_bias=True)
        parameters = PresenceParameters(*(getattr(self, name) for name in presence.ATTRIBUTES))
        return RowScorer(PresenceSearch(scorer, parameters, query), scorer.compute, np.exp)


def check_query(model: Any, include: Any, exclude: Any, mode: Any) -> tuple[Any, Query]:
    """A model that has the words of a query, and their columns."""
    include, exclude = _as_list(include), _as_list(exclude)
    model = _extended(model, [*_words_in(include), *_words_in(exclude)])
    names, columns = check_words(model, include, "include")
    match_all = check_choice("mode", mode, MODES) == "all"
    excluded_columns = np.empty(0, dtype=np.int64)
    if exclude != []:
        excluded, excluded_columns = check_words(model, exclude, "exclude")
        both = next((word for word in excluded if word in names), None)
        if both is not None:
            raise ValueError(f"{both!r} is in include and in exclude; leave it out of one of them.")
    return model, Query(columns, excluded_columns, match_all)


def _as_list(words: Any) -> Any:
    """Words as a list; one word, and anything that is no sequence, unchanged."""
    return list(words) if isinstance(words, Iterable) and not isinstance(words, str) else words


def _words_in(words: Any) -> list[str]:
    """The words of ``_as_list``, for now without what is no word."""
    return [word for word in (words if isinstance(words, list) else [words]) if isinstance(word, str)]


def _extended(model: Any, words: list[str]) -> Any:
    """The model with the words that training never saw, if it can read them from their features."""
    if not hasattr(model, "word_map_") or not hasattr(model, "extend_vocabulary"):
        return model
    known = set(model.vocabulary_[model.word_counts_ > 0])
    unknown = [word for word in dict.fromkeys(words) if word not in known]
    if not unknown:
        return model
    try:
        return model.extend_vocabulary(unknown)
    except ValueError:  # no features of these words are at hand, and check_words says what is
        return model


def _best_rows(model: Any, X: Any, scorer: RowScorer, k: int, settings: str) -> tuple[np.ndarray, np.ndarray]:
    """The k best rows and their scores, by the processes of the group together."""
    group = ProcessGroup.current()
    is_stream = _is_stream(X)
    embeddings = None if is_stream else scoring.fitted_input(model, _vectors(model, X))
    check_same_call(group, scorer.compute, settings, embeddings, [], method="find_rows")
    chunks = iter([embeddings]) if embeddings is not None else _check_chunks(model, X)
    best, n_rows, n_parts = BestRows(k), 0, 0
    total = None if embeddings is None else len(embeddings)
    with show_progress(total=total, unit="row", desc="find_rows", disable=not model.verbose) as bar:
        for chunk in chunks:
            # Parts are the same in all processes and without a group, and so are the bits of their scores.
            for rows in slices(len(chunk), CHUNK_ROWS[scorer.compute.device.type]):
                if n_parts % group.size == group.rank:
                    best.add(n_rows + rows.start, scorer.score(chunk[rows]))
                n_parts += 1
                bar.update(rows.stop - rows.start)
            n_rows += len(chunk)
    if n_rows == 0:
        raise ValueError("X has no rows; pass at least one embedding.")
    best.merge(group, scorer.compute.device)
    return best.best()


def _is_stream(X: Any) -> bool:
    """Whether X can only be iterated over, as generators and data loaders."""
    is_container = hasattr(X, "__getitem__") or hasattr(X, "__array__") or hasattr(X, "__dlpack__")
    return isinstance(X, Iterator) or (isinstance(X, Iterable) and not is_container)


def _check_chunks(model: Any, chunks: Iterable[Any]) -> Iterator[Embeddings]:
    """Yield the chunks of an iterator as checked embeddings; empty ones are left out."""
    first_row = 0
    for number, chunk in enumerate(chunks):
        vectors = _vectors(model, chunk)
        if hasattr(vectors, "__len__") and len(vectors) == 0:
            continue
        try:
            embeddings = scoring.fitted_input(model, vectors)
        except ValueError as error:
            raise ValueError(f"chunk {number} of X, from row {first_row} on: {error}") from error
        yield embeddings
        first_row += len(embeddings)


def _vectors(model: Any, table: Any) -> Any:
    """The column of vectors of a dict or table that has one; anything else unchanged."""
    if hasattr(model, "feature_names_in_"):  # of columns of numbers
        return table
    # pyarrow calls the names column_names, and other libraries columns.
    names = getattr(table, "column_names", getattr(table, "columns", ()))
    names = list(table if isinstance(table, Mapping) else names)
    if isinstance(table, Mapping) and COLUMN not in names:
        raise ValueError(
            f"X is a dict with the keys {short_repr(names)}; pass the array of the embeddings, or call "
            f"it {COLUMN!r}."
        )
    return table[COLUMN] if COLUMN in names else table
