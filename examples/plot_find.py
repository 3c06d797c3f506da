"""
Find vectors by words
=====================

Embeddings are often stored without their texts. :meth:`~flip_sklearn.FLiPExtractor.find_rows` finds those
whose texts have given words and lack others, with probabilities. This example searches vectors of unknown
sentences, and compares with what is done otherwise: the cosine with the embedding of the word.
"""

# %%
# A model, and vectors to search
# ------------------------------
#
# The model is trained on three quarters of the sentences. Of the others it sees the embeddings only.

import textwrap

import matplotlib.pyplot as plt
import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer
from sklearn.metrics import average_precision_score

from flip_sklearn import FLiPExtractor
from flip_sklearn.datasets import load_docstrings
from flip_sklearn.encoders import SentenceEncoder

texts = load_docstrings(max_sentences=6000, random_state=0)
encoder = SentenceEncoder("all-MiniLM-L6-v2", cache_dir="~/.cache/flip-sklearn/encodings")
X = encoder.transform(texts)
n_train = 4500
counter = CountVectorizer(strip_accents="ascii").fit(texts[:n_train])
Y = counter.transform(texts)
flip = FLiPExtractor(vocabulary=counter.vocabulary_, random_state=0).fit(X[:n_train], Y[:n_train])
stored, stored_texts, has_word = X[n_train:], texts[n_train:], Y[n_train:] > 0

# %%
# One word, and not another
# -------------------------
#
# The texts are printed to check the answers: the search does not use them.

rows, probability = flip.find_rows(stored, "array", exclude=["shape"], top_k=5, return_scores=True)
for row, p in zip(rows, probability, strict=True):
    print(f"{p:.2f}  {textwrap.shorten(stored_texts[row], 72)}")

# %%
# ``mode="any"`` asks for one of several words.

rows, probability = flip.find_rows(
    stored, ["classifier", "regression"], mode="any", top_k=5, return_scores=True
)
for row, p in zip(rows, probability, strict=True):
    print(f"{p:.2f}  {textwrap.shorten(stored_texts[row], 72)}")

# %%
# Compared with cosines
# ---------------------
#
# The usual way is to encode the word, and to sort the vectors by their cosine with it. This finds what is
# similar to the word; ``find_rows`` finds the texts that have it. Average precision is 1 if all texts with
# the word come first.

counts = np.asarray(has_word.sum(axis=0)).ravel()
is_content = ~np.isin(flip.vocabulary_, list(ENGLISH_STOP_WORDS))
columns = np.flatnonzero((counts >= 25) & is_content)
words = flip.vocabulary_[columns]
cosines = stored @ encoder.transform(words.tolist()).T
by_cosine, by_words = [], []
for j, word in enumerate(words):
    is_true = has_word[:, [columns[j]]].toarray().ravel()
    by_cosine.append(average_precision_score(is_true, cosines[:, j]))
    rows, probability = flip.find_rows(stored, word, top_k=len(stored), return_scores=True)
    by_words.append(average_precision_score(is_true[rows], probability))
print(f"mean average precision over {len(words)} words")
print(f"  find_rows          {np.mean(by_words):.3f}")
print(f"  cosine of the word {np.mean(by_cosine):.3f}")

# %%
# Every second of these words. The longer the line, the more is gained. A word that is no topic, such as
# "returns", is in many sentences that are not similar to it.

shown = np.argsort(by_words)[::2]
y = np.arange(len(shown))
left, right = np.array(by_cosine)[shown], np.array(by_words)[shown]
figure, ax = plt.subplots(figsize=(6, 6), layout="constrained")
ax.hlines(y, left, right, color="lightgray", linewidth=2, zorder=0)
ax.scatter(left, y, marker="s", color="tab:orange", label="cosine of the word")
ax.scatter(right, y, color="tab:blue", label="find_rows")
ax.set_yticks(y, words[shown])
ax.set(xlabel="average precision", title=f"Words searched in {len(stored):,} vectors without their texts")
ax.legend(loc="lower right")

# %%
# What next?
# ----------
#
# - Why a single vector was found: :ref:`sphx_glr_gallery_plot_explain_match.py`.
# - Whether the probabilities hold: :ref:`sphx_glr_gallery_plot_presence.py`.
# - Millions of vectors in files, and figures: :doc:`/find`.
