"""Generated inputs: each call gives the right result, or a clear error; nothing else.

A case is a verb with an embedding input, a count input and weights, each in one of many forms. A form either
holds known numbers or is invalid. If all parts of a case hold numbers, the result must be that of the same
numbers as plain float64 arrays (for scores: a NumPy computation from the fitted factors); otherwise the error
must come from the checks of this package or of scikit-learn and say something.

``make fuzz`` runs 30,000 cases; FLIP_FUZZ_CASES sets another number.
"""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from flip_sklearn import (
    FLiPExtractor,
    SpLiCEExtractor,
    keyword_accuracy,
    keyword_accuracy_scorer,
    kkt_residual,
    regularization_path,
    stack_views,
)
from flip_sklearn.diagnostics import erase_words, explain_similarity, view_alignment, word_recoverability
from flip_sklearn.metrics import hit_jaccard, hit_sets, log_likelihood_scorer, perplexity, precision_recall
from tests.helpers.planted import planted

pytestmark = pytest.mark.cpu_only

N_CASES = int(os.environ.get("FLIP_FUZZ_CASES", "1000"))
CHUNKS = 20
TRUTH = planted(n=40, d=5, n_words=8, rank=3, length=5)
X64, COUNTS = TRUTH.X.astype(np.float64), np.asarray(TRUTH.Y.toarray(), dtype=np.float64)
WORDS = [f"w{j}" for j in range(COUNTS.shape[1])]
SETTINGS: dict[str, Any] = dict(
    rank=3,
    max_iter=2,
    random_state=0,
    early_stopping=False,
    precision="float64",
    device="cpu",
    solver="exact",
)
# Errors that say what is wrong; a subclass such as UnicodeDecodeError or LinAlgError is not expected.
CLEAR_ERRORS = (ValueError, TypeError)
CHECKING_PACKAGES = ("flip_sklearn", "sklearn")
INVALID = object()


@dataclass(frozen=True)
class Given:
    """An input, and the float64 numbers that it stands for, or INVALID."""

    form: str
    value: Any
    numbers: Any


def _tensor(dtype: torch.dtype) -> Callable[[np.ndarray], tuple[Any, Any]]:
    def make(a: np.ndarray) -> tuple[Any, Any]:
        tensor = torch.from_numpy(a.copy()).to(dtype)
        return tensor, tensor.to(torch.float64).numpy()

    return make


def _array(dtype: Any, order: str = "C") -> Callable[[np.ndarray], tuple[Any, Any]]:
    def make(a: np.ndarray) -> tuple[Any, Any]:
        array = np.asarray(a, dtype=dtype, order=order)
        return array, array.astype(np.float64)

    return make


def _spoiled(value: float) -> Callable[[np.ndarray], tuple[Any, Any]]:
    def make(a: np.ndarray) -> tuple[Any, Any]:
        array = a.copy()
        array[len(a) // 2, -1] = value
        return array, INVALID

    return make


def _reversed(a: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1]


def _read_only(a: np.ndarray) -> np.ndarray:
    array = a.copy()
    array.flags.writeable = False
    return array


X_FORMS: dict[str, Callable[[np.ndarray], tuple[Any, Any]]] = {
    "float64": lambda a: (a.copy(), a),
    "float32": _array(np.float32),
    "float16": _array(np.float16),
    "big-endian": _array(">f8"),
    "integers": lambda a: (np.rint(a * 8).astype(np.int64), np.rint(a * 8)),
    "Fortran order": _array(np.float64, "F"),
    "negative strides": lambda a: (_reversed(a), a),
    "every second row of more": lambda a: (np.repeat(a, 2, axis=0)[::2], a),
    "read-only": lambda a: (_read_only(a), a),
    "lists": lambda a: (a.tolist(), a),
    "rows in a list": lambda a: (list(a), a),
    "DataFrame": lambda a: (pd.DataFrame(a), a),
    "DataFrame of float32": lambda a: (
        pd.DataFrame(a.astype(np.float32)),
        a.astype(np.float32).astype(float),
    ),
    "DataFrame with an index": lambda a: (pd.DataFrame(a, index=np.arange(len(a))[::-1]), a),
    "tensor": _tensor(torch.float64),
    "tensor float32": _tensor(torch.float32),
    "tensor float16": _tensor(torch.float16),
    "tensor bfloat16": _tensor(torch.bfloat16),
    "tensor with gradient": lambda a: (torch.from_numpy(a.copy()).requires_grad_(), a),
    "nan": _spoiled(np.nan),
    "inf": _spoiled(np.inf),
    "-inf": _spoiled(-np.inf),
    "one vector": lambda a: (a[0], INVALID),
    "three dimensions": lambda a: (a[None], INVALID),
    "no rows": lambda a: (a[:0], INVALID),
    "no columns": lambda a: (a[:, :0], INVALID),
    "complex": lambda a: (a + 1j, INVALID),
    "texts": lambda a: ([f"text {i}" for i in range(len(a))], INVALID),
    "array of texts": lambda a: (a.astype(str).astype(object) + "x", INVALID),
    "None": lambda a: (None, INVALID),
    "a number": lambda a: (3.0, INVALID),
    "sparse": lambda a: (sp.csr_array(a), INVALID),
    "one row less": lambda a: (a[:-1], INVALID),
    "ragged": lambda a: ([row[: 1 + i % 3] for i, row in enumerate(a.tolist())], INVALID),
    "dates": lambda a: (np.rint(a).astype("datetime64[s]"), INVALID),
}


def _coo_tokens(dtype: Any) -> Callable[[np.ndarray], tuple[Any, Any]]:
    """One entry for each token: duplicates are summed."""

    def make(a: np.ndarray) -> tuple[Any, Any]:
        counts = a.astype(int)
        row, col = np.nonzero(counts)
        times = counts[row, col]
        data = np.ones(int(times.sum()), dtype=dtype)
        return sp.coo_array((data, (np.repeat(row, times), np.repeat(col, times))), shape=a.shape), a

    return make


def _many_tokens(a: np.ndarray) -> tuple[Any, Any]:
    """300 entries of one cell, in a format that holds up to 255."""
    matrix, _ = _coo_tokens(np.uint8)(a)
    row, col = (np.concatenate([index, np.zeros(300, index.dtype)]) for index in matrix.coords)
    numbers = a.copy()
    numbers[0, 0] += 300
    return sp.coo_array((np.ones(len(row), np.uint8), (row, col)), shape=a.shape), numbers


def _out_of_range(kind: type, delta: int) -> Callable[[np.ndarray], tuple[Any, Any]]:
    def make(a: np.ndarray) -> tuple[Any, Any]:
        matrix = kind(a)
        indices = matrix.coords[1] if kind is sp.coo_array else matrix.indices
        indices[0] = -1 if delta < 0 else max(a.shape) + delta
        return matrix, INVALID

    return make


def _with_zeros(a: np.ndarray) -> tuple[Any, Any]:
    matrix = sp.csr_array(np.ones_like(a))
    matrix.data[:] = a.ravel()
    return matrix, a


Y_FORMS: dict[str, Callable[[np.ndarray], tuple[Any, Any]]] = {
    "csr": lambda a: (sp.csr_array(a), a),
    "csr matrix": lambda a: (sp.csr_matrix(a), a),
    "csc": lambda a: (sp.csc_array(a), a),
    "coo": lambda a: (sp.coo_array(a), a),
    "lil": lambda a: (sp.lil_array(a), a),
    "dok": lambda a: (sp.dok_array(a), a),
    "csr int64": lambda a: (sp.csr_array(a.astype(np.int64)), a),
    "csr uint8": lambda a: (sp.csr_array(a.astype(np.uint8)), a),
    "csr bool": lambda a: (sp.csr_array(a > 0), (a > 0).astype(float)),
    "csr float32": lambda a: (sp.csr_array(a.astype(np.float32)), a),
    "csr with stored zeros": _with_zeros,
    "coo tokens": _coo_tokens(np.int64),
    "coo tokens uint8": _coo_tokens(np.uint8),
    "coo tokens int8": _coo_tokens(np.int8),
    "coo tokens bool": _coo_tokens(bool),
    "300 tokens uint8": _many_tokens,
    "dense": lambda a: (a.copy(), a),
    "dense int8": _array(np.int8),
    "dense bool": lambda a: (a > 0, (a > 0).astype(float)),
    "dense float16": _array(np.float16),
    "dense big-endian": _array(">i4"),
    "lists": lambda a: (a.astype(int).tolist(), a),
    "DataFrame": lambda a: (pd.DataFrame(a, columns=WORDS), a),
    "DataFrame of integers": lambda a: (pd.DataFrame(a.astype(int), columns=WORDS), a),
    "tensor": _tensor(torch.int64),
    "negative": lambda a: (a - 1, INVALID),
    "negative csr": lambda a: (sp.csr_array(-a), INVALID),
    "nan": _spoiled(np.nan),
    "inf": _spoiled(np.inf),
    "all zeros": lambda a: (a * 0, INVALID),
    "one row less": lambda a: (a[1:], INVALID),
    "one row more": lambda a: (np.vstack([a, a[:1]]), INVALID),
    "three dimensions": lambda a: (a[None], INVALID),
    "labels": lambda a: (np.array(["cat", "dog"] * (len(a) // 2)), INVALID),
    "texts": lambda a: ([f"text {i}" for i in range(len(a))], INVALID),
    "None": lambda a: (None, INVALID),
    "index beyond csr": _out_of_range(sp.csr_array, 1),
    "index beyond csc": _out_of_range(sp.csc_array, 1),
    "index beyond coo": _out_of_range(sp.coo_array, 1),
    "negative index csr": _out_of_range(sp.csr_array, -1),
    "negative index csc": _out_of_range(sp.csc_array, -1),
    "negative index coo": _out_of_range(sp.coo_array, -1),
}
# Measures take any non-negative numbers; a model counts words.
MEASURED_FORMS = Y_FORMS | {"fractions": lambda a: (a * 0.25, a * 0.25)}
COUNT_FORMS = Y_FORMS | {"fractions": lambda a: (a * 0.25, INVALID)}
VECTOR_FORMS: dict[str, Callable[[np.ndarray], tuple[Any, Any]]] = {
    "float64": lambda x: (x.copy(), x),
    "float32": _array(np.float32),
    "list": lambda x: (x.tolist(), x),
    "tensor": _tensor(torch.float64),
    "one row": lambda x: (x[None], x),
    "tiny": lambda x: (x * 1e-20, x * 1e-20),
    "large": lambda x: (x * 1e20, x * 1e20),
    "nan": lambda x: (np.where(np.arange(len(x)) == 1, np.nan, x), INVALID),
    "inf": lambda x: (np.where(np.arange(len(x)) == 1, np.inf, x), INVALID),
    "too long": lambda x: (np.append(x, 0.0), INVALID),
    "two rows": lambda x: (np.stack([x, x]), INVALID),
    "text": lambda x: ("a text", INVALID),
    "None": lambda x: (None, INVALID),
    "empty": lambda x: (x[:0], INVALID),
}
W_FORMS: dict[str, Callable[[np.ndarray], tuple[Any, Any]]] = {
    "none": lambda w: (None, np.ones_like(w)),
    "floats": lambda w: (w, w),
    "float32": _array(np.float32),
    "list": lambda w: (w.tolist(), w),
    "Series": lambda w: (pd.Series(w), w),
    "integers": lambda w: (np.ceil(w).astype(int), np.ceil(w)),
    "bools": lambda w: (w > 0.7, (w > 0.7).astype(float)),
    "negative": lambda w: (w - 1, INVALID),
    "nan": lambda w: (np.where(np.arange(len(w)) == 3, np.nan, w), INVALID),
    "too short": lambda w: (w[:-1], INVALID),
    "zeros": lambda w: (w * 0, INVALID),
    "texts": lambda w: (["a"] * len(w), INVALID),
}


def give(forms: dict[str, Any], name: str, plain: np.ndarray) -> Given:
    value, numbers = forms[name](plain)
    return Given(name, value, numbers)


# --- Verbs ---------------------------------------------------------------------------------------
#
# verb(X, Y, w) -> a result that is compared as numbers. Expected: the same verb of the plain numbers.


@cache
def fitted() -> FLiPExtractor:
    return FLiPExtractor(vocabulary=WORDS, **SETTINGS).fit(X64, COUNTS)


@cache
def concepts() -> SpLiCEExtractor:
    return SpLiCEExtractor(X64[:8], device="cpu").fit(X64)


def factors(model: FLiPExtractor) -> list[np.ndarray]:
    return [model.word_embeddings_, model.projection_, model.bias_, model.embedding_mean_]


def sparse_rows(model: FLiPExtractor, X: Any) -> np.ndarray:
    return np.asarray(model.set_params(top_k=3).transform(X).toarray())


def reference_scores(X: np.ndarray) -> np.ndarray:
    model = fitted()
    return (X - model.embedding_mean_) @ model.projection_.T @ model.word_embeddings_.T + model.bias_


def shown(words: Any) -> Any:
    return [list(row) for row in words]


X_VERBS: dict[str, Callable[[Any], Any]] = {
    "decision_function": lambda X: fitted().decision_function(X),
    "predict_proba": lambda X: fitted().predict_proba(X),
    "predict_log_proba": lambda X: fitted().predict_log_proba(X),
    "predict": lambda X: np.asarray(fitted().predict(X).toarray()),
    "transform": lambda X: sparse_rows(fitted(), X),
    "extract_keywords": lambda X: shown(fitted().extract_keywords(X, 3)),
    "SpLiCE transform": lambda X: np.asarray(concepts().transform(X).toarray()),
    "SpLiCE keywords": lambda X: shown(concepts().extract_keywords(X, 3)),
    "erase_words": lambda X: erase_words(fitted(), X, ["w1"]).X,
}
XY_VERBS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "fit": lambda X, Y, w: factors(FLiPExtractor(**SETTINGS).fit(X, Y, sample_weight=w)),
    "fit LiP": lambda X, Y, w: factors(
        FLiPExtractor(**{**SETTINGS, "rank": None}).fit(X, Y, sample_weight=w)
    ),
    "partial_fit": lambda X, Y, w: factors(FLiPExtractor(**SETTINGS).partial_fit(X, Y, sample_weight=w)),
    "score": lambda X, Y, w: fitted().score(X, Y, sample_weight=w),
    "accuracy scorer": lambda X, Y, w: keyword_accuracy_scorer(fitted(), X, Y, sample_weight=w),
    "likelihood scorer": lambda X, Y, w: log_likelihood_scorer(fitted(), X, Y, sample_weight=w),
    "kkt_residual": lambda X, Y, w: kkt_residual(fitted(), X, Y, sample_weight=w),
    "path": lambda X, Y, w: (
        regularization_path(
            X, Y, [1.0, 0.1], estimator=FLiPExtractor(**SETTINGS), max_iter=1, sample_weight=w,
            validation=(X64, COUNTS),
        ).nll
    ),
}  # fmt: skip
# Verbs without weights.
PAIR_VERBS: dict[str, Callable[[Any, Any], Any]] = {
    "stack_views": lambda X, Y: [
        (stack := stack_views({"a": X, "b": X64}, Y)).X,
        np.asarray(sp.csr_array(stack.Y).toarray(), dtype=float),
    ],
    "view_alignment": lambda X, Y: (
        view_alignment(
            {"a": X, "b": X64}, Y, estimator=FLiPExtractor(**SETTINGS), n_bootstrap=20, random_state=0,
            verbose=0,
        ).accuracy.value
    ),
    "word_recoverability": lambda X, Y: (
        word_recoverability(fitted(), X, Y, n_bootstrap=20, random_state=0, verbose=0).recall
    ),
}  # fmt: skip
SCORES = np.random.default_rng(5).permutation(COUNTS.size).reshape(COUNTS.shape) / COUNTS.size
TOP = np.argsort(-SCORES, axis=1)
LOG_PROBA = np.log(SCORES + 0.1) - np.log(np.exp(np.log(SCORES + 0.1)).sum(axis=1, keepdims=True))
Y_VERBS: dict[str, Callable[[Any, Any], Any]] = {
    "keyword_accuracy": lambda Y, w: keyword_accuracy(Y, SCORES, sample_weight=w).value,
    "keyword_accuracy of ranks": lambda Y, w: keyword_accuracy(Y, TOP, sample_weight=w).value,
    "precision_recall": lambda Y, w: precision_recall(Y, SCORES, 3, sample_weight=w).precision,
    "hit_sets": lambda Y, w: np.asarray(hit_sets(Y, SCORES).toarray(), dtype=float),
    "hit_jaccard": lambda Y, w: hit_jaccard(Y, SCORES, SCORES[:, ::-1].copy(), sample_weight=w).value,
    "perplexity": lambda Y, w: float(perplexity(Y, LOG_PROBA, sample_weight=w)),
}
SIMILARITY = "explain_similarity"
# Values of parameters: invalid ones, and valid ones with the plain value that they stand for.
PARAMETERS: dict[str, tuple[list[Any], list[tuple[Any, Any]]]] = {
    "rank": ([0, -1, 1.5, "3", True, np.nan], [(np.int64(2), 2), (None, None), (2, 2)]),
    "l1_strength": (
        [-1.0, np.nan, np.inf, "1", None, [1.0]],
        [(np.float32(0.5), 0.5), (0, 0.0), (1e-300, 0.0)],
    ),
    "l2_strength": ([-1.0, np.nan, np.inf, "1"], [(np.int32(3), 3.0), (0, 0.0)]),
    "max_iter": ([0, -1, 1.5, "3", np.inf], [(np.uint8(3), 3)]),
    "tol": ([-1e-9, np.nan, "1"], [(0, 0.0), (np.float64(1e-3), 1e-3)]),
    "batch_size": ([0, -5, 2.5, "big", None], [(np.int16(7), 7), (10**9, 40)]),
    "learning_rate": ([0.0, -1.0, np.nan, np.inf, "fast"], [(np.float32(0.5), 0.5), (1, 1.0)]),
    "random_state": ([-1, "seed", 1.5, 2**32], [(np.int64(5), 5)]),
    "solver": (["fast", None, 1], [("exact", "exact")]),
    "precision": (["half", None, 32], [("float64", "float64")]),
    "device": (["gpu", "mps", "cuda:-1", None, 3], [("cpu", "cpu")]),
    "early_stopping": (["maybe", 3, None], [(np.False_, False)]),
    "use_bias": (["no", 2, None], [(np.True_, True), (False, False)]),
    "top_k": ([0, -1, 1.5, "all"], [(np.int64(2), 2), (10**9, 8)]),
}
FIT_WITH = "fit with "
VERBS = [*X_VERBS, *XY_VERBS, *PAIR_VERBS, *Y_VERBS, SIMILARITY, *(FIT_WITH + name for name in PARAMETERS)]


def fit_with(name: str, value: Any) -> list[np.ndarray]:
    model = FLiPExtractor(**{**SETTINGS, name: value}).fit(X64, COUNTS)
    return [*factors(model), np.asarray(model.transform(X64).toarray())]


@dataclass(frozen=True)
class Case:
    """A verb, and its inputs."""

    verb: str
    inputs: tuple[Given, ...]

    def __str__(self) -> str:
        return f"{self.verb}({', '.join(given.form for given in self.inputs)})"

    def run(self, inputs: tuple[Any, ...]) -> Any:
        if self.verb == SIMILARITY:
            found = explain_similarity(fitted(), *inputs)
            return [found.cosine, found.common, found.residual, found.contribution]
        if self.verb.startswith(FIT_WITH):
            return fit_with(self.verb.removeprefix(FIT_WITH), inputs[0])
        for verbs in (X_VERBS, XY_VERBS, PAIR_VERBS, Y_VERBS):
            if self.verb in verbs:
                return verbs[self.verb](*inputs)
        raise LookupError(self.verb)


def make_case(seed: int) -> Case:
    """Most parts are plain, so that single faults are not hidden by others."""
    rng = np.random.default_rng(seed)

    def pick(forms: dict[str, Any], plain: np.ndarray, share: float) -> Given:
        name = rng.choice(list(forms)) if rng.random() < share else next(iter(forms))
        return give(forms, str(name), plain)

    verb = VERBS[seed % len(VERBS)]
    weights = rng.uniform(0.5, 2.0, len(X64))
    if verb in X_VERBS:
        return Case(verb, (pick(X_FORMS, X64, 0.9),))
    if verb == SIMILARITY:
        return Case(verb, (pick(VECTOR_FORMS, X64[0], 0.7), pick(VECTOR_FORMS, X64[1], 0.7)))
    if verb.startswith(FIT_WITH):
        invalid, valid = PARAMETERS[verb.removeprefix(FIT_WITH)]
        values = [(value, INVALID) for value in invalid] + valid
        value, plain = values[rng.integers(len(values))]
        return Case(verb, (Given(repr(value), value, plain),))
    if verb in PAIR_VERBS:
        return Case(verb, (pick(X_FORMS, X64, 0.5), pick(COUNT_FORMS, COUNTS, 0.5)))
    if verb in Y_VERBS:
        if verb == "hit_sets":
            return Case(verb, (pick(MEASURED_FORMS, COUNTS, 0.9), give(W_FORMS, "none", weights)))
        return Case(verb, (pick(MEASURED_FORMS, COUNTS, 0.7), pick(W_FORMS, weights, 0.4)))
    return Case(verb, (pick(X_FORMS, X64, 0.4), pick(COUNT_FORMS, COUNTS, 0.5), pick(W_FORMS, weights, 0.3)))


# Forms that some verbs take and some refuse, both with reason.
MAY_DO_EITHER = {
    "no rows",  # a fitted model may return no rows
    "all zeros",  # of zero counts, some measures are nan and some refuse
    "zeros",
    "one row less",  # not wrong without a second input
}
# Views are stacked as they are; a fit checks their numbers.
UNCHECKED_BY = {
    "stack_views": {"nan", "inf", "-inf", "fractions"},
    # Measures need no whole numbers.
    "score": {"fractions"},
    "accuracy scorer": {"fractions"},
    "likelihood scorer": {"fractions"},
    # Where the mean is longer than both vectors by many orders, no terms add up.
    "explain_similarity": {"tiny"},
}


def flat(result: Any) -> Any:
    """Numbers of a result as one vector; lists of words as they are."""
    if isinstance(result, list) and result and isinstance(result[0], list):
        return result
    parts = result if isinstance(result, list) else [result]
    return np.concatenate([np.asarray(part, dtype=np.float64).ravel() for part in parts])


def is_clear(error: Exception) -> bool:
    """Whether the error was raised by a check, here or in scikit-learn, and has a message."""
    if type(error) not in CLEAR_ERRORS and type(error).__module__.split(".")[0] not in CHECKING_PACKAGES:
        return False
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    folders = [f"{os.sep}{package}{os.sep}" for package in CHECKING_PACKAGES]
    return any(folder in last for folder in folders) and len(str(error)) > 15


def judge(case: Case) -> str | None:
    """Return what is wrong with the outcome of a case, or None."""
    undecided = MAY_DO_EITHER | UNCHECKED_BY.get(case.verb, set())
    may_do_either = any(given.form in undecided for given in case.inputs)
    is_valid = all(given.numbers is not INVALID for given in case.inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = case.run(tuple(given.value for given in case.inputs))
        except Exception as error:
            if not is_clear(error):
                return f"{case}: not a clear error: {error!r:.300}"
            if is_valid and not may_do_either:
                return f"{case}: refused: {error!r:.300}"
            return None
        if may_do_either:
            return None
        if not is_valid:
            return f"{case}: accepted, result {result!s:.200}"
        expected = flat(case.run(tuple(given.numbers for given in case.inputs)))
    result = flat(result)
    if isinstance(expected, list):
        return None if result == expected else f"{case}: {result!r:.150} instead of {expected!r:.150}"
    if case.verb == "decision_function":
        np.testing.assert_allclose(expected, reference_scores(case.inputs[0].numbers).ravel(), atol=1e-8)
    if result.shape != expected.shape or not np.allclose(
        result, expected, rtol=1e-4, atol=1e-5, equal_nan=True
    ):
        return f"{case}: {result!s:.150} instead of {expected!s:.150}"
    return None


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_outcome_is_right_or_a_clear_error(chunk: int) -> None:
    wrong = [fault for seed in range(chunk, N_CASES, CHUNKS) if (fault := judge(make_case(seed)))]
    assert not wrong, f"{len(wrong)} of {N_CASES // CHUNKS} cases:\n" + "\n".join(sorted(set(wrong))[:40])


def test_the_judge_finds_faults() -> None:
    """Negative controls: a wrong result, a refusal of valid input, an accepted invalid one, a bare error."""
    good = give(X_FORMS, "float64", X64)
    bad = Given("float64", X64 + 1, X64)
    assert judge(Case("decision_function", (good,))) is None
    assert "instead of" in str(judge(Case("decision_function", (bad,))))
    assert "refused" in str(judge(Case("decision_function", (Given("valid?", None, X64),))))
    assert "accepted" in str(judge(Case("decision_function", (Given("invalid?", X64, INVALID),))))
    assert "not a clear" in str(judge(Case("no such verb", (good,))))
