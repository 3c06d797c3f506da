"""The page: results and findings through the template, and onto the disk in one step."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from flip_sklearn.report.findings import Finding
from flip_sklearn.report.request import Request
from flip_sklearn.report.sections import Table, sections
from flip_sklearn.report.wording import number, percent

_VERSIONS = ("flip-sklearn", "numpy", "scipy", "scikit-learn", "torch", "matplotlib")
# Sentences of one result at the top of the page; what is left stands in its section.
_TOP = 9


def render(
    title: str, request: Request, results: Mapping[str, Any], findings: Sequence[Finding]
) -> str:
    """The page as one string of HTML. All texts and words are escaped."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(
        files("flip_sklearn.report").joinpath("page.html.j2").read_text(encoding="utf8")
    )
    parts = sections(results, findings)
    titles = {part.id: part.title for part in parts}
    top = {
        titles[name]: [f.text for f in findings if f.about == name and f.main] for name in titles
    }
    page: str = template.render(
        title=title,
        views=request.sentences.names,
        top=top,
        n_top=_TOP,
        ids={part.title: part.id for part in parts},
        sections=parts,
        examples=results["examples"],
        measured=_measured(request, results),
        confidence=percent(request.resampling["confidence"]).replace(".0%", "%"),
        n_test=number(len(request.sentences.split.test)),
        n_compared=number(_n_compared(results)),
        with_splice=request.dictionary is not None,
        code=_code(request),
        versions=_versions(),
        settings=request.settings,
        counting=", ".join({repr(v): "" for v in request.vectorizers.values()}),
    )
    # Texts may hold halves of characters, which no file can: they come out as question marks.
    return page.encode("utf8", "replace").decode("utf8")


def _measured(request: Request, results: Mapping[str, Any]) -> Table:
    """What was measured, on what."""
    split, sentences = request.sentences.split, request.sentences
    d = next(iter(sentences.views.values())).shape[1]
    n_groups = len(set(split.groups.tolist()))
    rows = [
        ("Views", ", ".join(sentences.names)),
        ("Numbers in an embedding", number(d)),
        ("Sentences", number(len(split.groups))),
        ("Groups of sentences that belong together (a sentence alone is one)", number(n_groups)),
        ("Training sentences", number(len(split.train))),
        ("Test sentences, which no model was trained on", number(len(split.test))),
    ]
    if split.n_dropped:
        rows.append(("Left out, since they belong to test sentences", number(split.n_dropped)))
    skipped = results["extractors"].n_skipped
    rows.append(("Test sentences without any word of the vocabulary, not counted", number(skipped)))
    for language, vectorizer in request.vectorizers.items():
        names = vectorizer.get_feature_names_out()
        pairs = sum(" " in name for name in names)
        of = f", {language}" if request.several_texts else ""
        text = number(len(names)) + (
            f", of which {number(pairs)} of several words" if pairs else ""
        )
        rows.append((f"Words looked for{of}", text))
    words = request.words[split.test]
    mean = words.nnz / max(1, words.shape[0] - skipped)
    rows.append(("Different words looked for in a test sentence, on average", f"{mean:.1f}"))
    rows.append(("Resamples behind each interval", number(request.resampling["n_bootstrap"])))
    return Table("Sentences, words and settings", ("What", "Value"), tuple(rows), figures=False)


def _n_compared(results: Mapping[str, Any]) -> int:
    """Differences on the page that are judged, those of a thing with itself left out."""
    total = 0
    for name in ("alignment", "preference", "entities", "ranks", "extractors"):
        result = results[name]
        if result is not None:
            n, v = result.difference.value.size, len(result.views)
            own = {"alignment": v, "entities": 0, "ranks": v, "extractors": v}
            total += n - own.get(name, len(getattr(result, "languages", ())))
    return total + sum(
        len(result.bands) for result in results["recoverability"].values() if len(result.bands) > 1
    )


def _code(request: Request) -> str:
    """The call that gives this page again; dots stand for the data."""
    views = ", ".join(f"{name!r}: ..." for name in request.sentences.names)
    given = {
        "view_texts": request.view_texts, "entities": request.entities, "dictionary": request.dictionary,
    }  # fmt: skip
    data = [f"{name}=..." for name, value in given.items() if value is not None and len(value)]
    settings = {
        "ranks": False if request.ranks is None else [*request.ranks],
        "n_examples": request.n_examples,
        "n_bootstrap": request.resampling["n_bootstrap"],
        "confidence": request.resampling["confidence"],
        "random_state": request.seed,
    }
    named = [*data, *(f"{name}={value!r}" for name, value in settings.items())]
    lines = "".join(f"    {argument},\n" for argument in [f"{{{views}}}", "texts", *named])
    return f"from flip_sklearn.report import diagnose\n\ndiagnose(\n{lines})"


def _versions() -> str:
    listed = [f"Python {platform.python_version()}"]
    for name in _VERSIONS:
        try:
            listed.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:  # run from the source tree
            listed.append(f"{name} from its source")
    return ", ".join(listed)
