"""Brier score, calibration, precision and recall of presence: small exact cases, and calibrated samples."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from flip_sklearn.metrics import presence_calibration


def sample(n: int = 4000, n_words: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    presence = rng.uniform(size=(n, n_words)) ** 3
    return (rng.uniform(size=presence.shape) < presence).astype(int), presence


def test_against_a_loop() -> None:
    Y, presence = sample(30, 7)
    weights = np.random.default_rng(1).uniform(size=30)
    result = presence_calibration(3 * Y, presence, thresholds=[0.2, 0.6], n_bins=4, sample_weight=weights)
    pairs = [(weights[n], presence[n, j], Y[n, j]) for n in range(30) for j in range(7)]
    brier = sum(w * (p - o) ** 2 for w, p, o in pairs) / weights.sum()
    assert float(result.brier_score) == pytest.approx(brier)
    total, error = sum(w for w, p, _ in pairs if p >= 0.01), 0.0
    for b in range(4):
        binned = [(w, p, o) for w, p, o in pairs if p >= 0.01 and b / 4 <= p < (b + 1) / 4]
        assert result.n_pairs[b] == len(binned)
        error += abs(sum(w * (p - o) for w, p, o in binned)) / total
    assert result.calibration_error == pytest.approx(error)
    for i, t in enumerate([0.2, 0.6]):
        above = [(w, p, o) for w, p, o in pairs if p >= t]
        mass = sum(w for w, _, _ in above)
        assert result.precision[i] == pytest.approx(sum(w * o for w, _, o in above) / mass)
        assert result.predicted_precision[i] == pytest.approx(sum(w * p for w, p, _ in above) / mass)
        words = sum(w * o for w, _, o in pairs)
        assert result.recall[i] == pytest.approx(sum(w * o for w, _, o in above) / words)
        assert result.words_per_row[i] == pytest.approx(mass / weights.sum())


def test_calibrated_and_not() -> None:
    Y, presence = sample()
    good = presence_calibration(Y, presence)
    assert good.calibration_error < 0.01
    np.testing.assert_allclose(good.share_at, good.thresholds, atol=0.03)
    np.testing.assert_allclose(good.precision, good.predicted_precision, atol=0.02)
    assert (good.precision > good.thresholds).all()
    bad = presence_calibration(Y, presence**0.5)
    assert bad.calibration_error > 0.1
    assert float(bad.brier_score) > float(good.brier_score)


def test_forms_of_input() -> None:
    Y, presence = sample(50, 5)
    expected = presence_calibration(Y, presence)
    names = list("abcde")
    for counts, probabilities in (
        (sp.csr_array(Y), sp.csr_array(presence)),
        (Y.tolist(), presence.tolist()),
        (pd.DataFrame(Y, columns=names), pd.DataFrame(presence, columns=names)),
        (sp.coo_array(Y), sp.csc_array(presence)),
    ):
        result = presence_calibration(counts, probabilities)
        assert float(result.brier_score) == pytest.approx(float(expected.brier_score))
        np.testing.assert_allclose(result.recall, expected.recall)


def test_nothing_predicted_and_nothing_there() -> None:
    result = presence_calibration(np.eye(3), np.zeros((3, 3)))
    assert float(result.brier_score) == 1
    assert result.calibration_error == 0
    assert np.isnan(result.precision).all()
    assert (result.recall == 0).all()
    assert np.isnan(presence_calibration(np.zeros((2, 3)), np.full((2, 3), 0.6)).recall).all()


@pytest.mark.parametrize(
    ("presence", "message"),
    [
        (np.full((2, 3), 1.2), "1.2; probabilities are in"),
        (np.full((2, 3), -0.1), "presence is not a matrix of probabilities"),
        (np.full((2, 3), np.nan), "presence is not a matrix of probabilities"),
        (np.zeros((2, 4)), r"shape \(2, 4\), Y has \(2, 3\)"),
    ],
)
def test_bad_probabilities(presence: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        presence_calibration(np.ones((2, 3)), presence)


def test_bad_parameters() -> None:
    with pytest.raises(ValueError, match="thresholds=0"):
        presence_calibration([[1]], [[0.5]], thresholds=[0])
    with pytest.raises(ValueError, match="n_bins=0"):
        presence_calibration([[1]], [[0.5]], n_bins=0)
