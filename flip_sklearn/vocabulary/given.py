"""Checks of a vocabulary passed by the user: concepts, their columns, and their words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

from flip_sklearn.parameters import refusal, warn_caller
from flip_sklearn.vocabulary.tokenizer import Tokenizer, letters


def parse_vocabulary(vocabulary: Any, tokenizer: Tokenizer) -> tuple[dict[str, int], list[tuple[str, ...]]]:
    """Return the column of each concept, and the words of each concept in the order of columns."""
    columns = _check_columns(vocabulary)
    names = sorted(columns, key=columns.__getitem__)
    concepts = [tuple(tokenizer(name)) for name in names]
    name_of: dict[tuple[str, ...], str] = {}
    incomplete: list[tuple[str, tuple[str, ...]]] = []  # concepts of which the tokenizer drops letters
    for name, concept in zip(names, concepts, strict=True):
        if concept and name_of.setdefault(concept, name) != name:
            other = name_of[concept]
            message = f"vocabulary has {other!r} and {name!r}, which are the same words once cleaned; "
            if letters(other.lower()) == letters(name.lower()):
                raise ValueError(message + "keep one of them.")
            # A vocabulary that was learned before case and accents were folded as today must still load.
            warn_caller(message + "texts count for the first of them.")
            concepts[columns[name]] = ()
            continue
        if letters("".join(concept)) != letters(tokenizer.clean(name)):
            incomplete.append((name, concept))
    if incomplete:
        name, concept = incomplete[0]
        is_word = tokenizer.strip_punctuation and letters("".join(tokenizer.split(name))) == letters(name)
        remedy = "Pass strip_punctuation=False" if is_word else "Change token_pattern"
        warn_caller(
            f"{len(incomplete)} concepts of vocabulary lose letters when they are split into words; the "
            f"first is {name!r}, which counts {' '.join(concept)!r}. {remedy}, or leave them out."
        )
    return columns, concepts


def _check_columns(vocabulary: Any) -> dict[str, int]:
    """Return the column of each concept, from such a mapping or from an iterable of concepts."""
    if isinstance(vocabulary, str) or not isinstance(vocabulary, Iterable):
        allowed = "a mapping of concepts to columns, a list of concepts, or None"
        raise refusal("vocabulary", vocabulary, allowed)
    names = list(vocabulary)
    if not names:
        raise ValueError("vocabulary is empty; pass at least one concept.")
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"vocabulary holds {name!r}, which is not a str; pass only str.")
    if isinstance(vocabulary, Mapping):
        if set(vocabulary.values()) != set(range(len(names))):
            raise ValueError(
                f"vocabulary has {len(names)} concepts, whose columns must be 0 to {len(names) - 1}, each "
                "once; pass a list to number them in its order."
            )
        return {name: int(column) for name, column in vocabulary.items()}
    if isinstance(vocabulary, Set):
        names.sort()
    columns: dict[str, int] = {}
    for column, name in enumerate(names):
        if columns.setdefault(name, column) != column:
            raise ValueError(f"vocabulary has {name!r} twice; name each concept once.")
    return columns
