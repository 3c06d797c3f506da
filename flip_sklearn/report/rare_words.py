"""Words that training sees rarely or never: the result, the section and the sentences of the report."""

from __future__ import annotations

import warnings
from dataclasses import asdict

from sklearn.base import clone

from flip_sklearn import diagnostics
from flip_sklearn.diagnostics.bins import NEVER_SEEN
from flip_sklearn.diagnostics.rare_words import words_to_hold_out
from flip_sklearn.estimation.inputs import resolve_l2
from flip_sklearn.report.inputs import ReportInputs
from flip_sklearn.report.wording import change, listed, number, share, size, spelled_bands, times

# Index of scores with the bias and without, of the model with features, and of all words together.
_WITH_BIAS, _WITHOUT, _FEATURES, _ALL = 0, 1, 1, -1
# With fewer words to hold out, a fifth of them is too few to say anything.
_MIN_WORDS = 5


def compute_rare_words(inputs: ReportInputs) -> diagnostics.RareWordRecall | None:
    """Recall by training count in the first view; None if there are no features of the words.

    The features are those of the estimator, or embeddings of the single words.
    """
    sentences, language = inputs.sentences, inputs.first_language
    estimator, counts, view = inputs.estimators[language], inputs.counts[language], sentences.names[0]
    if resolve_l2(estimator) == 0 or len(words_to_hold_out(counts, sentences.split)) < _MIN_WORDS:
        return None
    if estimator.word_features is None:
        features = inputs.dictionary
        if features is None and view in inputs.encoders:
            features = inputs.encoders[view].transform([str(word) for word in inputs.vocabulary])
        if features is None:
            return None
        estimator = clone(estimator).set_params(word_features=features)
    with warnings.catch_warnings():
        # The page says that they change nothing.
        warnings.filterwarnings("ignore", message="word_features do not predict")
        return diagnostics.rare_word_recall(
            estimator, sentences.views[view], counts, split=sentences.split, **asdict(inputs.settings)
        )


def rare_word_texts(result: diagnostics.RareWordRecall) -> list[tuple[str, bool]]:
    """Sentences about words never seen, and rare words; whether they belong to the summary."""
    texts = []
    if NEVER_SEEN in result.bands:
        b = result.bands.index(NEVER_SEEN)
        found = [share(result.recall, bias, _FEATURES, b) for bias in (_WITHOUT, _WITH_BIAS)]
        text = (
            f"Of {number(result.band_words[b])} words that were held out of training and read from features "
            f"of the words alone, {found[0]} of the occurrences are found without the bias, and {found[1]} "
            "with it; a model without features finds none."
        )
        texts.append((text, True))
    for bias, start in ((_WITH_BIAS, "With the bias"), (_WITHOUT, "Without the bias")):
        texts.append((_change_text(result, bias, start), False))
    return texts


def _change_text(result: diagnostics.RareWordRecall, bias: int, start: str) -> str:
    """What features change for the words of training, by their count."""
    more: list[str] = []
    less: list[str] = []
    for b, counts in enumerate(spelled_bands(result)):
        if result.bands[b] in ("0", NEVER_SEEN) or not result.difference.significant[bias, b]:
            continue
        part = f"{size(result.difference, bias, b)} for words that occur {times(counts)}"
        (more if result.difference.value[bias, b] > 0 else less).append(part)
    parts = [
        f"{verb} recall by {listed(bands)}" for verb, bands in (("raise", more), ("lower", less)) if bands
    ]
    changes = "change the recall of no band of words in training significantly"
    overall = change(result.difference, bias, _ALL)
    return (
        f"{start}, features of the words {' and '.join(parts) or changes}; for all words together, held out "
        f"or not, the change is {overall}."
    )
