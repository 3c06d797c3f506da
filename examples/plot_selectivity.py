"""
Read or guessed?
================

A model may name a word because the vector holds it, or because the other words make it likely.
:func:`~flip_sklearn.diagnostics.selectivity` deletes each word from its sentence, encodes the sentence again,
and looks whether the model still names it. A word that is still named was guessed.
"""

# %%
# The model is trained on most of the sentences, and tested on others.

from sklearn.feature_extraction.text import CountVectorizer

from flip_sklearn import FLiPExtractor
from flip_sklearn.datasets import load_docstrings
from flip_sklearn.diagnostics import selectivity
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.plots import SelectivityDisplay

texts = load_docstrings(max_sentences=6000, random_state=0)
encoder = SentenceEncoder("all-MiniLM-L6-v2", cache_dir="~/.cache/flip-sklearn/encodings")
X = encoder.transform(texts)
counter = CountVectorizer(strip_accents="ascii")
Y = counter.fit_transform(texts[:5500])
flip = FLiPExtractor(vocabulary=counter.vocabulary_, random_state=0).fit(X[:5500], Y)

# %%
# One word, deleted
# -----------------
#
# The ten best words of a sentence, and of the same sentence without one word.

sentence = "The function returns a sorted array of the unique labels."
pair = encoder.transform([sentence, sentence.replace("sorted ", "")])
for name, found in zip(("with 'sorted':", "without:"), flip.extract_keywords(pair, top_k=10), strict=True):
    print(f"{name:15}{' '.join(found)}")

# %%
# All words
# ---------
#
# 1,000 words of the test sentences are deleted, one at a time.

result = selectivity(
    flip,
    X[5500:],
    texts=texts[5500:],
    encoder=encoder,
    vectorizer=counter,
    max_words=1000,
    random_state=0,
    verbose=0,
)
columns = ["bias", "band", "recall", "recall_deleted", "held", "guessed"]
print(result.to_frame()[columns].round(2).to_string(index=False))

# %%
# Words are grouped by how often they occur in training. The line between both points is what the vector holds
# of them. It is short for the most frequent ones: *the* is named, whether it is there or not.

SelectivityDisplay.from_result(result, name="Named with the word in the sentence, and after its deletion")

# %%
# Without the bias, which ranks frequent words first, far less is guessed.

SelectivityDisplay.from_result(result, use_bias=False, name="The same without the bias")

# %%
# What next?
# ----------
#
# - With and without the bias: :ref:`sphx_glr_gallery_plot_bias.py`.
# - More controls, and figures of a larger model: :doc:`/selectivity`.
