"""Words of a vectorizer in texts as they were written: deletion and replacement."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer

from flip_sklearn import ConceptVectorizer
from flip_sklearn.vocabulary.editing import ConceptEditor


def delete_all(editor: ConceptEditor, text: str) -> dict[str, str | None]:
    """The text without each concept in it."""
    found = editor.find(text)
    assert found is not None
    return {editor.names[column]: editor.edit(text, spans, column) for column, spans in found.items()}


CONCEPTS = ["New York", "new", "dog", "cat", "dont", "us", "cafe", "straße", "big"]


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("A dog runs.", {"dog": "A runs."}),
        ("A cat, and a DOG.", {"cat": "A, and a DOG.", "dog": "A cat, and a."}),
        ("Dog's big dog", {"dog": "Dog's big", "big": "Dog's dog"}),  # "dogs" is another word
        ("big big dog big", {"big": "dog", "dog": "big big big"}),
        ("New ideas in New York", {"new": "ideas in New York", "New York": "New ideas in"}),
        ("I don't, dog/cat", {"dont": "I, dog/cat", "dog": "I don't, /cat", "cat": "I don't, dog/"}),
        (
            "The U.S. dog\u2014cat",
            {"us": "The. dog\u2014cat", "dog": "The U.S. \u2014cat", "cat": "The U.S. dog\u2014"},
        ),
        ("Caf\u00e9 du STRASSE", {"cafe": "du STRASSE", "straße": "Caf\u00e9 du"}),
        ("dog", {"dog": None}),  # no word is left
        ("!", {}),
        ("", {}),
    ],
)
def test_deletion_keeps_the_rest_of_the_text(text: str, without: dict[str, str | None]) -> None:
    assert delete_all(ConceptEditor(ConceptVectorizer(vocabulary=CONCEPTS)), text) == without


def test_replacement_keeps_capitals_and_needs_the_new_word() -> None:
    editor = ConceptEditor(ConceptVectorizer(vocabulary=CONCEPTS))
    dog, cat, new, york = (editor.names.index(name) for name in ("dog", "cat", "new", "New York"))
    assert editor.edit("Dog and dog.", [(0, 3), (8, 11)], dog, cat) == "Cat and cat."
    assert editor.edit("a dog", [(2, 5)], dog, york) == "a New York"
    # "new" before "york" is another concept.
    assert editor.edit("a dog york", [(2, 5)], dog, new) is None


def test_scripts_and_tokenizers() -> None:
    hindi = ConceptEditor(ConceptVectorizer(vocabulary=["की", "बात"], token_pattern="indic"))
    assert delete_all(hindi, "मन की बात। की") == {"की": "मन बात।", "बात": "मन की । की"}
    pairs = ConceptVectorizer(
        vocabulary=["北京", "大学"],
        token_pattern=lambda text: [text[i : i + 2] for i in range(0, len(text), 2)],
    )
    assert delete_all(ConceptEditor(pairs), "北京大学") == {"北京": "大学", "大学": "北京"}
    raw = ConceptVectorizer(vocabulary=["c++", "dog"], token_pattern="whitespace", strip_punctuation=False)
    assert delete_all(ConceptEditor(raw), "C++ dog") == {"c++": "dog", "dog": "C++"}


def test_n_grams_and_stop_words_of_scikit_learn() -> None:
    vectorizer = CountVectorizer(ngram_range=(1, 2), stop_words=["of", "the"]).fit(["bank of america"])
    without = delete_all(ConceptEditor(vectorizer), "The Bank of America, a bank")
    assert without["bank america"] == "The, a bank"
    assert without["bank"] == "The of America, a"
    assert without["america"] == "The Bank of, a bank"


@pytest.mark.parametrize("kind", [CountVectorizer, TfidfVectorizer, ConceptVectorizer])
def test_found_words_are_those_that_the_vectorizer_counts(kind: type) -> None:
    rng = np.random.default_rng(0)
    parts = [
        "Dog",
        "dog.",
        "(cat)",
        "new",
        "York,",
        "NEW",
        "york",
        "don't",
        "a-b",
        "U.S.",
        "caf\u00e9",
        "\u2014",
        "x",
        "42%",
    ]
    texts = [" ".join(rng.choice(parts, rng.integers(0, 9))) for _ in range(200)]
    vectorizer = kind(**({"min_count": 3} if kind is ConceptVectorizer else {})).fit(texts)
    counts, editor = vectorizer.transform(texts), ConceptEditor(vectorizer)
    for i, text in enumerate(texts):
        found = editor.find(text)
        assert found is not None
        assert sorted(found) == sorted(counts[[i]].indices)
        for column, spans in found.items():
            edited = editor.edit(text, spans, column)
            if edited is not None:
                assert column not in vectorizer.transform([edited]).indices


def test_vectorizers_without_words_are_refused() -> None:
    with pytest.raises(ValueError, match="pass a fitted ConceptVectorizer"):
        ConceptEditor(HashingVectorizer())
    with pytest.raises(ValueError, match="analyzer='char'"):
        ConceptEditor(CountVectorizer(analyzer="char").fit(["a b"]))
