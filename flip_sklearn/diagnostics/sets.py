"""Words that the texts of one set of embeddings have more often than those of another: compare_sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit
from scipy.stats import false_discovery_control

from flip_sklearn.backend.scoring.presence_sums import GroupSums
from flip_sklearn.diagnostics.bootstrap import Interval
from flip_sklearn.diagnostics.frames import interval_columns
from flip_sklearn.diagnostics.inputs import check_model
from flip_sklearn.estimation import scoring
from flip_sklearn.estimation.frames import data_frame
from flip_sklearn.estimation.presence import check_has_presence, sum_presence
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.parameters import check_number, number_groups

CONFIDENCE = 0.95
# A word is tested if it is expected in this many texts of both sets together, and in this many of each set if
# its share were the same in both. The rule does not depend on which text is in which set.
MIN_TEXTS, MIN_TEXTS_OF_SET = 10.0, 1.0
# Relative to the squared mean, a smaller variance is the rounding of sums in float32.
_ROUNDING = 1e-6
_N_SHOWN = 5


@dataclass(frozen=True, eq=False)
class SetComparison:
    """Result of :func:`compare_sets`, for V words.

    Attributes
    ----------
    words : ndarray of shape (V,)
        The vocabulary.
    share_a, share_b : ndarray of shape (V,)
        Expected share of the texts of each set that have the word, in [0, 1].
    difference : Interval of shape (V,)
        ``share_a`` minus ``share_b``, with an interval at ``confidence`` for each word on its own.
    log_ratio : ndarray of shape (V,)
        Logarithm of ``share_a / share_b``, with half a text added to the texts of each set that have the
        word, and to their number what keeps equal shares equal.
    tested : ndarray of bool of shape (V,)
        Whether the word is expected in enough texts to be tested.
    statistic, p_value : ndarray of shape (V,)
        Student's t after removal of the skewness, positive for words that are more frequent in the first
        set, and its two-sided p-value; nan for words that are not tested.
    q_value : ndarray of shape (V,)
        p-value adjusted by Benjamini and Hochberg: the smallest ``fdr`` at which the word is discovered; nan
        for words that are not tested.
    discovered : ndarray of bool of shape (V,)
        Whether ``q_value <= fdr``.
    n_rows, n_groups : tuple of two int
        Number of rows, and of groups, of the first and of the second set.
    fdr, confidence : float
        False discovery rate, and level of the intervals.
    """

    words: np.ndarray
    share_a: np.ndarray
    share_b: np.ndarray
    difference: Interval
    log_ratio: np.ndarray
    tested: np.ndarray
    statistic: np.ndarray
    p_value: np.ndarray
    q_value: np.ndarray
    discovered: np.ndarray
    n_rows: tuple[int, int]
    n_groups: tuple[int, int]
    fdr: float
    confidence: float

    def more_in_a(self, k: int | None = None) -> list[str]:
        """Return the discovered words that the first set has more often, clearest evidence first.

        Parameters
        ----------
        k : int, default=None
            The largest number of words; all of them if None.

        Returns
        -------
        list of str
            The words, clearest evidence first.
        """
        return list(map(str, self.words[self.order(k)[0]]))

    def more_in_b(self, k: int | None = None) -> list[str]:
        """Return the discovered words that the second set has more often, clearest evidence first.

        Parameters
        ----------
        k : int, default=None
            The largest number of words; all of them if None.

        Returns
        -------
        list of str
            The words, clearest evidence first.
        """
        return list(map(str, self.words[self.order(k)[1]]))

    def order(self, k: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the columns of the words of :meth:`more_in_a` and of :meth:`more_in_b`.

        Parameters
        ----------
        k : int, default=None
            The largest number of words of each; all of them if None.

        Returns
        -------
        more_in_a, more_in_b : ndarray of int
            Positions of the words in ``words``, clearest evidence first.
        """
        columns = np.flatnonzero(self.discovered)
        columns = columns[np.argsort(-np.abs(self.statistic[columns]), kind="stable")]
        is_more = self.statistic[columns] > 0
        return columns[is_more][:k], columns[~is_more][:k]

    def to_frame(self) -> Any:
        """One row for each word, in the order of the vocabulary.

        Returns
        -------
        pandas.DataFrame
            Columns ``word``, ``share_a``, ``share_b``, ``difference``, ``difference_low``,
            ``difference_high``, ``log_ratio``, ``tested``, ``statistic``, ``p_value``, ``q_value`` and
            ``discovered``.
        """
        table = {"word": self.words, "share_a": self.share_a, "share_b": self.share_b}
        table |= interval_columns("difference", self.difference, "difference_")
        for name in ("log_ratio", "tested", "statistic", "p_value", "q_value", "discovered"):
            table[name] = getattr(self, name)
        return data_frame(table)

    def __repr__(self) -> str:
        parts = [f"{int(self.discovered.sum())} of {int(self.tested.sum())} tested words differ"]
        for name, columns in zip("ab", self.order(), strict=True):
            if len(columns):
                words = ", ".join(map(str, self.words[columns[:_N_SHOWN]]))
                parts.append(f"more in {name}: {words}{', ...' if len(columns) > _N_SHOWN else ''}")
        return f"SetComparison({self.n_rows[0]} and {self.n_rows[1]} rows; {'; '.join(parts)})"


@dataclass(frozen=True)
class _Set:
    """Checked embeddings, and the group of each row, None if every row is one."""

    X: Any
    groups: np.ndarray | None
    sizes: np.ndarray | None  # rows of each group

    @property
    def n_groups(self) -> int:
        return len(self.X) if self.sizes is None else len(self.sizes)

    @property
    def size_squares(self) -> float:
        """Sum of the squared numbers of rows of the groups."""
        return float(len(self.X)) if self.sizes is None else float((self.sizes.astype(np.float64) ** 2).sum())


@dataclass(frozen=True)
class _Moments:
    """A quantity of the rows of one set: n rows, sum_g K_g^2, and its sums."""

    n: int
    size_squares: float
    sums: GroupSums

    @property
    def mean(self) -> np.ndarray:
        return self.sums.total / self.n

    @property
    def mean_size(self) -> float:
        """Mean size of the group of a row."""
        return self.size_squares / self.n

    def group_residuals(self, center: np.ndarray) -> np.ndarray:
        """sum_g (R_g - center K_g)^2."""
        sums = self.sums
        squares: np.ndarray = sums.group_squares - 2 * center * sums.group_products
        return squares + center**2 * self.size_squares

    def own_variance(self) -> np.ndarray:
        """Variance of the mean from the groups of this set, (V,)."""
        correction = self.n / (self.n - self.mean_size)
        return np.asarray(np.maximum(self.group_residuals(self.mean) * correction / self.n**2, 0))


@dataclass(frozen=True)
class _Null:
    """What both sets together say if all groups are from one population, (V,)."""

    mean: np.ndarray
    difference: np.ndarray
    standard_error: np.ndarray  # of the difference
    skewness: np.ndarray  # of the difference
    effective_rows: tuple[np.ndarray, np.ndarray]  # independent rows with as much information as the set

    @classmethod
    def of(cls, a: _Moments, b: _Moments) -> _Null:
        """Estimate the variance of a row, and the correlation of the rows of a group."""
        n, size_squares = a.n + b.n, a.size_squares + b.size_squares
        mean = (a.sums.total + b.sums.total) / n
        correction = n / (n - size_squares / n)
        variance = (a.sums.squares + b.sums.squares) / n - mean**2
        variance = np.maximum(variance, _ROUNDING * mean**2) * correction
        correlation = np.zeros_like(mean)
        if size_squares > n:
            between = (a.group_residuals(mean) + b.group_residuals(mean)) * correction
            with np.errstate(invalid="ignore"):
                correlation = (between / variance - n) / (size_squares - n)
            correlation = np.clip(np.nan_to_num(correlation), 0, 1)
        n_a, n_b = (part.n / (1 + correlation * (part.mean_size - 1)) for part in (a, b))
        error = np.sqrt(variance * (1 / n_a + 1 / n_b))
        # Of the mean of n_a draws without replacement from n_a + n_b rows.
        cubes, squares = (
            (getattr(a.sums, name) + getattr(b.sums, name)) / n for name in ("cubes", "squares")
        )
        share = n_a / (n_a + n_b)
        with np.errstate(invalid="ignore"):
            skewness = np.nan_to_num((cubes - 3 * mean * squares + 2 * mean**3) / variance**1.5)
        skewness = skewness * (1 - 2 * share) / np.sqrt(n_a * (1 - share))
        return cls(mean, a.mean - b.mean, error, skewness, (n_a, n_b))

    def statistic(self) -> np.ndarray:
        """The difference in standard errors, transformed to a normal distribution if it is a skewed gamma.

        Wilson and Hilferty (1931), The distribution of chi-square.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            t = np.nan_to_num(self.difference / self.standard_error)
            cube_root = np.cbrt(np.maximum(1 + self.skewness * t / 2, 0))
            transformed = 6 / self.skewness * (cube_root - 1) + self.skewness / 6
        return np.asarray(np.where(np.abs(self.skewness) > 1e-3, transformed, t))

    def log_share(self, share: np.ndarray, n: np.ndarray) -> np.ndarray:
        """Logarithm of the share of n rows over that of both sets, half a text added to both counts."""
        return np.asarray(np.log((n * share + 0.5) / (n * self.mean + 0.5)))


def compare_sets(
    model: FLiPExtractor, X_a: Any, X_b: Any, *, groups_a: Any = None, groups_b: Any = None, fdr: float = 0.05
) -> SetComparison:
    """Find the words that the texts behind one set of embeddings have more often, without the texts.

    With p_nj the probability that word j occurs in the text of row n (``predict_presence``), the expected
    share of texts with the word differs by::

        D_j = mean_a p_j - mean_b p_j.

    A word is discovered if the means of the fourth root of p_nj differ, at a false discovery rate (Benjamini
    and Hochberg 1995), and D_j has the same sign and is at least one standard error.

    Parameters
    ----------
    model : FLiPExtractor
        Fitted model with ``presence_`` attributes, which ``fit`` learns from held-out rows.
    X_a, X_b : array-like of shape (n_a, d) and (n_b, d)
        Embeddings, as ``model.transform`` takes them, of at least two texts each. Memory-mapped arrays are
        read in blocks.
    groups_a, groups_b : array-like of shape (n_a,) and (n_b,), default=None
        Labels of rows that are not independent of each other, such as queries of one user, passages of one
        document or copies of one text; each row on its own if None. At least two groups each. The labels of
        the two sets are not compared: a group that is in both counts as two.
    fdr : float, default=0.05
        False discovery rate, in (0, 1): the expected share of false discoveries.

    Returns
    -------
    SetComparison
        Shares, differences with intervals, p-values and discoveries of all words.

    Raises
    ------
    ValueError
        If the model is not a fitted FLiPExtractor or has no ``presence_`` attributes; if a set is empty or
        does not match the model; if groups do not match their set, or are fewer than two; or if ``fdr`` is
        not allowed.

    Notes
    -----
    Tested are words that are expected in at least 10 texts of both sets together, and in at least one text of
    each set if the share were the same in both: a rule that does not depend on which text is in which set.
    Texts are counted as independent ones; copies in one group count once.

    The test asks whether both sets may be draws from one population of groups: its variance is that of both
    sets together, with the correlation of the rows of a group. Probabilities are near 0 for most texts
    and near 1 for a few, so their means are far from normal in small samples. Those of fourth roots are
    nearer (Field, Clarke and Warwick 1982, A practical strategy for analysing multispecies distribution
    patterns, which compares abundances by their fourth roots); the skewness that is left in sets of different
    sizes is removed by the transformation of Wilson and Hilferty (1931). The test is more powerful than the
    interval of the difference, so the interval of a discovered word may contain 0.

    Intervals are D_j plus or minus a standard error times the quantile of Student's t, whose degrees of
    freedom are the groups of the smaller set less one (groups of equal size with as much information). The
    standard error is the larger of two: that of both sets together, as in the test, and the cluster-robust
    one of each set by itself, which for a rare word is too small where a set happens to have none. The
    intervals hold for the expected share in other texts of the same kind, read by the same model. The error
    of the model is not in them: the probabilities hold for texts like the held-out ones of the fit, and if
    sets were selected by their texts, the difference is too small for the words that they were selected by
    (docs/compare.md).

    Sums over rows and groups are computed in blocks, in memory that does not grow with the number of rows.

    References
    ----------
    Benjamini and Hochberg (1995), "Controlling the false discovery rate". Jiang et al. (2025), "Interpretable
    embeddings with sparse autoencoders", arXiv 2512.10092, compare sets of texts with a language model.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn import FLiPExtractor
    >>> from flip_sklearn.diagnostics import compare_sets
    >>> rng = np.random.default_rng(0)
    >>> words = ["red", "green", "blue", "dog", "cat"]
    >>> def texts(n, share):
    ...     return (rng.random((n, 5)) < share).astype(int)
    >>> Y = texts(1500, [0.3, 0.3, 0.3, 0.3, 0.3])
    >>> encode = rng.normal(size=(5, 12))
    >>> flip = FLiPExtractor(rank=5, vocabulary=words, max_iter=20, random_state=0).fit(Y @ encode, Y)
    >>> this_month = texts(400, [0.3, 0.3, 0.3, 0.5, 0.3]) @ encode
    >>> last_month = texts(300, [0.3, 0.3, 0.3, 0.3, 0.6]) @ encode
    >>> result = compare_sets(flip, this_month, last_month)
    >>> result.more_in_a(), result.more_in_b()
    (['dog'], ['cat'])
    """
    model = check_model(model)
    check_has_presence(model)
    fdr = check_number("fdr", fdr, 0, 1, open_low=True, open_high=True)
    sets = _check_set(model, "a", X_a, groups_a), _check_set(model, "b", X_b, groups_b)
    sums = [sum_presence(model, part.X, part.groups) for part in sets]
    (a, root_a), (b, root_b) = (
        tuple(_Moments(len(part.X), part.size_squares, quantity) for quantity in set_sums)
        for part, set_sums in zip(sets, sums, strict=True)
    )
    shares, roots = _Null.of(a, b), _Null.of(root_a, root_b)
    n_a, n_b = shares.effective_rows
    # Groups of equal size with as much information; a set with one large group may have hardly more than one.
    freedom = max(min(a.n / a.mean_size, b.n / b.mean_size) - 1, 1.0)
    error = np.sqrt(np.maximum(shares.standard_error**2, a.own_variance() + b.own_variance()))
    half = stdtrit(freedom, 0.5 + CONFIDENCE / 2) * error
    value = shares.difference
    tested = ((n_a + n_b) * shares.mean >= MIN_TEXTS) & (
        np.minimum(n_a, n_b) * shares.mean >= MIN_TEXTS_OF_SET
    )
    tested &= model.word_counts_ > 0
    statistic = roots.statistic()
    p_value = 2 * stdtr(freedom, -np.abs(statistic))
    is_clear = (np.abs(value) >= error) & (np.sign(value) == np.sign(statistic))
    p_value = np.where(tested, np.where(is_clear, p_value, 1.0), np.nan)
    q_value = np.full(len(p_value), np.nan)
    q_value[tested] = false_discovery_control(p_value[tested])
    return SetComparison(
        words=np.array(model.vocabulary_, dtype=object),
        share_a=a.mean,
        share_b=b.mean,
        difference=Interval(value, np.maximum(value - half, -1), np.minimum(value + half, 1)),
        log_ratio=shares.log_share(a.mean, n_a) - shares.log_share(b.mean, n_b),
        tested=tested,
        statistic=np.where(tested, statistic, np.nan),
        p_value=p_value,
        q_value=q_value,
        discovered=q_value <= fdr,
        n_rows=(a.n, b.n),
        n_groups=(sets[0].n_groups, sets[1].n_groups),
        fdr=fdr,
        confidence=CONFIDENCE,
    )


def _check_set(model: FLiPExtractor, name: str, X: Any, groups: Any) -> _Set:
    """Check the embeddings and the groups of one set."""
    if hasattr(X, "__len__") and len(X) == 0:
        raise ValueError(f"X_{name} is empty; pass the embeddings (n, {model.n_features_in_}) of its texts.")
    try:
        X = scoring.fitted_input(model, X)
    except ValueError as error:
        raise ValueError(f"X_{name}: {error}") from error
    sizes = None
    if groups is not None:
        try:
            groups = number_groups(groups, len(X))[1]
        except ValueError as error:
            raise ValueError(f"groups_{name}: {error}") from error
        sizes = np.bincount(groups)
    n_groups = len(X) if sizes is None else len(sizes)
    if n_groups < 2:
        what = f"X_{name} has 1 row" if sizes is None else f"groups_{name} has 1 group"
        raise ValueError(f"{what}; at least 2 are needed to know how much the set varies.")
    return _Set(X, groups, sizes)
