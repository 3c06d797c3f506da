"""
Rank, penalty and bias by grid search
=====================================

How many latent dimensions does a model need, does an L1 penalty help, and what does the bias change?
``GridSearchCV`` of scikit-learn answers as for any estimator. This example searches ranks and penalties, and
scores each fit with and without the bias.
"""

# %%
# The search
# ----------
#
# 2,000 sentences in three folds. ``use_bias`` changes the ranking alone, not the fit: instead of fitting
# twice, the scoring function returns several figures for each fit, among them the share of zeros in the word
# embeddings A.

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.model_selection import GridSearchCV, KFold

from flip_sklearn import FLiPExtractor
from flip_sklearn.datasets import load_docstrings
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.plots import RankCurveDisplay

texts = load_docstrings(max_sentences=6000, random_state=0)[:2000]
encoder = SentenceEncoder("all-MiniLM-L6-v2", cache_dir="~/.cache/flip-sklearn/encodings")
X = encoder.transform(texts)
counter = CountVectorizer(strip_accents="ascii", min_df=2)
Y = counter.fit_transform(texts)


def evaluate(flip, X, Y):
    """Return the accuracy with and without the bias, and the share of zeros in A."""
    accuracy = {use_bias: flip.set_params(use_bias=use_bias).score(X, Y) for use_bias in (False, True)}
    zeros = np.mean(flip.to_dense().word_embeddings_[flip.word_counts_ > 0] == 0)
    return {"with_bias": accuracy[True], "without_bias": accuracy[False], "zeros": zeros}


ranks, strengths = [6, 24, 96, 384], [0.0, 0.3]
search = GridSearchCV(
    FLiPExtractor(vocabulary=counter.vocabulary_, random_state=0),
    {"rank": ranks, "l1_strength": strengths},
    scoring=evaluate,
    refit="with_bias",
    cv=KFold(3, shuffle=True, random_state=0),
).fit(X, Y)
print("best:", search.best_params_)

# %%
# All settings
# ------------
#
# More dimensions read more words, up to the 384 dimensions of the vectors. A penalty that sets half of A to
# zero costs little.

results = search.cv_results_
print(f"{'rank':>4}{'l1_strength':>13}{'with bias':>11}{'without':>9}{'zeros in A':>12}")
for i, setting in enumerate(results["params"]):
    columns = ("with_bias", "without_bias", "zeros")
    with_bias, without, zeros = (results[f"mean_test_{name}"][i] for name in columns)
    print(f"{setting['rank']:4}{setting['l1_strength']:13g}{with_bias:11.1%}{without:9.1%}{zeros:12.0%}")

# %%
# The same as curves. Bands are the standard errors over the three folds.

lines = {
    f"L1 {strength:g}, {metric.replace('_', ' ')}": (strength, metric)
    for metric in ("with_bias", "without_bias")
    for strength in strengths
}
accuracy, error = (
    np.transpose(
        [results[f"{kind}_test_{metric}"][results["param_l1_strength"] == s] for s, metric in lines.values()]
    )
    for kind in ("mean", "std")
)
error = error / np.sqrt(2)
RankCurveDisplay(
    ranks=ranks, accuracy=accuracy, low=accuracy - error, high=accuracy + error, views=list(lines)
).plot(name="Keyword accuracy against the rank, for two penalties, with and without the bias")

# %%
# What next?
# ----------
#
# - Many penalties at the price of a few: :ref:`sphx_glr_gallery_plot_sparsity_path.py`.
# - A search over texts: :class:`~flip_sklearn.TextKeywordExtractor`.
# - Ranks with intervals over sentences: :func:`~flip_sklearn.diagnostics.rank_analysis`.
