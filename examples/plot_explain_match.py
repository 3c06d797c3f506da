"""
Why do two texts match?
=======================

A search in vectors returns the nearest one, and does not say why. This example splits the cosine of a query
and of a wrong hit into contributions of words, finds the word that is to blame, and shows what is left of the
match without it.
"""

# %%
# Sentences and a model
# ---------------------
#
# The sentences are from the docstrings of installed Python packages. The model learns to read their words
# from their embeddings.

import textwrap

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer

from flip_sklearn import FLiPExtractor
from flip_sklearn.datasets import load_docstrings
from flip_sklearn.diagnostics import explain_similarity
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.plots import SimilarityDisplay

texts = load_docstrings(max_sentences=6000, random_state=0)
encoder = SentenceEncoder("all-MiniLM-L6-v2", cache_dir="~/.cache/flip-sklearn/encodings")
X = encoder.transform(texts)
counter = CountVectorizer(strip_accents="ascii")
Y = counter.fit_transform(texts)
flip = FLiPExtractor(vocabulary=counter.vocabulary_, random_state=0).fit(X, Y)

# %%
# A wrong hit
# -----------
#
# A forester asks a question. No sentence answers it, but the nearest one is near.

query = "How many trees grow in this forest?"
x = encoder.transform([query])[0]
cosines = X @ x  # the embeddings have unit length
order = np.argsort(-cosines)
print(query)
for i in order[:3]:
    print(f"  {cosines[i]:.2f}  {textwrap.shorten(texts[i], 70)}")

# %%
# The cosine in words
# -------------------
#
# ``explain_similarity`` finds the words of each embedding, and what each of them adds to the cosine. The
# parts add up: what all sentences share, the words, and a rest that no word explains.

explanation = explain_similarity(flip, x, X[order[0]])
SimilarityDisplay.from_result(explanation, top_k=8, name="Why a forest finds an algorithm")

# %%
# Words need not be equal to match. These pairs contribute most: one word of the query, one of the hit.

for of_query, of_hit, part in explanation.pairs(5):
    print(f"{of_query:>12} - {of_hit:12} {part:+.3f}")

# %%
# Without these words
# -------------------
#
# Take the best words out of both embeddings, one after the other, and the match fades: it was about these
# words, not about what was asked.

blamed = explanation.words[np.argsort(-explanation.contribution)]
print(f"{explanation.cosine:.2f}  is the cosine of the query and its hit")
for k in range(1, 4):
    without = explanation.without(blamed[:k])
    print(f"{without.cosine:.2f}  without {', '.join(blamed[:k])}")
print(f"{cosines[order[1]]:.2f}  is the cosine of the next sentence")

# %%
# What next?
# ----------
#
# - Remove a word from the query and search again: :ref:`sphx_glr_gallery_plot_edit.py`.
# - Search by words instead of by a sentence: :ref:`sphx_glr_gallery_plot_find.py`.
# - The same beside a vector store: :doc:`/vector-stores`.
