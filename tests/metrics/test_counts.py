"""Counts of any kind are read right or refused, by every function that takes counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
import torch

from flip_sklearn import FLiPExtractor, SpLiCEExtractor, kkt_residual, regularization_path, stack_views
from flip_sklearn.diagnostics import word_recoverability
from flip_sklearn.metrics import (
    hit_jaccard,
    hit_sets,
    keyword_accuracy,
    keyword_accuracy_scorer,
    log_likelihood_scorer,
    perplexity,
    precision_recall,
)
from flip_sklearn.metrics.counts import count_matrix

N, D, V = 24, 4, 5
rng = np.random.default_rng(0)
COUNTS = rng.poisson(0.6, size=(N, V))
COUNTS[np.arange(N), np.arange(N) % V] += 1
X = COUNTS @ rng.normal(size=(V, D)) + 0.1 * rng.normal(size=(N, D))
SCORES = rng.normal(size=(N, V))
LOGS = np.log(np.full((N, V), 1 / V))
MODEL = FLiPExtractor(rank=3, max_iter=2, random_state=0, device="cpu", early_stopping=False)
FITTED = FLiPExtractor(**MODEL.get_params()).fit(X, COUNTS)
SPLICE = SpLiCEExtractor(rng.normal(size=(V, D)), device="cpu").fit(X)


def fit(Y: Any) -> np.ndarray:
    return FLiPExtractor(**MODEL.get_params()).fit(X, Y).word_counts_


def path(Y: Any) -> np.ndarray:
    return regularization_path(X, Y, [0.1], estimator=MODEL, max_iter=1).models[0].word_counts_


# Every function that takes counts, as a function of the counts alone.
ENTRY_POINTS: dict[str, Callable[[Any], Any]] = {
    "fit": fit,
    "partial_fit": lambda Y: FLiPExtractor(**MODEL.get_params()).partial_fit(X, Y).word_counts_,
    "score": lambda Y: FITTED.score(X, Y),
    "path": path,
    "path validation": lambda Y: (
        regularization_path(X, COUNTS, [0.1], estimator=MODEL, max_iter=1, validation=(X, Y)).nll
    ),
    "kkt_residual": lambda Y: kkt_residual(FITTED, X, Y),
    "SpLiCE": lambda Y: SPLICE.score(X, Y),
    "keyword_accuracy": lambda Y: keyword_accuracy(Y, SCORES).per_row,
    "keyword_accuracy_scorer": lambda Y: keyword_accuracy_scorer(FITTED, X, Y),
    "log_likelihood_scorer": lambda Y: log_likelihood_scorer(FITTED, X, Y),
    "perplexity": lambda Y: perplexity(Y, LOGS).value,
    "hit_sets": lambda Y: hit_sets(Y, SCORES).toarray(),
    "hit_jaccard": lambda Y: hit_jaccard(Y, SCORES, -SCORES).per_row,
    "precision_recall": lambda Y: precision_recall(Y, SCORES, 2).recall.per_row,
    "stack_views": lambda Y: stack_views({"a": X, "b": X}, Y).Y.toarray(),
    "word_recoverability": lambda Y: (
        word_recoverability(FITTED, X, Y, n_bootstrap=10, random_state=0, verbose=0).test_count
    ),
}
every_entry_point = pytest.mark.parametrize("name", ENTRY_POINTS)


def repeated(dtype: Any, container: Any) -> Any:
    """COUNTS with 300 more of word 1 in row 0, each count as an entry of its own."""
    total = COUNTS.copy()
    total[0, 1] += 300
    row, column = np.nonzero(total)
    times = total[row, column]
    row, column = np.repeat(row, times), np.repeat(column, times)
    if container is not sp.coo_array:  # entries of one cell stay apart
        major, minor = (row, column) if container is sp.csr_array else (column, row)
        order = np.argsort(major, kind="stable")
        starts = np.r_[0, np.cumsum(np.bincount(major, minlength=N if container is sp.csr_array else V))]
        return container((np.ones(len(row), dtype), minor[order], starts), shape=(N, V))
    return sp.coo_array((np.ones(len(row), dtype), (row, column)), shape=(N, V))


@every_entry_point
@pytest.mark.parametrize("container", [sp.coo_array, sp.csr_array, sp.csc_array])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "bool"])
def test_repeated_entries_do_not_overflow(name: str, container: Any, dtype: str) -> None:
    total = COUNTS.copy()
    total[0, 1] += 300
    expected = ENTRY_POINTS[name](total)
    np.testing.assert_array_equal(ENTRY_POINTS[name](repeated(dtype, container)), expected)


def test_repeated_entries_of_a_sparse_tensor_do_not_overflow() -> None:
    places, ones = torch.zeros((2, 300), dtype=torch.int64), torch.ones(300, dtype=torch.uint8)
    tensor = torch.sparse_coo_tensor(places, ones, (2, 2), check_invariants=True)
    assert count_matrix(tensor).toarray().tolist() == [[300, 0], [0, 0]]


def malformed(kind: str) -> Any:
    """Counts whose sparse structure is wrong, made from right ones."""
    form, part, value = kind.split()
    Y = getattr(sp, f"{form}_array")(COUNTS.astype(np.int32))
    if part == "row":
        Y.coords[0][-1] = int(value)
    elif part == "column":
        Y.coords[1][-1] = int(value)
    elif part == "index":
        Y.indices[-1] = int(value)
    elif part == "start":
        Y.indptr[1] = int(value)
    elif part == "end":
        Y.indptr[-1] = int(value)
    elif part == "data":
        Y.data = Y.data[: int(value)]
    elif part == "starts":
        Y.indptr = Y.indptr[: int(value)]
    return Y


MALFORMED = [
    *(f"{form} index {value}" for form in ("csr", "csc", "bsr") for value in (10**8, N, -1, -(10**8))),
    *(f"{form} start {value}" for form in ("csr", "csc", "bsr") for value in (10**8, -5)),
    *(f"{form} {part}" for form in ("csr", "csc", "bsr") for part in ("end 100000000", "end 1", "data -2")),
    *(f"{form} starts -1" for form in ("csr", "csc", "bsr")),
    *(f"coo {part} {value}" for part in ("row", "column") for value in (10**8, N, -1, -(10**8))),
    "coo data -2",
]


@every_entry_point
@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_sparse_counts_are_refused(name: str, kind: str) -> None:
    with pytest.raises(ValueError, match="malformed") as caught:
        ENTRY_POINTS[name](malformed(kind))
    assert f"malformed {kind.split()[0]}_array of shape (24, 5)" in str(caught.value)
    assert "build it again" in str(caught.value)


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_sparse_scores_and_weights_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="scores_or_topk is a malformed"):
        keyword_accuracy(COUNTS, malformed(kind))
    with pytest.raises(ValueError, match="W is a malformed"):
        SPLICE.inverse_transform(malformed(kind))


def test_malformed_lists_of_lists_are_refused() -> None:
    far, uneven, keys = sp.lil_array(COUNTS), sp.lil_array(COUNTS), sp.dok_array(COUNTS)
    far.rows[0], far.data[0] = [10**6], [1]
    uneven.data[0] = list(range(1, 100))
    keys._dict[10**6, 0] = 1
    for Y in (far, uneven, keys):
        with pytest.raises(ValueError, match="malformed"):
            count_matrix(Y)


@every_entry_point
def test_a_stale_canonical_flag_is_not_believed(name: str) -> None:
    Y = sp.csr_array(
        ([1.0, 2.0, *np.ones(N - 1)], [3, 3, *np.arange(N - 1) % V], [0, *range(2, N + 2)]), (N, V)
    )
    expected = ENTRY_POINTS[name](Y.toarray())
    Y.has_canonical_format = True
    np.testing.assert_array_equal(ENTRY_POINTS[name](Y), expected)


FORMS: dict[str, Callable[[], Any]] = {
    **{form: (lambda form=form: getattr(sp, f"{form}_array")(COUNTS)) for form in
       ("csr", "csc", "coo", "lil", "dok", "dia", "bsr")},
    **{f"{form} matrix": (lambda form=form: getattr(sp, f"{form}_matrix")(COUNTS)) for form in
       ("csr", "coo")},
    **{dtype: (lambda dtype=dtype: COUNTS.astype(dtype)) for dtype in
       ("float16", ">i4", ">f4", ">f8", "uint8", "longdouble", "object")},
    "bfloat16": lambda: torch.tensor(COUNTS).bfloat16(),
    "sparse tensor": lambda: torch.tensor(COUNTS).to_sparse(),
    "CSR tensor": lambda: torch.tensor(COUNTS).to_sparse_csr(),
    "CSC tensor": lambda: torch.tensor(COUNTS).bfloat16().to_sparse_csc(),
    "lists": COUNTS.tolist,
    "pandas": lambda: pd.DataFrame(COUNTS),
    "nullable": lambda: pd.DataFrame(COUNTS).astype("Int64"),
    "sparse frame": lambda: pd.DataFrame(COUNTS).astype(pd.SparseDtype("uint8", 0)),
    "polars": lambda: pl.DataFrame({f"word{j}": COUNTS[:, j] for j in range(V)}),
    "pyarrow": lambda: pa.table({f"word{j}": COUNTS[:, j] for j in range(V)}),
    "mask without a masked value": lambda: np.ma.masked_array(COUNTS, np.zeros_like(COUNTS, dtype=bool)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@every_entry_point
@pytest.mark.parametrize("form", FORMS)
def test_forms_of_counts_give_the_same_result(name: str, form: str) -> None:
    np.testing.assert_array_equal(ENTRY_POINTS[name](FORMS[form]()), ENTRY_POINTS[name](COUNTS))


@pytest.mark.parametrize(
    "column",
    [
        sp.coo_array,
        sp.csr_array,
        sp.dok_array,
        pd.Series,
        pl.Series,
        pa.array,
        lambda y: pa.chunked_array([y]),
    ],
)
def test_a_column_of_counts_is_one_word(column: Callable[[Any], Any]) -> None:
    counts = count_matrix(column(COUNTS[:, 0]))
    assert counts.shape == (N, 1)
    np.testing.assert_array_equal(counts.toarray()[:, 0], COUNTS[:, 0])


@every_entry_point
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (COUNTS.astype("datetime64[s]"), "dates or durations"),
        (COUNTS.astype("timedelta64[s]"), "dates or durations"),
        (pd.DataFrame(COUNTS).apply(pd.to_datetime), "dates or durations"),
        (np.ma.masked_array(COUNTS, COUNTS > 1), "masked values; drop these rows, or fill them"),
        (COUNTS.astype(str), "pass word counts"),
        (COUNTS.astype(str).astype(object), "pass word counts"),
        (COUNTS + 1j, "complex"),
        (pd.DataFrame(COUNTS).astype("Int64").mask(COUNTS > 1), "is not finite"),
        (sp.coo_array(COUNTS) * -1, "is negative"),
        (sp.coo_array((N, V, 2)), "3 dimensions"),
    ],
)
def test_other_content_is_refused(name: str, bad: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ENTRY_POINTS[name](bad)


def test_counts_are_not_changed() -> None:
    Y = sp.csr_array((np.array([1, 0, 2]), np.array([2, 1, 2]), np.array([0, 3])), shape=(1, 3))
    assert count_matrix(Y).toarray().tolist() == [[0, 0, 3]]
    assert Y.data.tolist() == [1, 0, 2]
    assert Y.indices.tolist() == [2, 1, 2]
