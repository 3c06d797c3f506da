"""
Read a classifier
=================

A linear classifier of embeddings has coefficients that nobody can read: 384 numbers for each class.
:func:`~flip_sklearn.diagnostics.explain_estimator` says in words what each class looks for, also behind
scalers and PCA. The classifier here tells from which package a sentence comes.
"""

# %%
# A classifier
# ------------
#
# Sentences of docstrings, labelled with their package.

import numpy as np
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flip_sklearn import FLiPExtractor
from flip_sklearn.datasets import load_docstrings
from flip_sklearn.diagnostics import explain_estimator
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.plots import DirectionDisplay

texts = load_docstrings(max_sentences=6000, random_state=0)
encoder = SentenceEncoder("all-MiniLM-L6-v2", cache_dir="~/.cache/flip-sklearn/encodings")
X = encoder.transform(texts)

package_of = {}
for package in ("scipy", "sklearn", "torch"):
    package_of |= dict.fromkeys(load_docstrings(packages=[package]), package)
labels = np.array([package_of.get(text, "") for text in texts])
is_labelled = labels != ""
classifier = make_pipeline(StandardScaler(), PCA(), LogisticRegression(C=0.01, max_iter=1000))
accuracy = cross_val_score(classifier, X[is_labelled], labels[is_labelled], cv=5)
classifier.fit(X[is_labelled], labels[is_labelled])
print(f"accuracy {accuracy.mean():.1%}; the largest class has {np.mean(labels[is_labelled] == 'torch'):.1%}")

# %%
# What each class looks for
# -------------------------
#
# A FLiP model of the same encoder reads the classes. It knows nothing of packages or labels.

counter = CountVectorizer(strip_accents="ascii")
Y = counter.fit_transform(texts)
flip = FLiPExtractor(vocabulary=counter.vocabulary_, random_state=0).fit(X, Y)
result = explain_estimator(classifier, flip, top_k=8)
for name, words in zip(result.classes, result.words, strict=True):
    print(f"{name:8} + {' '.join(word for word, _ in words.raised)}")
    print(f"{'':8} - {' '.join(word for word, _ in words.lowered)}")

# %%
# The words of one class: those that raise its score are at the top. The unit is the change of the score of
# the word when the classifier's score rises by one standard deviation.

DirectionDisplay.from_result(
    result.words[1], label="change of the word's score (nats)", name="What the classifier calls scikit-learn"
)

# %%
# Why not read the coefficients directly?
# ---------------------------------------
#
# Coefficients also cancel what coordinates have in common, so they are no direction in which sentences
# differ. Read as if they were one, they name other words, and rare ones.

wrong = flip.read_directions(result.coefficients, top_k=8)
for name, words in zip(result.classes, wrong, strict=True):
    print(f"{name:8} + {' '.join(words.raised)}")

# %%
# What next?
# ----------
#
# - Clusters and principal axes in words: :ref:`sphx_glr_gallery_plot_clusters.py`.
# - A classifier of keywords, whose every decision is a sum over words: ``examples/classify.py``.
# - Differences and coefficients, and how well they are read: :doc:`/directions`.
