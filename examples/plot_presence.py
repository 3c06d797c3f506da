"""
Words with a probability
========================

The best ten words of a sentence are ten, even if only three of them can be known.
:meth:`~flip_sklearn.FLiPExtractor.predict_presence` returns the probability that a word occurs in the text,
so that a keyword list ends where the model is no longer sure. This example draws whether the probabilities
hold.
"""

# %%
# The model is trained on most of the sentences. ``fit`` sets some of them aside, and learns from those how
# often the model is right.

from sklearn.feature_extraction.text import CountVectorizer

from flip_sklearn import FLiPExtractor
from flip_sklearn.datasets import load_docstrings
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.metrics import presence_calibration
from flip_sklearn.plots import PresenceCalibrationDisplay

texts = load_docstrings(max_sentences=6000, random_state=0)
encoder = SentenceEncoder("all-MiniLM-L6-v2", cache_dir="~/.cache/flip-sklearn/encodings")
X = encoder.transform(texts)
counter = CountVectorizer(strip_accents="ascii").fit(texts[:4500])
Y = counter.transform(texts)
flip = FLiPExtractor(vocabulary=counter.vocabulary_, random_state=0).fit(X[:4500], Y[:4500])
X_test, Y_test, test = X[4500:], Y[4500:], texts[4500:]

# %%
# As many words as are certain
# ----------------------------
#
# Of each sentence, the words with a probability of at least 0.5.

rows = [i for i, text in enumerate(test) if 40 < len(text) < 76][:6]
for i, found in zip(
    rows, flip.extract_keywords(X_test[rows], min_probability=0.5, return_scores=True), strict=True
):
    print(test[i])
    print("   ", ", ".join(f"{word} {p:.2f}" for word, p in found) or "no word is that certain")

# %%
# Do the probabilities hold?
# --------------------------
#
# ``precision`` is the share of the words with at least this probability that occur in test sentences,
# ``predicted`` is their mean probability: what precision should be.

result = presence_calibration(Y_test, flip.predict_presence(X_test, top_k=500), thresholds=[0.5, 0.7, 0.9])
print("threshold  precision  predicted  recall")
for p, precision, predicted, recall in zip(
    (0.5, 0.7, 0.9), result.precision, result.predicted_precision, result.recall, strict=True
):
    print(f"{p:9}  {precision:9.2f}  {predicted:9.2f}  {recall:6.2f}")

# %%
# Points on the dotted line are calibrated. The larger the point, the more words it stands for: most words are
# certainly absent. With so few sentences to learn from, the highest probabilities are somewhat too high.

PresenceCalibrationDisplay.from_result(result, name="Are words as frequent as predicted?")

# %%
# What next?
# ----------
#
# - Search vectors by words, best first, with these probabilities: :ref:`sphx_glr_gallery_plot_find.py`.
# - How the probabilities are computed, and figures of a larger model: :doc:`/presence`.
