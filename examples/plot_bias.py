"""
With and without the bias
=========================

FLiP scores a word by b + A B (x - mu): the bias b is the same for all sentences, the rest is what this vector
says. This example ranks the words of the same sentences with and without b. With it, words are ranked by how
likely they are, and frequent words come first; without it, by how much likelier they are here than in the
average sentence.
"""

# %%
# A model of 4,500 sentences, and 1,500 others to test it on.

import textwrap

import matplotlib.pyplot as plt
import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

from flip_sklearn import FLiPExtractor
from flip_sklearn.datasets import load_docstrings
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.plots import KeywordDisplay

texts = load_docstrings(max_sentences=6000, random_state=0)
encoder = SentenceEncoder("all-MiniLM-L6-v2", cache_dir="~/.cache/flip-sklearn/encodings")
X = encoder.transform(texts)
n_train = 4500
counter = CountVectorizer(strip_accents="ascii").fit(texts[:n_train])
Y = counter.transform(texts)
flip = FLiPExtractor(vocabulary=counter.vocabulary_, random_state=0).fit(X[:n_train], Y[:n_train])
X_test, Y_test, test_texts = X[n_train:], Y[n_train:], texts[n_train:]

# %%
# One sentence, two rankings
# --------------------------
#
# ``use_bias`` changes the ranking alone, so a fitted model can be asked for both.

sentences = [i for i, text in enumerate(test_texts) if 9 <= len(text.split()) <= 14][:4]
keywords = {}
for use_bias in (True, False):
    flip.set_params(use_bias=use_bias)
    keywords[use_bias] = flip.extract_keywords(X_test, top_k=8)
for i in sentences:
    print(textwrap.shorten(test_texts[i], 100))
    print("   with bias    ", *keywords[True][i])
    print("   without bias ", *keywords[False][i])

# %%
# All test sentences
# ------------------
#
# Keyword accuracy is the share of the words of a sentence that are found among as many extracted words. It
# counts *the* and *of* like any other word, so the bias raises it. Without the bias, fewer stop words and
# more different words are extracted.

print(f"{'':14}{'accuracy':>9}{'stop words':>12}{'different words':>17}")
for use_bias, label in ((True, "with bias"), (False, "without bias")):
    accuracy = flip.set_params(use_bias=use_bias).score(X_test, Y_test)
    extracted = [word for words in keywords[use_bias] for word in words]
    stop_words = np.mean([word in ENGLISH_STOP_WORDS for word in extracted])
    print(f"{label:14}{accuracy:9.1%}{stop_words:12.1%}{len(set(extracted)):17,}")

# %%
# The first sentence as a picture. Left, ``predict_proba``: how likely a word drawn from the sentence is to be
# this one. Right, the lift, in nats: a difference of 3 is a factor of about 20.

i = sentences[0]
words = flip.vocabulary_
with_bias = flip.set_params(use_bias=True).predict_proba(X_test[[i]])[0]
without_bias = flip.set_params(use_bias=False).decision_function(X_test[[i]])[0]
panels = {
    "Ranked with the bias": (with_bias, "probability"),
    "Ranked without the bias": (without_bias, "lift over the average sentence (nats)"),
}
present = set(counter.build_analyzer()(test_texts[i]))
figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.2), layout="constrained")
for ax, (name, (scores, label)) in zip(axes, panels.items(), strict=True):
    best = np.argsort(-scores)[:10]
    pairs = list(zip(words[best], scores[best], strict=True))
    KeywordDisplay.from_result(pairs, words_present=present, label=label, ax=ax, name=name)
figure.suptitle(f'"{test_texts[i]}"', fontsize=10)

# %%
# What next?
# ----------
#
# - Names are rare words, which the bias hides: :ref:`sphx_glr_gallery_plot_entities.py`.
# - The bias, the rank and the penalty in one search: :ref:`sphx_glr_gallery_plot_grid_search.py`.
# - Words with a probability, neither of the two: :ref:`sphx_glr_gallery_plot_presence.py`.
# - When to use which: :doc:`/estimator`.
