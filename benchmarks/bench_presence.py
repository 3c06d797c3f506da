"""Words with a probability: calibration on held-out captions, compared with other probabilities.

The Brier score of `predict_presence` is compared with that of isotonic regression on theta, fitted to the
held-out rows, and for the commonest words alone with that of scikit-learn's logistic regression, one for each
word, fitted to all training rows.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from benchmarks.data import DEFAULT_DATA, Data, load_captions, positive_int
from flip_sklearn import FLiPExtractor
from flip_sklearn.backend.device import resolve_compute
from flip_sklearn.backend.distributed import ProcessGroup
from flip_sklearn.estimation.presence import fit_presence, held_out_rows
from flip_sklearn.metrics import presence_calibration

COMMONEST = 200
THRESHOLDS = (0.5, 0.7, 0.9)
DEV_ROWS_AT_ONCE = 512
SMALL_THETA = 1e-4


def commonest_brier(presence: np.ndarray, occurs: np.ndarray) -> float:
    """Return the mean squared error of probabilities (n, 200)."""
    return float(((presence - occurs) ** 2).mean())


def isotonic_on_theta(flip: FLiPExtractor, data: Data) -> tuple[float, np.ndarray]:
    """Return the Brier score per row of all words, and the probabilities of the commonest words."""
    rows = flip._held_out
    theta, occurs = flip.predict_proba(data.X[rows]), data.Y[rows].toarray() > 0
    # Smaller theta, almost all of them, are one point: their mean and the share that occurs.
    is_small = theta < SMALL_THETA
    regression = IsotonicRegression(out_of_bounds="clip").fit(
        np.append(theta[~is_small], theta[is_small].mean()),
        np.append(occurs[~is_small], occurs[is_small].mean()),
        sample_weight=np.append(np.ones((~is_small).sum()), is_small.sum()),
    )
    top = np.argsort(-flip.word_counts_)[:COMMONEST]
    total, common = 0.0, []
    for first in range(0, len(data.X_dev), DEV_ROWS_AT_ONCE):
        block = slice(first, first + DEV_ROWS_AT_ONCE)
        theta = flip.predict_proba(data.X_dev[block])
        p = regression.predict(theta.ravel()).reshape(theta.shape)
        total += float(((p - (data.Y_dev[block].toarray() > 0)) ** 2).sum())
        common.append(p[:, top])
    return total / len(data.X_dev), np.concatenate(common)


def logistic_regressions(data: Data, top: np.ndarray, C: float) -> np.ndarray:
    """Return the probabilities of the commonest words by one logistic regression each."""
    scaler = StandardScaler().fit(data.X.astype(np.float32))
    X, X_dev = (scaler.transform(rows.astype(np.float32)) for rows in (data.X, data.X_dev))
    result = np.empty((len(X_dev), len(top)))
    for column, word in enumerate(top):
        occurs = data.Y[:, [word]].toarray().ravel() > 0
        model = LogisticRegression(C=C, max_iter=300, tol=1e-3).fit(X, occurs)
        result[:, column] = model.predict_proba(X_dev)[:, 1]
    return result


def main() -> None:
    """Print the tables of docs/presence.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the captions")
    parser.add_argument("--rows", type=positive_int, default=None, help="training rows; all by default")
    parser.add_argument(
        "--C", type=float, nargs="*", default=[0.01, 0.1, 1.0], help="of the logistic regressions"
    )
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    data = load_captions(args.data, args.rows)
    data.Y.sort_indices()

    started = time.process_time()
    flip = FLiPExtractor(random_state=0).fit(data.X, data.Y)
    seconds, started = time.process_time() - started, time.process_time()
    rows = held_out_rows(data.X, data.Y, np.ones(len(data.X)), flip._held_out)
    fit_presence(vars(flip), rows, resolve_compute("cpu", "auto"), ProcessGroup())
    share = (time.process_time() - started) / seconds
    print(f"{data.Y.shape[0]} captions, {data.Y.shape[1]} words, {len(data.X_dev)} dev captions")
    print(f"fit {seconds:.1f} CPU s, of which for presence {share:.1%}\n")

    presence = flip.predict_presence(data.X_dev, top_k=300)
    result = presence_calibration(data.Y_dev, presence, thresholds=THRESHOLDS)
    print("| p | occurs, of words at p | precision, at least p | predicted | recall | words a row |")
    print("|---|---|---|---|---|---|")
    columns = (result.share_at, result.precision, result.predicted_precision, result.recall)
    for i, p in enumerate(THRESHOLDS):
        cells = " | ".join(f"{column[i]:.3f}" for column in columns)
        print(f"| {p} | {cells} | {result.words_per_row[i]:.1f} |")
    top_ten = presence_calibration(data.Y_dev, flip.predict_presence(data.X_dev, top_k=10))
    print(f"\ncalibration error {result.calibration_error:.4f}", end="")
    print(f", of the ten likeliest words {top_ten.calibration_error:.4f}\n")

    top = np.argsort(-flip.word_counts_)[:COMMONEST]
    occurs = data.Y_dev[:, top].toarray() > 0
    isotonic, isotonic_common = isotonic_on_theta(flip, data)
    print("| Brier score | all words, a row | 200 commonest, a word |")
    print("|---|---|---|")
    ours = commonest_brier(sp.csr_array(presence)[:, top].toarray(), occurs)
    print(f"| predict_presence | {float(result.brier_score):.3f} | {ours:.5f} |")
    print(
        f"| isotonic regression on theta | {isotonic:.3f} | {commonest_brier(isotonic_common, occurs):.5f} |"
    )
    for C in args.C:
        score = commonest_brier(logistic_regressions(data, top, C), occurs)
        print(f"| logistic regressions, C={C:g} | | {score:.5f} |", flush=True)


if __name__ == "__main__":
    main()
