"""All diagnoses of a report. Models that several diagnoses use are trained once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sklearn.base import clone

from flip_sklearn import diagnostics
from flip_sklearn.diagnostics.alignment import compute_alignment
from flip_sklearn.diagnostics.comparison import compute_extractors, compute_ranks
from flip_sklearn.diagnostics.evaluation import FittedModels
from flip_sklearn.diagnostics.inputs import check_estimator
from flip_sklearn.diagnostics.preference import compute_preference
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
    sentences, settings = inputs.sentences, inputs.settings
    counts = inputs.counts[inputs.first_language]
    flip = inputs.estimators[inputs.first_language]
    lip = clone(flip).set_params(rank=None)
    models = FittedModels(sentences, shared=[flip, lip])
    joint = models.fit(flip, sentences.names, counts)
    test_views = {view: sentences.test(view) for view in sentences.names}
    test_counts, groups = counts[sentences.split.test], sentences.test_groups
    alignment = preference = entities = ranks = None
    if len(sentences.names) > 1:
        alignment = compute_alignment(models, flip, counts, settings)
    if inputs.is_multilingual:
        preference = compute_preference(models, inputs.estimators, inputs.counts, settings)
    recoverability = {
        view: diagnostics.word_recoverability(joint, X, test_counts, groups=groups, **asdict(settings))
        for view, X in test_views.items()
    }
    if inputs.entities is not None:
        names = [inputs.entities[i] for i in sentences.split.test]
        vectorizer = inputs.vectorizers[inputs.first_language]
        entities = diagnostics.entity_recall_curve(
            joint, test_views, names, vectorizer=vectorizer, groups=groups, **asdict(settings)
        )
    if inputs.ranks is not None:
        ranks = compute_ranks(models, flip, inputs.ranks, counts, settings)
    extractors: dict[str, Any] = {"FLiP": flip, "LiP": lip}
    if inputs.dictionary is not None:
        splice = SpLiCEExtractor(inputs.dictionary)
        extractors["SpLiCE"] = check_estimator(splice, settings.random_state)
    return Results(
        alignment=alignment,
        preference=preference,
        recoverability=recoverability,
        entities=entities,
        ranks=ranks,
        extractors=compute_extractors(models, extractors, counts, settings),
        selectivity=_selectivity(inputs, joint),
        rare_words=compute_rare_words(inputs),
        directions=read_view_directions(joint, inputs),
        sets=None if inputs.sets is None else compare_sentences(joint, sentences, inputs.sets),
        examples=draw_examples(joint, inputs),
    )


def _selectivity(inputs: ReportInputs, model: Any) -> diagnostics.Selectivity | None:
    """Recall of words of the test sentences after their deletion, in the views that have an encoder."""
    if not inputs.encoders:
        return None
    sentences, language = inputs.sentences, inputs.first_language
    return diagnostics.selectivity(
        model,
        {view: sentences.test(view) for view in inputs.encoders},
        inputs.counts[language][sentences.split.test],
        texts=[inputs.texts[language][i] for i in sentences.split.test],
        encoder=inputs.encoders,
        vectorizer=inputs.vectorizers[language],
        groups=sentences.test_groups,
        **asdict(inputs.settings),
    )
