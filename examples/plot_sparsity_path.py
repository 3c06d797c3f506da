"""
A path from sparse to dense
===========================

An L1 penalty sets entries of the word embeddings A to zero: whole words drop out, and the rest reads few
latent dimensions. :func:`~flip_sklearn.regularization_path` fits one model for each strength, from nothing to
almost everything. This example shows what accuracy costs in entries, and which words come first.
"""

# %%
# 4,000 sentences, of which ``regularization_path`` holds out some to measure the accuracy.

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer

from flip_sklearn import FLiPExtractor, regularization_path
from flip_sklearn.datasets import load_docstrings
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.plots import SparsityDisplay

texts = load_docstrings(max_sentences=6000, random_state=0)[:4000]
encoder = SentenceEncoder("all-MiniLM-L6-v2", cache_dir="~/.cache/flip-sklearn/encodings")
X = encoder.transform(texts)
counter = CountVectorizer(strip_accents="ascii", min_df=2)
Y = counter.fit_transform(texts)
estimator = FLiPExtractor(vocabulary=counter.vocabulary_, rank=64, random_state=0)
path = regularization_path(X, Y, 10, estimator=estimator)

print(f"{'strength':>8}{'zeros in A':>12}{'words left':>12}{'accuracy':>10}{'no bias':>9}")
columns = (path.l1_strengths, path.sparsity, path.n_words_left, path.accuracy, path.accuracy_without_bias)
for strength, zeros, words, accuracy, without_bias in zip(*columns, strict=True):
    print(f"{strength:8.3g}{zeros:12.2%}{words:12,}{accuracy:10.1%}{without_bias:9.1%}")

# %%
# The first words
# ---------------
#
# With the strongest penalty there are none. Each further step adds words, here the most frequent of each
# step: frequent words come first, because an entry of theirs gains the most likelihood.

before = np.zeros(len(counter.vocabulary_), dtype=bool)
for strength, model in zip(path.l1_strengths[1:5], path.models[1:5], strict=True):
    is_left = abs(model.word_embeddings_).sum(axis=1) > 0
    new = np.flatnonzero(is_left & ~before)
    new = new[np.argsort(-model.word_counts_[new], kind="stable")]
    print(f"{strength:6.3g}  {' '.join(model.vocabulary_[new][:12])}")
    before = is_left

# %%
# Accuracy against zeros
# ----------------------
#
# ``path.best()`` is the sparsest model within one standard error of the best: the ring.

best = path.best()
i = path.models.index(best)
print(
    f"best(): strength {best.l1_strength:.3g}, {path.sparsity[i]:.0%} zeros, accuracy {path.accuracy[i]:.1%}"
)
SparsityDisplay.from_result(path, name="Accuracy on held-out sentences against zeros in A")

# %%
# What next?
# ----------
#
# - The penalty beside rank and bias: :ref:`sphx_glr_gallery_plot_grid_search.py`.
# - Ten strengths in the time of one or two fits, and how near they are to long fits: :doc:`/regularization`.
