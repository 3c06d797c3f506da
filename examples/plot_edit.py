"""
Edit vectors, erase words, and see what leaks
=============================================

:func:`~flip_sklearn.diagnostics.edit_words` replaces a word in a vector, without its text: "the same, but
about arrays". :class:`~flip_sklearn.WordEraser` takes words out of vectors, so that no linear model finds
them. This example does both, and measures with :func:`~flip_sklearn.diagnostics.leakage` who finds erased
words nevertheless.
"""

# %%
# Half of the sentences train a model that reads words from embeddings. The others are edited.

import textwrap

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer

from flip_sklearn import FLiPExtractor, WordEraser
from flip_sklearn.datasets import load_docstrings
from flip_sklearn.diagnostics import edit_words, leakage
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.plots import LeakageDisplay

texts = load_docstrings(max_sentences=6000, random_state=0)
encoder = SentenceEncoder("all-MiniLM-L6-v2", cache_dir="~/.cache/flip-sklearn/encodings")
X = encoder.transform(texts)
n = 3000
counter = CountVectorizer(strip_accents="ascii").fit(texts[:n])
Y = counter.transform(texts)
flip = FLiPExtractor(vocabulary=counter.vocabulary_, random_state=0).fit(X[:n], Y[:n])

# %%
# One word for another
# --------------------
#
# In each vector of a sentence with "tensor", the word is replaced by "array". The nearest other sentence,
# before and after, shows what the new vectors mean.

has_tensor, has_array = (
    Y[:, [counter.vocabulary_[word]]].toarray().ravel() > 0 for word in ("tensor", "array")
)
rows = n + np.flatnonzero((has_tensor & ~has_array)[n:])
edited = edit_words(flip, X[rows], add="array", remove=["tensor", "tensors"])


def nearest(queries: np.ndarray) -> np.ndarray:
    """Return the nearest sentence to each query by cosine, the edited sentence left out."""
    cosines = queries @ X.T / np.linalg.norm(queries, axis=1, keepdims=True)
    cosines[np.arange(len(rows)), rows] = -1
    return cosines.argmax(axis=1)


before, after = nearest(X[rows]), nearest(edited.X)
for i in range(3):
    print(f"sentence:       {textwrap.shorten(texts[rows[i]], 62)}")
    print(f"nearest before: {textwrap.shorten(texts[before[i]], 62)}")
    print(f"nearest after:  {textwrap.shorten(texts[after[i]], 62)}\n")
for name, found in (("before", before), ("after", after)):
    print(
        f"the nearest {name:6} has 'tensor': {has_tensor[found].mean():.0%}, "
        f"'array': {has_array[found].mean():.0%}"
    )

# %%
# Erase words
# -----------
#
# A ``WordEraser`` is fitted to vectors and counts. After it, the words have no linear trace in these: their
# covariance with every coordinate is zero. It is saved with ``save_pretrained``, and needs no texts when it
# is used.

words = ["tensor", "array", "function"]
eraser = WordEraser(words, vocabulary=counter).fit(X[:n], Y[:n])
x = X[rows[:1]]
print(texts[rows[0]])
print("keywords before:", " ".join(flip.extract_keywords(x, top_k=8)[0]))
print("keywords after: ", " ".join(flip.extract_keywords(eraser.transform(x), top_k=8)[0]))

# %%
# What leaks
# ----------
#
# Three readers look for the erased words in sentences that neither they nor the eraser has seen: the FLiP
# model, a new linear model, and a small neural network. 0.5 is chance.

result = leakage(X[n:], Y[n:], words, model=flip, random_state=0, verbose=0)
LeakageDisplay.from_result(result, name="Who finds erased words?")

# %%
# The linear reader finds nothing. The network finds most: the words are hidden, not removed. **Erasure is no
# protection of private data.**

print(textwrap.fill(result.summary(), 80))

# %%
# What next?
# ----------
#
# - Which edits find the edited text, and how it is computed: :doc:`/edit`.
# - What erasure guarantees, and what not: :doc:`/leakage`.
# - Which word a match depends on: :ref:`sphx_glr_gallery_plot_explain_match.py`.
