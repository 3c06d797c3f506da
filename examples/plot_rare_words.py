"""
Words that training never saw
=============================

Most words of a text are rare: there are not enough sentences to learn them from. But the encoder knows what
many of them mean. With ``word_features``, FLiP reads words from what they mean, also those that no training
sentence has.
"""

# %%
# Sentences, their embeddings, and the embeddings of the words
# ------------------------------------------------------------
#
# ``word_features`` is a transformer that turns words into vectors. Here it is the encoder of the sentences.

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer

from flip_sklearn import FLiPExtractor
from flip_sklearn.datasets import load_docstrings
from flip_sklearn.diagnostics import rare_word_recall, split_sentences
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.plots import RareWordDisplay

texts = load_docstrings(max_sentences=6000, random_state=0)
encoder = SentenceEncoder("all-MiniLM-L6-v2", cache_dir="~/.cache/flip-sklearn/encodings")
X = encoder.transform(texts)
split = split_sentences(X, random_state=0)
counter = CountVectorizer(strip_accents="ascii", min_df=2).fit([texts[i] for i in split.train])
Y = counter.transform(texts)
words = counter.get_feature_names_out()
n_sentences = np.asarray((Y[split.train] > 0).sum(axis=0)).ravel()
print(f"{len(words)} words; {np.mean(n_sentences < 10):.0%} of them are in fewer than 10 sentences")

# %%
# With features and without
# -------------------------
#
# ``rare_word_recall`` leaves words out of the training, fits a model with features and one without, and looks
# for all words in other sentences. The first model gets the words that it has never seen from their
# embeddings alone; the second one cannot find them. Words of medium frequency make room for rare ones.

flip = FLiPExtractor(vocabulary=words, word_features=encoder, random_state=0)
result = rare_word_recall(flip, X, Y, split=split, random_state=0, verbose=0)
RareWordDisplay.from_result(
    result, use_bias=False, name="Recall by the number of training sentences, without bias"
)

# %%
# A new word
# ----------
#
# ``extend_vocabulary`` adds words to a fitted model, in brackets below. Each must be new to it.

flip.fit(X, Y).set_params(use_bias=False)
new = ["piano", "bread", "football", "airport", "doctor", "rain"]
new = [word for word in new if word not in counter.vocabulary_]
extended = flip.extend_vocabulary(new)
sentences = [
    "She plays Mozart on the keyboard.",
    "The dough rises in the oven.",
    "The pilot landed the plane.",
]
queries = encoder.transform(sentences)
for sentence, found in zip(sentences, extended.extract_keywords(queries, top_k=6), strict=True):
    print(f"{sentence:35} {' '.join(f'[{word}]' if word in new else word for word in found)}")

# %%
# What next?
# ----------
#
# - Without bias, words are ranked by what is special in a sentence: :ref:`sphx_glr_gallery_plot_bias.py`.
# - How features are used, other kinds of features, and figures of a larger model: :doc:`/rare-words`.
