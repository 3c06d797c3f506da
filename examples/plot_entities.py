"""
Names in vectors
================

Names say what a sentence is about, and they are rare: most occur a few times in a training text. This example
asks how many of the names in unseen sentences are among the best words read from their vectors, with and
without the bias.
"""

# %%
# Names in documentation
# ----------------------
#
# The documentation of scientific packages names mathematicians, methods and software. A name here is a word
# that is written with a capital letter within sentences, and never in lower case. The model is trained on
# 6,000 sentences; the test is made of other sentences, with names that occur in training.

import re
from collections import Counter

from sklearn.feature_extraction.text import CountVectorizer

from flip_sklearn import FLiPExtractor
from flip_sklearn.datasets import load_docstrings
from flip_sklearn.diagnostics import entity_recall_curve
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.plots import EntityCurveDisplay

texts = load_docstrings(random_state=0)
n_train, n_test = 6000, 500
train = texts[:n_train]
lower_case = set(re.findall(r"\b[a-z]+\b", " ".join(train)))


def find_names(text):
    """Return the words with a capital letter within the sentence that are never written in lower case."""
    return [
        name for name in re.findall(r"(?<=[a-z,] )[A-Z][a-z]{2,}\b", text) if name.lower() not in lower_case
    ]


known = Counter(name for text in train for name in find_names(text))
test = [text for text in texts[n_train:] if known.keys() & set(find_names(text))][:n_test]
names = [[name for name in find_names(text) if name in known] for text in test]
print(f"{len(known)} names in training, {sum(n == 1 for n in known.values())} of them once")
print("most frequent:", ", ".join(name for name, _ in known.most_common(12)))

# %%
# Read from vectors
# -----------------
#
# The model sees the embeddings of the test sentences only. ``[name]`` is a name of the sentence.

encoder = SentenceEncoder("all-MiniLM-L6-v2", cache_dir="~/.cache/flip-sklearn/encodings")
X_train, X_test = encoder.transform(train), encoder.transform(test)
counter = CountVectorizer(strip_accents="ascii")
Y_train = counter.fit_transform(train)
flip = FLiPExtractor(vocabulary=counter.vocabulary_, random_state=0).fit(X_train, Y_train)

for i in range(6):
    print(test[i])
    for use_bias in (True, False):
        words = flip.set_params(use_bias=use_bias).extract_keywords(X_test[[i]], top_k=7)[0]
        marked = [f"[{word}]" if word.title() in names[i] else word for word in words]
        print(f"    {'with bias' if use_bias else 'without':11}{' '.join(marked)}")

# %%
# Recall against the number of words
# ----------------------------------
#
# The share of the names of a sentence that are among its k best words. The bias is close to the logarithm of
# a word's frequency, so it ranks names behind frequent words. Intervals are for other names: all sentences
# whose first name is the same are one group.

first_names = [found[0] for found in names]
curve = entity_recall_curve(flip, X_test, names, groups=first_names, random_state=0, verbose=0)
table = curve.to_frame().pivot(index="k", columns="bias", values="recall_strict")
print(f"{curve.n_names} names in {curve.n_sentences} sentences")
print(table.rename(columns={True: "with bias", False: "without bias"}).round(3).to_string())

# %%
# The shaded bands are 95% confidence intervals.

EntityCurveDisplay.from_result(curve, name="Names found among the k best words of unseen sentences")

# %%
# What next?
# ----------
#
# - What the bias does to all words: :ref:`sphx_glr_gallery_plot_bias.py`.
# - Words with few or no training sentences: :doc:`/rare-words`.
# - Names of your own, of several words, from any recognizer:
#   :func:`~flip_sklearn.diagnostics.entity_recall_curve`.
