"""
Which words differ between two sets of vectors?
===============================================

Last month's queries and this month's, answers that users liked and did not like: two sets of vectors, and no
texts. :func:`~flip_sklearn.diagnostics.compare_sets` names the words that one set has more often, with
intervals and at a given false discovery rate. Here the sets are sentences about PyTorch and sentences about
scikit-learn.
"""

# %%
# A model, and two sets
# ---------------------
#
# The model is trained on half of the sentences. The others are divided by the package that they come from,
# and are compared as vectors only.

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer

from flip_sklearn import FLiPExtractor
from flip_sklearn.datasets import load_docstrings
from flip_sklearn.diagnostics import compare_sets
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.plots import SetComparisonDisplay

texts = load_docstrings(max_sentences=6000, random_state=0)
encoder = SentenceEncoder("all-MiniLM-L6-v2", cache_dir="~/.cache/flip-sklearn/encodings")
X = encoder.transform(texts)
counter = CountVectorizer(strip_accents="ascii")
Y = counter.fit_transform(texts[:3000])
flip = FLiPExtractor(vocabulary=counter.vocabulary_, random_state=0).fit(X[:3000], Y)

rows = {}
for package in ("torch", "sklearn"):
    of_package = set(load_docstrings(packages=[package]))
    rows[package] = [i for i in range(3000, len(texts)) if texts[i] in of_package]
    print(f"{package}: {len(rows[package])} vectors")

# %%
# The words that differ
# ---------------------

X_torch, X_sklearn = X[rows["torch"]], X[rows["sklearn"]]
result = compare_sets(flip, X_torch, X_sklearn)
print(f"{result.discovered.sum()} of {result.tested.sum()} words differ")
SetComparisonDisplay.from_result(result, names=("torch", "sklearn"), name="Read from vectors, without texts")

# %%
# Is it true?
# -----------
#
# The texts are known here, so the words can be counted. Equal signs are right.

shares = [
    np.asarray((counter.transform([texts[i] for i in part]) > 0).mean(axis=0)).ravel()
    for part in rows.values()
]
true_difference = shares[0] - shares[1]
print("               read    counted")
for j in np.concatenate(result.order(5)):
    print(f"{result.words[j]:14} {result.difference.value[j]:+6.1%}  {true_difference[j]:+6.1%}")
found = result.discovered
agree = np.sign(result.difference.value[found]) == np.sign(true_difference[found])
print(f"same sign: {agree.mean():.0%} of the {found.sum()} words")

# %%
# Two random halves
# -----------------
#
# A method that always finds something is of no use. Both sets mixed and divided at random should differ in no
# word.

mixed = np.random.default_rng(0).permutation(np.concatenate([X_torch, X_sklearn]))
halves = compare_sets(flip, mixed[::2], mixed[1::2])
print(f"{halves.discovered.sum()} of {halves.tested.sum()} words differ")

# %%
# What next?
# ----------
#
# - Vectors of one user, or of one document, are not independent: pass ``groups_a`` and ``groups_b``.
# - What the intervals hold for, and how often they are right: :doc:`/compare`.
# - Many sets: :ref:`sphx_glr_gallery_plot_classifier.py`, :ref:`sphx_glr_gallery_plot_clusters.py`.
