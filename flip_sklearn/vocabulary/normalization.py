"""The one normalizer of texts, words and names: case, accents, punctuation and characters without width.

It changes the spelling of letters but deletes none. Applying it twice is the same as applying it once.
"""

from __future__ import annotations

import functools
import re
import string
import unicodedata
from collections.abc import Callable
from typing import Any

# Default ignorable characters of Unicode: soft hyphen, byte order mark, direction marks, variation selectors,
# and others. The joiner U+200D is not among them, because Indic spelling needs it.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200c\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
_JOINING = "\u0400-\u1aaf\u1b00-\u1cff\u2000-\u200c\u200e-\U0010ffff"  # all but Latin, Greek, diacritics
_JOINER_IN_LATIN = re.compile(f"(?<![{_JOINING}])\u200d+|\u200d+(?![{_JOINING}])")
# NFKC would make letters or a blank of them.
_BEFORE_NFKC = str.maketrans({"\u00b4": "'", "™": " ", "℠": " "})
# Characters inside words, which are treated as an apostrophe or a hyphen of ASCII.
_INSIDE_WORDS = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201b\u02bb\u02bc\u2032\u2033\u055a\u05f3\u05f4\ua78b\ua78c", "'")
    | dict.fromkeys("\u2010\u2011\u05be\u00b7\u2027", "-")
)
_PUNCTUATION = f"[{re.escape(string.punctuation)}]"
# In ASCII, as published, punctuation is deleted, so that "don't" becomes "dont" and "U.S." "us". But it
# separates two words if it is one of these, or if there are two or more characters of it.
_ASCII_SEPARATORS = re.compile(
    rf'{_PUNCTUATION}(?=[^\W_])(?:(?<=[,;:!?/\\<>"|=])(?=\D)|(?<={_PUNCTUATION}{_PUNCTUATION}))'
)
_ASCII_PUNCTUATION = re.compile(f"{_PUNCTUATION}+")
_DIACRITICS = "\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff"
_LATIN_OR_GREEK_DIACRITICS = re.compile(f"(?<=[A-Za-z\u00c0-\u02af\u0370-\u03ff])[{_DIACRITICS}]+")
_DOTS_OF_I = re.compile("i\u0307+")
_FINAL_SIGMA = re.compile(rf"(\w[{_DIACRITICS}]*)\u03c3(?![{_DIACRITICS}]*\w)")
_OTHER_DIACRITICS = re.compile(f"[{_DIACRITICS}]+")


@functools.cache
def _other_punctuation() -> re.Pattern[str]:
    """Return a pattern for punctuation outside ASCII, which separates words."""
    codes = range(0x80, 0x20000)
    return re.compile(f"[{''.join(c for c in map(chr, codes) if unicodedata.category(c)[0] == 'P')}]+")


def _nfkc(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def normalize(text: str, *, lowercase: bool = True, strip_punctuation: bool = True) -> str:
    """Return a text in Unicode's NFKC without invisible characters, case-folded and without punctuation."""
    if text.isascii():
        if strip_punctuation:
            text = _ASCII_PUNCTUATION.sub("", _ASCII_SEPARATORS.sub(" ", text))
        return text.lower() if lowercase else text
    text = _nfkc(_INVISIBLE.sub("", text).translate(_BEFORE_NFKC))
    text = _INVISIBLE.sub("", text)  # NFKC writes some of them in another way
    if strip_punctuation:
        text = _other_punctuation().sub(" ", text.translate(_INSIDE_WORDS))
        text = _ASCII_PUNCTUATION.sub("", _ASCII_SEPARATORS.sub(" ", text))
    text = _JOINER_IN_LATIN.sub("", text)
    if lowercase:
        text = fold_case(text)
    return " ".join(unicodedata.normalize("NFC", text).split())


def fold_case(text: str) -> str:
    """Return the case-folded text in NFKC, with one i for İ and the final form of sigma."""
    text = _nfkc(_DOTS_OF_I.sub("i", _nfkc(text).casefold()))
    return _FINAL_SIGMA.sub(r"\1ς", text)


def fold_accents(text: str) -> str:
    """Return the text without diacritics; letters such as ß, ł, œ and the Cyrillic й stay."""
    if text.isascii():
        return text
    text = _LATIN_OR_GREEK_DIACRITICS.sub("", unicodedata.normalize("NFD", text))
    return " ".join(_OTHER_DIACRITICS.sub("", unicodedata.normalize("NFC", text)).split())


def read_words(text: str) -> list[str]:
    """Return the words of a text without case, accents and punctuation; words may have one letter."""
    return fold_accents(normalize(text)).split()


def word_reader(vectorizer: Any) -> Callable[[str], list[str]]:
    """Return the function that splits a name into words as a vectorizer does, ``read_words`` for None."""
    if hasattr(vectorizer, "_make_tokenizer"):
        return vectorizer._make_tokenizer()  # type: ignore[no-any-return]
    if hasattr(vectorizer, "build_preprocessor") and hasattr(vectorizer, "build_tokenizer"):
        clean, split = vectorizer.build_preprocessor(), vectorizer.build_tokenizer()
        ignored = vectorizer.get_stop_words() or ()
        return lambda text: [word for word in split(clean(text)) if word not in ignored]
    return read_words


def same_text(text: str) -> str:
    """Return what is equal for texts that differ only in case, white space and invisible characters."""
    return " ".join(fold_case(_INVISIBLE.sub("", text)).split())
