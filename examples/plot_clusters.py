"""
Name clusters and axes
======================

Clusters of embeddings and their principal axes have no names.
:meth:`~flip_sklearn.FLiPExtractor.read_directions` reads them in words, from the vectors alone. This example
draws a map of 6,000 sentences with the names of its regions and of its axes.
"""

# %%
# Sentences, their embeddings, and a model that reads words from them.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import CountVectorizer

from flip_sklearn import FLiPExtractor
from flip_sklearn.datasets import load_docstrings
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.plots import DirectionDisplay

texts = load_docstrings(max_sentences=6000, random_state=0)
encoder = SentenceEncoder("all-MiniLM-L6-v2", cache_dir="~/.cache/flip-sklearn/encodings")
X = encoder.transform(texts)
counter = CountVectorizer(strip_accents="ascii")
Y = counter.fit_transform(texts)
flip = FLiPExtractor(vocabulary=counter.vocabulary_, random_state=0).fit(X, Y)

# %%
# Clusters
# --------
#
# The centroid of a cluster minus the mean of all sentences is a direction. Its words are those that the
# cluster has more than others. No text of the cluster is read.

kmeans = KMeans(8, n_init=3, random_state=0).fit(X)
names = flip.read_directions(kmeans.cluster_centers_ - flip.embedding_mean_, top_k=6)
sizes = np.bincount(kmeans.labels_)
for c in np.argsort(-sizes):
    print(f"{sizes[c]:4}  {' '.join(names[c].raised)}")

# %%
# Principal axes
# --------------
#
# An axis has two ends, so it has two names.

pca = PCA(4, random_state=0).fit(X)
axes = flip.read_directions(pca.components_, top_k=4)
for share, (raised, lowered) in zip(pca.explained_variance_ratio_, axes, strict=True):
    print(f"{share:.1%}  {' '.join(lowered):30} <->  {' '.join(raised)}")

# %%
# A map with names
# ----------------
#
# The axes of the map are those along which the centroids differ most. They are directions, too.

plane = PCA(2, random_state=0).fit(kmeans.cluster_centers_)
points = plane.transform(X)
figure, ax = plt.subplots(figsize=(7.5, 5), layout="constrained")
for c, (raised, _) in enumerate(names):
    ax.scatter(*points[kmeans.labels_ == c].T, s=8, alpha=0.6, linewidth=0, label=", ".join(raised[:3]))
figure.legend(loc="outside right center", markerscale=3, frameon=False)
for label, (raised, lowered) in zip(
    (ax.set_xlabel, ax.set_ylabel), flip.read_directions(plane.components_, top_k=3), strict=True
):
    label(f"{', '.join(lowered)}   $\\longleftrightarrow$   {', '.join(raised)}")
ax.set(xticks=[], yticks=[], title="6,000 sentences, clusters and axes in words")

# %%
# The words at both ends of the first axis, with their scores.

DirectionDisplay.from_estimator(
    flip, pca.components_[0], top_k=8, name="Both ends of the first principal axis"
)

# %%
# What next?
# ----------
#
# - What a classifier looks for: :ref:`sphx_glr_gallery_plot_classifier.py`.
# - Two given sets instead of clusters, with intervals: :ref:`sphx_glr_gallery_plot_compare.py`.
# - How well the words agree with those of the texts: :doc:`/directions`.
