"""The HTML page of a report."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import fields
from importlib.resources import files

from flip_sklearn.estimation.inputs import resolve_l2, resolve_max_iter
from flip_sklearn.estimation.validation import resolve_rank
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.report.answer import make_answer
from flip_sklearn.report.findings import Finding
from flip_sklearn.report.inputs import ReportInputs
from flip_sklearn.report.results import Results
from flip_sklearn.report.sections import Table, make_sections
from flip_sklearn.report.wording import number, percent

_PACKAGES = ("flip-sklearn", "numpy", "scipy", "scikit-learn", "torch", "matplotlib")
# Maximum number of findings of one result at the top of the page.
_N_TOP = 9


def render(inputs: ReportInputs, results: Results, findings: Sequence[Finding]) -> str:
    """The page as one string of HTML, in which all texts and words are escaped."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(
        files("flip_sklearn.report").joinpath("page.html.j2").read_text(encoding="utf8")
    )
    estimator = inputs.arguments.estimator
    page: str = template.render(
        title=inputs.title,
        answer=make_answer(results, inputs.encoder),
        views=inputs.sentences.names,
        words_of=inputs.first_language if len(inputs.texts) > 1 else None,
        findings=findings,
        n_top=_N_TOP,
        sections=make_sections(results, inputs.settings.verbose),
        examples=results.examples,
        origin=_origin(inputs),
        measured=_measured(inputs, results),
        confidence=percent(inputs.settings.confidence).replace(".0%", "%"),
        n_test=number(len(inputs.sentences.split.test)),
        n_compared=number(_n_compared(results)),
        with_splice=inputs.dictionary is not None,
        code=_call(inputs),
        versions=_versions(),
        estimator=repr(FLiPExtractor() if estimator is None else estimator),
        vectorizers=", ".join(dict.fromkeys(map(repr, inputs.vectorizers.values()))),
    )
    # Unpaired surrogates in texts cannot be encoded: they become question marks.
    return page.encode("utf8", "replace").decode("utf8")


def _origin(inputs: ReportInputs) -> Table:
    """The encoder, the source of the text, and the settings of the models."""
    sentences, flip = inputs.sentences, inputs.estimators[inputs.first_language]
    n, d = len(sentences.split.groups), sentences.n_dimensions
    languages = ""
    if inputs.is_multilingual:
        languages = f" in the language{'s' if len(inputs.texts) > 1 else ''} {', '.join(inputs.texts)}"
    source = "the caller, who did not name the source" if inputs.source is None else inputs.source
    rank = resolve_rank(flip.rank, d)
    limit = "no limit on the rank" if rank is None else f"rank {number(rank)}"
    settings = f"l1_strength {flip.l1_strength:g}, l2_strength {resolve_l2(flip):g}"
    rows = (
        ("Encoder", f"{inputs.encoder or 'not named'}; embeddings of {number(d)} dimensions"),
        ("Text", f"{number(n)} sentences{languages}, from {source}"),
        ("Views", ", ".join(sentences.names)),
        ("FLiP models", f"{limit}, {settings}, at most {number(resolve_max_iter(flip))} passes"),
        ("Seed", str(inputs.settings.random_state)),
        ("Version", _version("flip-sklearn")),
    )
    return Table("Encoder, text and models", ("What", "Value"), rows, is_numeric=False)


def _measured(inputs: ReportInputs, results: Results) -> Table:
    """Sizes of the data and of the resamples."""
    split = inputs.sentences.split
    n_groups = len(set(split.groups.tolist()))
    rows = [
        ("Sentences", number(len(split.groups))),
        ("Groups of sentences that stay together (a single sentence is one)", number(n_groups)),
        ("Training sentences", number(len(split.train))),
        ("Test sentences", number(len(split.test))),
    ]
    if split.n_dropped:
        reason = "Sentences left out, since they share a group with a test sentence"
        rows.append((reason, number(split.n_dropped)))
    n_skipped = results.extractors.n_skipped
    rows.append(("Test sentences without a word of the vocabulary, left out", number(n_skipped)))
    for language, vectorizer in inputs.vectorizers.items():
        words = vectorizer.get_feature_names_out()
        n_phrases = sum(" " in word for word in words)
        phrases = f", of which {number(n_phrases)} have several words" if n_phrases else ""
        name = f"Vocabulary, {language}" if inputs.is_multilingual else "Vocabulary"
        rows.append((name, number(len(words)) + phrases))
    counts = inputs.counts[inputs.first_language][split.test]
    mean = counts.nnz / max(1, counts.shape[0] - n_skipped)
    rows.append(("Distinct words of the vocabulary in a test sentence, on average", f"{mean:.1f}"))
    rows.append(("Resamples for each interval", number(inputs.settings.n_bootstrap)))
    return Table("Sentences and words", ("What", "Value"), tuple(rows), is_numeric=False)


def _n_compared(results: Results) -> int:
    """Number of differences on the page, without those of a reference to itself."""
    total = sum(len(result.bands) for result in results.recoverability.values() if len(result.bands) > 1)
    for result in (results.alignment, results.ranks, results.extractors):
        if result is not None:
            total += result.difference.value.size - len(result.views)
    if results.alignment is not None:
        n_views = len(results.alignment.views)
        total += n_views * (n_views - 1) // 2  # models on their own views
    if results.view_gap is not None:
        total += results.view_gap.difference.value.size
    if results.preference is not None:
        total += results.preference.difference.value.size - len(results.preference.languages)
    if results.selectivity is not None and results.selectivity.held is not None:
        total += len(results.selectivity.views) * len(results.selectivity.occurrences)
    total += sum(len(change.significant) for change in results.directions.changes)
    if results.rare_words is not None:
        total += results.rare_words.difference.value.size
    if results.entities is not None:
        total += results.entities.difference.value.size
    return total


def _call(inputs: ReportInputs) -> str:
    """The call that gives this page again, with the arguments that the caller passed.

    Data and objects are printed by the name of their argument, since their values can be large. The seed
    is always printed. ``out`` and ``verbose`` do not change the page.
    """
    values = {
        "title": inputs.title,
        "encoder": inputs.encoder,
        "source": inputs.source,
        "ranks": False if inputs.ranks is None else [*inputs.ranks],
        "n_examples": inputs.n_examples,
        "n_bootstrap": inputs.settings.n_bootstrap,
        "confidence": inputs.settings.confidence,
    }
    printed = ["views", "texts"]
    for argument in fields(inputs.arguments)[2:]:
        name, passed = argument.name, getattr(inputs.arguments, argument.name)
        if name == "random_state":
            printed.append(f"random_state={inputs.settings.random_state}")
        elif name == "verbose" or passed is None:
            continue
        elif name not in values:
            printed.append(f"{name}={name}")
        elif values[name] != argument.default:
            printed.append(f"{name}={values[name]!r}")
    lines = "".join(f"    {line},\n" for line in printed)
    return f"from flip_sklearn.report import diagnose\n\ndiagnose(\n{lines})"


def _versions() -> str:
    return ", ".join([f"Python {platform.python_version()}", *map(_version, _PACKAGES)])


def _version(package: str) -> str:
    """The name and the version of a package."""
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:  # run from the source tree
        return f"{package} (source tree)"
