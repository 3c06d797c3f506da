"""The report on what separates the views: sentences, section, and the same numbers as view_gap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer

from flip_sklearn import FLiPExtractor
from flip_sklearn.diagnostics import view_gap
from flip_sklearn.report import diagnose
from flip_sklearn.report.view_gap import view_gap_texts
from flip_sklearn.report.wording import quoted
from tests.helpers.pictures import difference, interval, view_gap_result


def test_sentences_name_the_significant_parts() -> None:
    result = view_gap_result()
    (german, french) = view_gap_texts(result)
    assert german[1]
    assert french[1]
    start = f"Of the 58.0 points that the model trained on {quoted('en')} loses on {quoted('de')}, "
    assert german[0].startswith(start)
    assert "25.0 points (22.0 to 28.0) are a shift of all embeddings" in german[0]
    assert "8.0 points (5.0 to 11.0) are a rotation" in german[0]
    assert "25.0 points (22.0 to 28.0) are lost to any linear map" in german[0]
    assert "free linear map fitted" not in german[0]  # the shear is not significant
    assert "finds 62.0% of the words, 9.0 points (4.0 to 14.0) more than the linear map" in german[0]
    assert "rotation" not in french[0].split("free linear map")[0]  # a negative part
    no_more = replace(result, retraining=difference([0.0, 0.0]))
    assert "finds no more than the linear map" in view_gap_texts(no_more)[0][0]


def test_no_sentence_without_a_loss_or_without_words() -> None:
    """Negative controls: no significant loss; a source that is not above the baseline; no part alone."""
    result = view_gap_result()
    assert view_gap_texts(replace(result, loss=difference([0.01, -0.3]))) == []
    low = result.accuracy.value.copy()
    low[:, 5] = 0.24
    assert view_gap_texts(replace(result, accuracy=interval(low))) == []
    none = replace(result, difference=difference(np.full((2, 4), 0.02)))
    assert "no part is significant by itself" in view_gap_texts(none)[0][0]


def test_the_largest_loss_of_many_pairs_is_in_the_summary() -> None:
    result = view_gap_result()
    loss = difference([0.3, 0.5, 0.4])
    rows = [0, 1, 1]
    many = replace(
        result,
        pairs=(("a", "b"), ("a", "c"), ("a", "d")),
        accuracy=interval(result.accuracy.value[rows]),
        difference=difference(result.difference.value[rows], 0.03),
        loss=loss,
        retraining=difference([0.1, 0.1, 0.1]),
    )
    assert [main for _, main in view_gap_texts(many)] == [False, True, False]


def test_the_page_has_the_numbers_of_view_gap() -> None:
    """A shifted view: all of the loss is shift, with the models of the alignment."""
    rng = np.random.default_rng(0)
    words = np.array(["sun", "rain", "wind", "snow", "cloud", "storm", "frost", "heat", "river", "lake"])
    texts = [" ".join(rng.choice(words, size=4)) for _ in range(300)]
    counts = np.array([[text.split().count(word) for word in words] for text in texts])
    text = counts @ rng.normal(size=(10, 8))
    views = {"text": text, "speech": text + 3 * rng.normal(size=8)}
    options = {"n_bootstrap": 50, "random_state": 0, "verbose": 0}
    estimator = FLiPExtractor(max_iter=5)
    report = diagnose(
        views, texts, vectorizer=CountVectorizer(), ranks=False, estimator=estimator, n_examples=0, **options
    )
    Y = CountVectorizer().fit([texts[i] for i in report.split.train]).transform(texts)
    expected = view_gap(views, Y, source="text", estimator=estimator, split=report.split, **options)
    assert report.view_gap.to_frame().equals(expected.to_frame())
    (finding,) = [finding for finding in report.findings if finding.about == "view_gap"]
    assert "are a shift of all embeddings" in finding.text
    assert "rotation" not in finding.text
    assert "What separates the views?" in report.html
    alone = diagnose(text, texts, vectorizer=CountVectorizer(), ranks=False, estimator=estimator, **options)
    assert alone.view_gap is None
    assert "What separates the views?" not in alone.html
