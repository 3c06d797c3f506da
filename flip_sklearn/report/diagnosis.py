"""Every diagnosis of one set of sentences, and the page that tells them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone

from flip_sklearn.diagnostics import (
    EntityRecallCurve,
    ExtractorComparison,
    RankAnalysis,
    SentenceSplit,
    ViewAlignment,
    VocabularyPreference,
    WordRecoverability,
    compare_extractors,
    entity_recall_curve,
    rank_analysis,
    view_alignment,
    vocabulary_preference,
    word_recoverability,
)
from flip_sklearn.diagnostics.evaluation import fit_on
from flip_sklearn.io import write_atomic
from flip_sklearn.report import findings as rules
from flip_sklearn.report.examples import Example, examples
from flip_sklearn.report.findings import Finding
from flip_sklearn.report.page import render
from flip_sklearn.report.request import (
    Request,
    check_extras,
    check_out,
    check_request,
    check_title,
)
from flip_sklearn.splice import SpLiCEExtractor


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """Result of :func:`diagnose`.

    Attributes
    ----------
    views : tuple of str
    split : SentenceSplit
        The sentences that were trained on and tested on, the same for all results.
    vocabulary : ndarray of str
        The words that were looked for.
    alignment : ViewAlignment or None
        None for a single view.
    preference : VocabularyPreference or None
        None unless the texts came as a mapping of languages.
    recoverability : dict of str to WordRecoverability
        One for each view.
    entities : EntityRecallCurve or None
        None unless names were given.
    ranks : RankAnalysis or None
        None for ``ranks=False``.
    extractors : ExtractorComparison
    examples : tuple of Example
        Test sentences drawn at random.
    findings : tuple of Finding
        What the figures say, in plain words.
    html : str
        The page.
    """

    views: tuple[str, ...]
    split: SentenceSplit
    vocabulary: np.ndarray
    alignment: ViewAlignment | None
    preference: VocabularyPreference | None
    recoverability: dict[str, WordRecoverability]
    entities: EntityRecallCurve | None
    ranks: RankAnalysis | None
    extractors: ExtractorComparison
    examples: tuple[Example, ...]
    findings: tuple[Finding, ...]
    html: str = field(repr=False)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page, in one step: what was there stays whole until the new page is.

        Parameters
        ----------
        path : path-like
            An ``.html`` file; its folder is made where it is missing.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        ValueError
            If the path is no ``.html`` file or cannot be written to.
        """
        target = check_out(path)
        write_atomic(target, self.html.encode("utf8"))
        return target

    def __repr__(self) -> str:
        n_test = len(self.split.test)
        return (
            f"Diagnosis({len(self.views)} views, {n_test} test sentences, {len(self.vocabulary)} words, "
            f"{len(self.findings)} findings)"
        )


def diagnose(
    views: Mapping[str, Any] | Any,
    texts: Sequence[str] | Mapping[str, Sequence[str]],
    *,
    out: str | os.PathLike[str] | None = None,
    title: str | None = None,
    vectorizer: Any = None,
    view_texts: Mapping[str, Sequence[str]] | None = None,
    entities: Any = None,
    dictionary: Callable[[list[str]], Any] | Any = None,
    ranks: Sequence[int | None] | bool | None = None,
    groups: Any = None,
    test: Any = None,
    estimator: Any = None,
    n_examples: int = 20,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    random_state: Any = None,
    verbose: int = 1,
) -> Diagnosis:
    """Find out what an encoder keeps of the words, and write it down for someone who reads no Python.

    All that fits the input is measured on one split of the sentences: :func:`view_alignment` for two views
    or more, :func:`vocabulary_preference` for texts in several languages, :func:`word_recoverability` for
    each view, :func:`entity_recall_curve` where names are given, :func:`rank_analysis`, and
    :func:`compare_extractors`. The page holds the tables with their intervals, pictures, example
    sentences with the words read off each view, and the findings: sentences that follow from the
    figures by fixed rules. It is one file, loads nothing and runs no script. The same input, seed and
    versions give the same bytes, on the same machine with as many threads.

    Parameters
    ----------
    views : mapping of str to array-like of shape (n, d), or one such array
        Row-aligned views of the same sentences in one embedding space; one array is a view named
        "embeddings".
    texts : sequence of n str, or mapping of str to such sequences
        The sentences. A mapping of languages gives each language a vocabulary of its own; words are read
        in the first one, except by :func:`vocabulary_preference`.
    out : path-like, default=None
        Where to save the page, an ``.html`` file.
    title : str, default=None
        The page's title.
    vectorizer : vectorizer, default=None
        What counts the words: fitted on the training sentences only, once per language. When None, a
        :class:`~flip_sklearn.vocabulary.ConceptVectorizer` of single words, whose ``min_count`` is 20 from
        160,000 training sentences on and falls with the root of their number, to 2. With pairs
        ("new york") as one unit, a name of several words is not found: names are looked up word by word.
    view_texts : mapping of str to sequence of n str, default=None
        What a view was made of where that is another text than the sentence (a translation, a transcript,
        a text with typos). Shown with the examples, never counted. A view with the name of a language
        is taken to be made of that language's text.
    entities : sequence of n lists of str, default=None
        The names in each sentence, an empty list for none.
    dictionary : callable or array-like of shape (V, d), default=None
        Embeddings of single words by the same encoder, or a function from a list of words to them. Adds
        SpLiCE to the extractors.
    ranks : sequence of int or None, or False, default=None
        As in :func:`rank_analysis`; False leaves it out.
    groups : array-like of shape (n,), default=None
        What belongs together, as in :func:`split_sentences`. Sentences with equal texts (but for case and
        blanks) or equal embeddings always do.
    test : array-like of bool of shape (n,) or of int, default=None
        The test sentences, as in :func:`split_sentences`; a fifth when None.
    estimator : FLiPExtractor, default=None
        Settings of the models; ``FLiPExtractor()`` when None.
    n_examples : int, default=20
        Example sentences, >= 0.
    n_bootstrap : int, default=1000
        Resamples of the test sentences, >= 10.
    confidence : float, default=0.95
        Level of the intervals, in (0, 1).
    random_state : int, RandomState instance or None, default=None
        Seed of the split, the fits, the resamples and the examples. The page names it.
    verbose : int, default=1
        Above zero, progress bars where something takes over two seconds.

    Returns
    -------
    Diagnosis
        All results, the findings and the page.

    Raises
    ------
    ValueError
        Before any training, if views, texts, names or the dictionary do not fit each other, ``out`` cannot
        be written, or another argument is not allowed.
    ImportError
        Before any training, without ``pip install 'flip-sklearn[report]'``.

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn.report import diagnose
    >>> rng = np.random.default_rng(0)
    >>> words = np.array("sun rain wind snow cloud storm frost heat river lake".split())
    >>> texts = [" ".join(rng.choice(words, size=4)) for _ in range(300)]
    >>> counts = np.array([[text.split().count(word) for word in words] for text in texts])
    >>> text = counts @ rng.normal(size=(10, 8))
    >>> speech = text + 2 * rng.normal(size=text.shape)
    >>> diagnosis = diagnose({"text": text, "speech": speech}, texts, ranks=False, random_state=0)
    >>> len(diagnosis.examples), diagnosis.html.startswith("<!DOCTYPE html>")
    (20, True)
    """
    path, title = None if out is None else check_out(out), check_title(title)
    check_extras()
    request = check_request(
        views, texts, vectorizer=vectorizer, view_texts=view_texts, entities=entities,
        dictionary=dictionary, ranks=ranks, groups=groups, test=test, estimator=estimator,
        n_examples=n_examples, n_bootstrap=n_bootstrap, confidence=confidence,
        random_state=random_state, verbose=verbose,
    )  # fmt: skip
    results = _measure(request)
    found = _read(results)
    html = render(title, request, results, found)
    diagnosis = Diagnosis(
        views=request.sentences.names,
        split=request.sentences.split,
        vocabulary=request.vocabulary,
        findings=found,
        html=html,
        **results,
    )
    if path is not None:
        diagnosis.save(path)
    return diagnosis


def _measure(request: Request) -> dict[str, Any]:
    """All results, under the names of Diagnosis' fields."""
    sentences, Y, model = request.sentences, request.words, request.model
    arrays, given = sentences.views, request.resampling
    # The model of all views at once shows the examples and the words kept and lost.
    joint = fit_on(model, sentences, sentences.names, Y)
    of_test = {name: given[name] for name in given if name != "split"}
    test = sentences.split.test
    extractors = {"FLiP": model, "LiP": clone(model).set_params(rank=None)}
    if request.dictionary is not None:
        extractors["SpLiCE"] = SpLiCEExtractor(request.dictionary)
    several = len(arrays) > 1
    return {
        "alignment": view_alignment(arrays, Y, estimator=model, **given) if several else None,
        "preference": (
            # Each language has its own words, so that the estimator must not bring those of the first.
            vocabulary_preference(
                arrays, request.counts, estimator=clone(model).set_params(vocabulary=None), **given
            )
            if request.several_texts
            else None
        ),
        "recoverability": {
            view: word_recoverability(joint, sentences.test(view), Y[test], **of_test)
            for view in arrays
        },
        "entities": (
            entity_recall_curve(
                joint,
                {view: sentences.test(view) for view in arrays},
                [request.entities[i] for i in test],
                **of_test,
            )
            if request.entities is not None
            else None
        ),
        "ranks": (
            rank_analysis(arrays, Y, request.ranks, estimator=model, **given)
            if request.ranks is not None
            else None
        ),
        "extractors": compare_extractors(arrays, Y, extractors, **given),
        "examples": examples(joint, request),
    }


def _read(results: Mapping[str, Any]) -> tuple[Finding, ...]:
    """The findings of every result there is, in the order of the page."""
    found: list[Finding] = []
    blind = rules.blind_views(results["extractors"])
    if results["alignment"] is not None:
        found += rules.alignment_findings(results["alignment"])
    if results["preference"] is not None:
        found += rules.preference_findings(results["preference"])
    for view, result in results["recoverability"].items():
        found += rules.recoverability_findings(view, result, blind=view in blind)
    if results["entities"] is not None:
        found += rules.entity_findings(results["entities"], blind=blind)
    if results["ranks"] is not None:
        found += rules.rank_findings(results["ranks"])
    return (*found, *rules.extractor_findings(results["extractors"]))
