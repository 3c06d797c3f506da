"""All diagnoses of a report. Models that several diagnoses use are trained once."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.base import clone

from flip_sklearn import diagnostics
from flip_sklearn.diagnostics.alignment import compute_alignment
from flip_sklearn.diagnostics.comparison import compute_extractors, compute_ranks
from flip_sklearn.diagnostics.evaluation import FittedModels
from flip_sklearn.diagnostics.inputs import check_estimator
from flip_sklearn.diagnostics.preference import compute_preference
from flip_sklearn.diagnostics.view_gap import compute_view_gap
from flip_sklearn.io import show_progress
from flip_sklearn.report.directions import ViewDirections, read_view_directions
from flip_sklearn.report.examples import Example, draw_examples
from flip_sklearn.report.inputs import ReportInputs
from flip_sklearn.report.rare_words import compute_rare_words
from flip_sklearn.report.sets import ComparedSentences, compare_sentences
from flip_sklearn.splice import SpLiCEExtractor


@dataclass(frozen=True, eq=False)
class Results:
    """The results of a report, as in :class:`Diagnosis`; None for a diagnosis that does not apply."""

    alignment: diagnostics.ViewAlignment | None
    view_gap: diagnostics.ViewGap | None
    preference: diagnostics.VocabularyPreference | None
    recoverability: dict[str, diagnostics.WordRecoverability]
    entities: diagnostics.EntityRecallCurve | None
    ranks: diagnostics.RankAnalysis | None
    extractors: diagnostics.ExtractorComparison
    selectivity: diagnostics.Selectivity | None
    rare_words: diagnostics.RareWordRecall | None
    directions: ViewDirections
    sets: ComparedSentences | None
    examples: tuple[Example, ...]


def compute_results(inputs: ReportInputs) -> Results:
    """Compute all diagnoses that apply to the inputs."""
    parts, results = _Parts(inputs), {}
    names = [field.name for field in fields(Results)]
    # Without the delay of other bars: the first fit alone may take longer.
    with show_progress(
        names, desc="report", unit="part", delay=0, disable=not inputs.settings.verbose
    ) as bar:
        for name in bar:
            bar.set_postfix_str(name.replace("_", " "))
            results[name] = getattr(parts, name)()
    return Results(**results)


class _Parts:
    """Computes the results: one method for each field, which returns None if it does not apply."""

    def __init__(self, inputs: ReportInputs) -> None:
        self.inputs = inputs
        self.sentences, self.settings, self.language = (
            inputs.sentences,
            inputs.settings,
            inputs.first_language,
        )
        self.counts, self.flip = inputs.counts[self.language], inputs.estimators[self.language]
        self.lip = clone(self.flip).set_params(rank=None)
        self.models = FittedModels(self.sentences, shared=[self.flip, self.lip])

    @property
    def joint(self) -> Any:
        """The model of all views."""
        return self.models.fit(self.flip, self.sentences.names, self.counts)

    @property
    def test_views(self) -> dict[str, np.ndarray]:
        """Embeddings of the test sentences."""
        return {view: self.sentences.test(view) for view in self.sentences.names}

    @property
    def test_counts(self) -> sp.csr_array:
        """Words of the test sentences."""
        return self.counts[self.sentences.split.test]

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of functions that take test sentences."""
        return {"groups": self.sentences.test_groups, **asdict(self.settings)}

    def alignment(self) -> diagnostics.ViewAlignment | None:
        if len(self.sentences.names) == 1:
            return None
        return compute_alignment(self.models, self.flip, self.counts, self.settings)

    def view_gap(self) -> diagnostics.ViewGap | None:
        """What separates the first view from each of the others."""
        names = self.sentences.names
        if len(names) == 1:
            return None
        return compute_view_gap(self.models, self.flip, self.counts, self.settings, source=names[0])

    def preference(self) -> diagnostics.VocabularyPreference | None:
        if not self.inputs.is_multilingual:
            return None
        return compute_preference(self.models, self.inputs.estimators, self.inputs.counts, self.settings)

    def recoverability(self) -> dict[str, diagnostics.WordRecoverability]:
        return {
            view: diagnostics.word_recoverability(self.joint, X, self.test_counts, **self.options)
            for view, X in self.test_views.items()
        }

    def entities(self) -> diagnostics.EntityRecallCurve | None:
        if self.inputs.entities is None:
            return None
        names = [self.inputs.entities[i] for i in self.sentences.split.test]
        vectorizer = self.inputs.vectorizers[self.language]
        return diagnostics.entity_recall_curve(
            self.joint, self.test_views, names, vectorizer=vectorizer, **self.options
        )

    def ranks(self) -> diagnostics.RankAnalysis | None:
        if self.inputs.ranks is None:
            return None
        return compute_ranks(self.models, self.flip, self.inputs.ranks, self.counts, self.settings)

    def extractors(self) -> diagnostics.ExtractorComparison:
        extractors: dict[str, Any] = {"FLiP": self.flip, "LiP": self.lip}
        if self.inputs.dictionary is not None:
            splice = SpLiCEExtractor(self.inputs.dictionary)
            extractors["SpLiCE"] = check_estimator(splice, self.settings.random_state)
        return compute_extractors(self.models, extractors, self.counts, self.settings)

    def selectivity(self) -> diagnostics.Selectivity | None:
        """Recall of words of the test sentences after their deletion, in the views that have an encoder."""
        encoders = self.inputs.encoders
        if not encoders:
            return None
        texts = self.inputs.texts[self.language]
        return diagnostics.selectivity(
            self.joint,
            {view: self.test_views[view] for view in encoders},
            self.test_counts,
            texts=[texts[i] for i in self.sentences.split.test],
            encoder=encoders,
            vectorizer=self.inputs.vectorizers[self.language],
            **self.options,
        )

    def rare_words(self) -> diagnostics.RareWordRecall | None:
        return compute_rare_words(self.inputs)

    def directions(self) -> ViewDirections:
        return read_view_directions(self.joint, self.inputs)

    def sets(self) -> ComparedSentences | None:
        if self.inputs.sets is None:
            return None
        return compare_sentences(self.joint, self.sentences, self.inputs.sets)

    def examples(self) -> tuple[Example, ...]:
        return draw_examples(self.joint, self.inputs)
