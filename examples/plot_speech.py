"""
Speech without a transcript
===========================

A speech encoder turns a sound into one vector. Which words can be read off it? This example trains on 1,100
spoken sentences, reads 200 new ones in a voice that it has never heard, and compares with the embedding of
the written sentence.
"""

# %%
# The encodings
# -------------
#
# ``data/speech.npz`` has sentences of NumPy's documentation, spoken by espeak-ng in eight voices, those of
# the test in a ninth. Each is the mean and the standard deviation of the frames of Whisper's encoder
# (tiny.en), 768 numbers, in steps of a thirtieth of their standard deviation. ``python
# examples/speech_data.py`` makes this file with :class:`~flip_sklearn.encoders.SpeechEncoder`, which encodes
# your own recordings in the same way.

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.feature_extraction.text import CountVectorizer

from flip_sklearn import FLiPExtractor, keyword_accuracy
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.plots import ExtractorDisplay, KeywordDisplay

folder = Path("data") if Path("data").exists() else Path("examples/data")
data = np.load(folder / "speech.npz")
texts, is_test = data["texts"], data["is_test"]
speech = data["codes"] * data["step"] + data["mean"]
counter = CountVectorizer(strip_accents="ascii").fit(texts[~is_test])
Y = counter.transform(texts)
print(f"{len(texts):,} sounds, {speech.shape[1]} numbers each; {len(counter.vocabulary_):,} words")

# %%
# Train on sounds, read sounds
# ----------------------------

flip = FLiPExtractor(vocabulary=counter.vocabulary_, early_stopping=True, use_bias=False, random_state=0)
flip.fit(speech[~is_test], Y[~is_test])
sounds, said, true_counts = speech[is_test], texts[is_test], Y[is_test]
for text, words in zip(said[:8], flip.extract_keywords(sounds[:8], top_k=7), strict=True):
    print(f"{text}\n    {' '.join(words)}")

# %%
# How many words are found?
# -------------------------
#
# The same model is trained on the text embeddings of the same sentences, and on sounds that are paired with
# other sentences, from which nothing can be learned. Accuracy is the share of the words of a sentence that
# are found among as many extracted words, with the bias.

encoder = SentenceEncoder("all-MiniLM-L6-v2", cache_dir="~/.cache/flip-sklearn/encodings")
shuffled = speech.copy()
shuffled[~is_test] = np.random.default_rng(0).permutation(speech[~is_test])
accuracy = {}
for name, X in {"speech": speech, "text": encoder.transform(texts), "shuffled sounds": shuffled}.items():
    model = FLiPExtractor(vocabulary=counter.vocabulary_, early_stopping=True, random_state=0)
    scores = model.fit(X[~is_test], Y[~is_test]).decision_function(X[is_test])
    accuracy[name] = keyword_accuracy(true_counts, scores)
most_frequent = np.tile(flip.word_counts_, (len(sounds), 1))
accuracy["most frequent words"] = keyword_accuracy(true_counts, most_frequent)
for name, result in accuracy.items():
    print(f"{name:20} {result.value:.1%} +- {result.standard_error:.1%}")

# %%
# The last of the sentences above, and the accuracies with their standard errors.

figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
i = 7
KeywordDisplay.from_estimator(
    flip,
    sounds[i],
    top_k=8,
    words_present=set(counter.build_analyzer()(said[i])),
    ax=axes[0],
    name=f'Read off the sound of "{said[i]}"',
)
value = np.array([[result.value] for result in accuracy.values()])
error = np.array([[result.standard_error] for result in accuracy.values()])
ExtractorDisplay(
    extractors=list(accuracy), accuracy=value, low=value - error, high=value + error, views=["accuracy"]
).plot(ax=axes[1], name="Words found in 200 new sentences in a new voice")

# %%
# What next?
# ----------
#
# - 9,000 sounds, a model of text that reads speech, and the study behind it: :doc:`/speech`.
# - Other encoders of speech and of text: :doc:`/encoders`.
# - One encoder of many languages: :ref:`sphx_glr_gallery_plot_languages.py`.
