"""
From texts to keywords
======================

:class:`~flip_sklearn.TextKeywordExtractor` learns to read the words of a text off its embedding. This example
trains one on sentences of documentation, reads new vectors without their texts, and measures how many words
are found.
"""

# %%
# Three lines
# -----------
#
# The texts are docstrings of the packages on this machine; any list of a few thousand sentences will do.
# ``cache_dir`` keeps the vectors, so that no text is encoded twice.

import numpy as np

from flip_sklearn import TextKeywordExtractor, keyword_accuracy
from flip_sklearn.datasets import load_docstrings
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.plots import KeywordDisplay

texts = load_docstrings(max_sentences=6000, random_state=0)
train, test = texts[:5000], texts[5000:]

encoder = SentenceEncoder("all-MiniLM-L6-v2", cache_dir="~/.cache/flip-sklearn/encodings")
model = TextKeywordExtractor(encoder).fit(train)
print(model.extract_keywords(["Compute the eigenvalues of a symmetric matrix."], top_k=5))

# %%
# Vectors without texts
# ---------------------
#
# What the model reads is the vector, 384 numbers. The text is not needed: vectors of a database do as well.

vectors = encoder.transform(test)
for text, words in zip(test[:6], model.extract_keywords(embeddings=vectors[:6], top_k=6), strict=True):
    print(f"{text}\n    {' '.join(words)}")

# %%
# How many words are found?
# -------------------------
#
# ``score`` is the keyword accuracy: the share of the words of a sentence that are among as many words with
# the best scores, on sentences that training has not seen. The most frequent words are the floor that any
# method reaches.

Y = model.vectorizer_.transform(test)
floor = keyword_accuracy(Y, np.tile(model.extractor_.word_counts_, (len(test), 1)))
print(f"words found          {model.score(test):.1%}")
print(f"most frequent words  {floor.value:.1%}")

# %%
# A picture of one vector
# -----------------------
#
# Words are ranked without the bias, by how much likelier they are here than in the average sentence; the axis
# has the logarithm of this factor. ``extractor_`` is the fitted :class:`~flip_sklearn.FLiPExtractor`, which
# all diagnoses and pictures take.

text = "How do I sort a list of numbers?"
flip = model.extractor_.set_params(use_bias=False)
KeywordDisplay.from_estimator(
    flip,
    encoder.transform([text]),
    top_k=10,
    words_present=set(model.vectorizer_.build_analyzer()(text)),
    name=f'Words read off the vector of "{text}"',
)

# %%
# What next?
# ----------
#
# - The same ranking with the bias: :ref:`sphx_glr_gallery_plot_bias.py`.
# - Why two vectors are similar: :ref:`sphx_glr_gallery_plot_explain_match.py`.
# - Settings by grid search: :ref:`sphx_glr_gallery_plot_grid_search.py`.
# - The tutorial, to a saved model and a report: :doc:`/tutorial`.
