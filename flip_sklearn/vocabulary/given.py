"""A vocabulary that somebody gives: its concepts, their columns, and the words that they are read as."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Set
from typing import Any

from flip_sklearn.vocabulary.tokenizer import Reader


def read_vocabulary(vocabulary: Any, read: Reader) -> tuple[dict[str, int], list[tuple[str, ...]]]:
    """Concept -> column, and in the order of columns the words that a text with the concept would have.

    Raises
    ------
    ValueError
        If it is no mapping or list of distinct strings, or two concepts are read as the same words.
    """
    columns = _columns(vocabulary)
    names = sorted(columns, key=columns.__getitem__)
    concepts = [tuple(read(name)) for name in names]
    by_words: dict[tuple[str, ...], str] = {}
    for name, concept in zip(names, concepts, strict=True):
        if concept and by_words.setdefault(concept, name) != name:
            raise ValueError(
                f"vocabulary has {by_words[concept]!r} and {name!r}, which are the same words once "
                "cleaned; keep one of them."
            )
    cut = [
        (name, " ".join(concept))
        for name, concept in zip(names, concepts, strict=True)
        if _letters("".join(concept)) != _letters(read.clean(name))
    ]
    if cut:
        warnings.warn(
            f"{len(cut)} concepts of vocabulary are not read whole, the first is {cut[0][0]!r}, read as "
            f"{cut[0][1]!r}, which is what it counts. Change token_pattern, or leave them out.",
            stacklevel=3,
        )
    return columns, concepts


def _columns(vocabulary: Any) -> dict[str, int]:
    """Concept -> column, from such a mapping or a sequence."""
    if isinstance(vocabulary, str) or not isinstance(vocabulary, Iterable):
        raise ValueError(
            f"vocabulary={vocabulary!r} is not allowed; use a mapping of concepts to columns, a list of "
            "concepts, or None."
        )
    names = list(vocabulary)
    strange = [name for name in names if not isinstance(name, str)]
    if strange or not names:
        what = f"holds {strange[0]!r}, which is not a str" if strange else "is empty"
        raise ValueError(f"vocabulary {what}; pass at least one concept, all of them str.")
    if isinstance(vocabulary, Mapping):
        if {*vocabulary.values()} != {*range(len(names))}:
            raise ValueError(
                f"vocabulary has {len(names)} concepts, whose columns must be 0 to {len(names) - 1}, each "
                "once; pass a list to number them in its order."
            )
        return {name: int(column) for name, column in vocabulary.items()}
    if isinstance(vocabulary, Set):
        names.sort()
    columns = {name: j for j, name in enumerate(names)}
    if len(columns) < len(names):
        twice = next(name for j, name in enumerate(names) if columns[name] != j)
        raise ValueError(f"vocabulary has {twice!r} twice; name each concept once.")
    return columns


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))
