"""The probability that a word occurs in a text, in place of theta, block by block.

With T(x) = exp(c + w h) the expected number of words, H(x) the entropy of theta and u_j = log(T theta_j) the
logarithm of the expected count of word j,

    log-odds_j = a_j + s_j u_j + (1, u_j) R (log T, H),    the slope of u_j at least MIN_SLOPE,

so that for a given T and H the probability of a word rises with its theta.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from flip_sklearn.backend.device import Compute, Embeddings, to_device, upload
from flip_sklearn.backend.ranking import top_k
from flip_sklearn.backend.scoring.scorer import Scorer

MIN_SLOPE = 0.1
# Bounds of log T: far more and far fewer words than any text has.
MAX_LOG_LENGTH = 20.0
# From about here on a probability rounds to 1 in float64.
LARGEST_LOG_ODDS = 36.0


@dataclass(frozen=True)
class PresenceParameters:
    """The parameters of the module's formula, float64."""

    length: np.ndarray  # (1 + r,), c and w
    intercept: np.ndarray  # (V,), a
    slope: np.ndarray  # (V,), s
    row_coef: np.ndarray  # (2, 2), R


@dataclass(frozen=True)
class ScoredRows:
    """What a block of rows says of T, H and u, each on the device."""

    log_length: torch.Tensor  # (m, 1)
    entropy: torch.Tensor  # (m, 1)
    scores: torch.Tensor  # (m, V), log theta but for a constant of the row
    to_log_counts: torch.Tensor  # (m, 1), what is added to the scores for u

    def log_counts(self, words: torch.Tensor | None = None) -> torch.Tensor:
        """Return u (m, V), which overwrites the scores, or u of some words (m, k)."""
        if words is None:
            return self.scores.add_(self.to_log_counts)
        return self.scores[:, words] + self.to_log_counts


def scored_rows(scorer: Scorer, X: Embeddings, length: np.ndarray) -> Iterator[ScoredRows]:
    """Yield consecutive blocks of rows; the next block overwrites the scores."""
    weights = to_device(length, scorer.compute)
    for h, scores in scorer.score_blocks(X):
        log_length = (weights[0] + h @ weights[1:, None]).clamp_(-MAX_LOG_LENGTH, MAX_LOG_LENGTH)
        scores.sub_(scores.amax(dim=1, keepdim=True))
        theta = scores.exp()
        total = theta.sum(dim=1, keepdim=True)
        entropy = total.log() - torch.linalg.vecdot(theta, scores)[:, None] / total
        yield ScoredRows(log_length, entropy, scores, log_length - total.log())


class LogOdds:
    """The log-odds of presence of all words (m, V), or of some words (m, k), for blocks of rows."""

    def __init__(
        self, parameters: PresenceParameters, compute: Compute, words: np.ndarray | None = None
    ) -> None:
        selected = slice(None) if words is None else words
        self._words = None if words is None else upload(torch.from_numpy(words), compute.device)
        self._intercept = to_device(parameters.intercept[selected], compute)
        self._slope = to_device(parameters.slope[selected], compute)
        self._row_coef = to_device(parameters.row_coef.T, compute)

    def __call__(self, rows: ScoredRows) -> torch.Tensor:
        """Compute the log-odds of a block; those of all words overwrite its scores."""
        slope, offset = self.slope_and_offset(rows)
        return rows.log_counts(self._words).mul_(slope).add_(self._intercept).add_(offset)

    def slope_and_offset(self, rows: ScoredRows) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the slope in u, of the shape of the log-odds, and what a row adds to all of its words."""
        by_row = torch.hstack([rows.log_length, rows.entropy]) @ self._row_coef
        return (self._slope + by_row[:, 1:]).clamp_(min=MIN_SLOPE), by_row[:, :1]


@torch.inference_mode()
def all_latents(scorer: Scorer, X: Embeddings) -> np.ndarray:
    """Return h (n, r) of all rows, float64."""
    return np.concatenate([h.double().cpu().numpy() for h in scorer.latents(X)])


@torch.inference_mode()
def likely_words(
    scorer: Scorer, X: Embeddings, length: np.ndarray, min_count: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield, block by block, the words that are expected more than ``min_count`` times in a row.

    These are the row in the block and the word of each pair, in this order, its u, and (log T, H) of all rows
    of the block, (m, 2).
    """
    for rows in scored_rows(scorer, X, length):
        log_counts = rows.log_counts()
        is_likely = log_counts > math.log(min_count)
        row, word = (index.cpu().numpy() for index in torch.nonzero(is_likely, as_tuple=True))
        features = torch.hstack([rows.log_length, rows.entropy]).double().cpu().numpy()
        yield row, word, log_counts[is_likely].double().cpu().numpy(), features


def log_odds_blocks(scorer: Scorer, X: Embeddings, parameters: PresenceParameters) -> Iterator[torch.Tensor]:
    """Yield the log-odds (m, V) of consecutive blocks of rows, -inf for words that training did not see.

    The next block overwrites them, and so may the caller.
    """
    log_odds_of = LogOdds(parameters, scorer.compute)
    unseen = upload(torch.from_numpy(np.flatnonzero(scorer.unseen)), scorer.compute.device)
    for rows in scored_rows(scorer, X, parameters.length):
        log_odds = log_odds_of(rows)
        log_odds[:, unseen] = -torch.inf
        yield log_odds


@torch.inference_mode()
def mean_row_features(scorer: Scorer, X: Embeddings, length: np.ndarray) -> np.ndarray:
    """Means of log T and H over all rows, (2,)."""
    sums = torch.zeros(2, dtype=torch.float64, device=scorer.compute.device)
    for rows in scored_rows(scorer, X, length):
        sums += torch.stack([rows.log_length.double().sum(), rows.entropy.double().sum()])
    means: np.ndarray = sums.cpu().numpy() / len(X)
    return means


@torch.inference_mode()
def presence_blocks(
    scorer: Scorer, X: Embeddings, parameters: PresenceParameters, k: int, min_probability: float = 0.0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the likeliest words and their probabilities, best first, (m, k') for consecutive blocks of rows.

    These are the best k words, or fewer: at least all of the k that have ``min_probability``. Words that
    training did not see are not among them; equal probabilities rank the lower word first.
    """
    lowest = -np.inf if min_probability == 0 else _log_odds(min_probability) - 1e-3
    for log_odds in log_odds_blocks(scorer, X, parameters):
        # With a minimum, only as many columns as the row with the most words above it has.
        n_columns = k if lowest == -np.inf else min(k, int((log_odds >= lowest).sum(dim=1).max()))
        if n_columns == 0:
            empty = np.empty((len(log_odds), 0))
            yield empty.astype(np.int64), empty
            continue
        values, words = top_k(log_odds, n_columns)
        yield words.cpu().numpy(), torch.sigmoid(values.double()).cpu().numpy()


@torch.inference_mode()
def word_log_odds(
    scorer: Scorer, X: Embeddings, parameters: PresenceParameters, words: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the log-odds of some words and their slopes in u, (n, k) each, float64."""
    log_odds_of = LogOdds(parameters, scorer.compute, words)
    blocks = [
        torch.hstack([log_odds_of(rows), log_odds_of.slope_and_offset(rows)[0]]).double().cpu().numpy()
        for rows in scored_rows(scorer, X, parameters.length)
    ]
    log_odds, slopes = np.hsplit(np.concatenate(blocks), 2)
    return log_odds, slopes


@torch.inference_mode()
def changed_words(
    scorer: Scorer,
    pair: tuple[Embeddings, Embeddings],
    parameters: PresenceParameters,
    k: int,
    excluded: np.ndarray,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the k words whose probability differs most between two embeddings, the largest change first.

    For consecutive blocks of rows these are the words and their probabilities in the first and in the second
    embeddings, (m, k) each. ``excluded`` words are not among them.
    """
    left_out = upload(torch.from_numpy(excluded), scorer.compute.device)
    first, second = ((o.sigmoid() for o in log_odds_blocks(scorer, X, parameters)) for X in pair)
    for before, after in zip(first, second, strict=True):
        change = (after - before).abs_()
        change[:, left_out] = -1
        words = top_k(change, k)[1]
        old, new = (p.gather(1, words).double().cpu().numpy() for p in (before, after))
        yield words.cpu().numpy(), old, new


def _log_odds(probability: float) -> float:
    with np.errstate(divide="ignore"):
        return min(float(np.log(probability) - np.log1p(-probability)), LARGEST_LOG_ODDS)
