"""All diagnoses of one set of sentences, and the page that reports them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flip_sklearn import diagnostics
from flip_sklearn.io import write_atomic
from flip_sklearn.report.findings import Finding, make_findings
from flip_sklearn.report.inputs import ReportArguments, check_extras, check_inputs, check_out
from flip_sklearn.report.page import render
from flip_sklearn.report.results import Results, compute_results


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis(Results):
    """Result of :func:`diagnose`.

    Attributes
    ----------
    views : tuple of str
        Names of the views.
    split : SentenceSplit
        Training and test sentences, the same for all results.
    vocabulary : ndarray of str
        The words of the first language.
    alignment : ViewAlignment or None
        None for a single view.
    view_gap : ViewGap or None
        What the model of the first view loses on the others. None for a single view.
    preference : VocabularyPreference or None
        None unless ``texts`` is a mapping of languages.
    recoverability : dict of str to WordRecoverability
        One for each view.
    entities : EntityRecallCurve or None
        None without ``entities``.
    ranks : RankAnalysis or None
        None for ``ranks=False``.
    directions : ViewDirections
        Words of the differences between views, and of the principal axes of the first view.
    extractors : ExtractorComparison
        FLiP, LiP and, with ``dictionary``, SpLiCE.
    selectivity : Selectivity or None
        None without ``encode``.
    rare_words : RareWordRecall or None
        Of the first view. None without features of the words, or with less than five words to hold out.
    sets : ComparedSentences or None
        None without ``sets``.
    examples : tuple of Example
        Test sentences drawn at random.
    findings : tuple of Finding
        Sentences that follow from the results by fixed rules.
    html : str
        The page.
    """

    views: tuple[str, ...]
    split: diagnostics.SentenceSplit
    vocabulary: np.ndarray
    findings: tuple[Finding, ...]
    html: str

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page atomically: on failure, an existing file stays unchanged.

        Parameters
        ----------
        path : path-like
            An ``.html`` file; its folder is created if it does not exist.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        ValueError
            If the path does not end in ``.html`` or cannot be written.
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
    encoder: str | None = None,
    source: str | None = None,
    encode: Any = None,
    sets: Any = None,
    n_examples: int = 20,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    random_state: Any = None,
    verbose: int = 1,
) -> Diagnosis:
    """Compute all diagnoses of an encoder and report them as one HTML page in plain words.

    The diagnoses share one split of the sentences: :func:`view_alignment` for two or more views, and from the
    first view to the others :func:`view_gap`; :func:`vocabulary_preference` for texts in several languages;
    :func:`word_recoverability` for each view; :func:`selectivity` if an encoder is passed;
    :func:`rare_word_recall` in the first view if words have features; :func:`entity_recall_curve` if names
    are passed; :func:`rank_analysis`, unless ``ranks`` is False; and
    :func:`compare_extractors`. A model that several of them use is trained once. The page has tables with
    intervals, pictures, example sentences with the words extracted from each view, and findings, which are
    sentences that follow from the results by fixed rules. It is a single file without scripts and external
    resources. It opens with one sentence on what the encoder keeps and loses. The same input, seed and
    versions give the same bytes on the same machine with the same number of threads.

    Parameters
    ----------
    views : mapping of str to array-like of shape (n, d), or one such array
        Row-aligned views of the same sentences in one embedding space; one array is a view named
        "embeddings".
    texts : sequence of n str, or mapping of str to such sequences
        The sentences. With a mapping of languages, each language has its own vocabulary; all diagnoses
        except :func:`vocabulary_preference` use the words of the first language.
    out : path-like, default=None
        Path of an ``.html`` file to save the page to.
    title : str, default=None
        Title of the page.
    vectorizer : vectorizer, default=None
        Counts the words; clones of it are fitted to the training sentences of each language. When None, a
        :class:`~flip_sklearn.vocabulary.ConceptVectorizer` of single words. Its ``min_count`` is 20 from
        160,000 training sentences on and decreases with the square root of their number, down to 2. With
        phrases ("new york") in the vocabulary, names of several words are not found, since names are
        looked up word by word.
    view_texts : mapping of str to sequence of n str, default=None
        The texts that a view embeds, if they differ from the sentences (a translation, a transcript, a
        text with typos). They are shown with the examples, but not counted. A view with the name of a
        language embeds the texts of that language by default.
    entities : sequence of n lists of str, default=None
        The names in each sentence, an empty list for none.
    dictionary : callable or array-like of shape (V, d), default=None
        Embeddings of single words by the same encoder, or a function from a list of words to embeddings.
        Adds SpLiCE to the extractors, and :func:`rare_word_recall`.
    ranks : sequence of int or None, or False, default=None
        As in :func:`rank_analysis`; False skips the rank analysis.
    groups : array-like of shape (n,), default=None
        Group labels, as in :func:`split_sentences`; all intervals take groups for independent. Sentences with
        equal texts (except for case and white space) or equal embeddings are always in one group.
    test : array-like of bool of shape (n,) or of int, default=None
        Test sentences, as in :func:`split_sentences`; when None, a fifth of the groups.
    estimator : FLiPExtractor, default=None
        Settings of the models; ``FLiPExtractor()`` when None. Its ``word_features``, if it has any, are those
        of :func:`rare_word_recall`, before the dictionary and ``encode``.
    encoder : str, default=None
        Name of the encoder, such as "sentence-transformers/LaBSE". The page shows it.
    source : str, default=None
        Where the sentences come from, such as the name of a corpus or of a file. The page shows it.
    encode : SentenceEncoder, callable, or mapping of views to these, default=None
        Computes the embedding of a sentence of the first language, as those of a view were computed. Adds
        :func:`selectivity`: whether words are read or guessed, from test sentences with at most 5,000
        words, which are deleted. Without a dictionary, it also embeds the single words, for
        :func:`rare_word_recall`. With several views, a mapping; views without an encoder are left out of it.
    sets : array-like of shape (n,), default=None
        Labels of two sets of sentences, such as two months. Adds :func:`compare_sets`: the words that the
        test sentences of one set have more often, as read off their embeddings in the first view.
    n_examples : int, default=20
        Number of example sentences, >= 0.
    n_bootstrap : int, default=1000
        Number of resamples of the test sentences, >= 10.
    confidence : float, default=0.95
        Level of the intervals, in (0, 1).
    random_state : int, RandomState instance or None, default=None
        Seed of the split, the fits, the resamples and the examples. The page shows it.
    verbose : int, default=1
        If above zero, show a progress bar of the parts of the report, and bars for computations of more than
        two seconds.

    Returns
    -------
    Diagnosis
        All results, the findings and the page.

    Raises
    ------
    ValueError
        Before any training, if views, texts, names or the dictionary do not match, ``out`` cannot be
        written, or another argument is not allowed.
    ImportError
        Before any training, if the packages of the extra ``report`` are missing.

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
    path = None if out is None else check_out(out)
    check_extras()
    inputs = check_inputs(
        ReportArguments(
            views=views,
            texts=texts,
            title=title,
            vectorizer=vectorizer,
            view_texts=view_texts,
            entities=entities,
            dictionary=dictionary,
            ranks=ranks,
            groups=groups,
            test=test,
            estimator=estimator,
            encoder=encoder,
            source=source,
            encode=encode,
            sets=sets,
            n_examples=n_examples,
            n_bootstrap=n_bootstrap,
            confidence=confidence,
            random_state=random_state,
            verbose=verbose,
        )
    )
    results = compute_results(inputs)
    findings = make_findings(results)
    diagnosis = Diagnosis(
        views=inputs.sentences.names,
        split=inputs.sentences.split,
        vocabulary=inputs.vocabulary,
        findings=findings,
        html=render(inputs, results, findings),
        **vars(results),
    )
    if path is not None:
        diagnosis.save(path)
    return diagnosis
