"""Sentences in English and other languages, from the message catalogues of installed packages.

Free software is translated by people, message by message, so that every computer has thousands of aligned
sentences. The messages are cleaned of placeholders, marks of keyboard shortcuts and markup, and what is not
prose is left out.
"""

from __future__ import annotations

import html
import logging
import math
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flip_sklearn.datasets.catalogues import (
    Catalogue,
    count_languages,
    default_folders,
    find_catalogues,
    normalize_language,
    read_catalogue,
    resolve_language,
)
from flip_sklearn.datasets.docstrings import sample_rows
from flip_sklearn.io import show_progress
from flip_sklearn.parameters import check_integer, check_random_state, refusal, short_repr

logger = logging.getLogger(__name__)

ENGLISH = "en"
MAX_WORDS = 40
# A sentence that has lost more than two words, or one of four, is not a sentence any more.
_MAX_PLACEHOLDERS = 2
_MIN_WORDS_PER_PLACEHOLDER = 4
# A translation with a length, relative to the English, that differs from the median of its language by more
# than this factor is of something else, or of a part.
_MAX_LENGTH_FACTOR = 2.5
# What gives everybody some thousand sentences. Only the catalogues are used, so no dependencies are needed.
INSTALL_COMMAND = "pip install --no-deps gramps pretix weblate"
SYSTEM_COMMAND = "apt install gimp-data"


@dataclass(frozen=True, eq=False)
class Translations:
    """Result of :func:`load_translations`: m aligned sentences.

    Attributes
    ----------
    texts : dict of str to list of m str
        The sentences of each language, English first, under the key "en"; the others under their names as
        requested.
    packages : list of m str
        The package that each sentence comes from, or the name of the catalogue in a folder of several
        packages.
    """

    texts: dict[str, list[str]]
    packages: list[str]

    def __len__(self) -> int:
        return len(self.packages)

    def __repr__(self) -> str:
        n = len(set(self.packages))
        return f"Translations({len(self):,} sentences, {', '.join(self.texts)}, {n:,} packages)"


# --- Cleaning --------------------------------------------------------------------------------
_GAP = "\ue000"  # stands for what was removed; private use, so that it is in no text
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff\ue000]")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,8});")
_ACCELERATOR_AFTER = re.compile(r"\s*[(\uff08][_&]\w[)\uff09]")  # of languages without Latin letters: (_F)
_ACCELERATOR = re.compile(r"(?<!\w)_(?=\w)|(?<!&)&(?=\w)")
_TAG = re.compile(
    r"</?(?:[abipqsu]|big|br|code|div|em|h\d|hr|img|kbd|li|ol|pre|small|span|strong|su[bp]|t[dhrt]|table|ul)"
    r"(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
_PRINTF = (
    r"%(?:\d{1,2}\$|\([^()%]{0,40}\))?[-+#0']*(?:\*|\d+)?(?:\.(?:\*|\d+)?)?(?:hh?|ll?|[qjztLI])?[a-zA-Z]"
)
_PLACEHOLDER = re.compile(
    rf"%<\w+>|{_PRINTF}|%\d{{1,2}}(?![\d\s%])(?=\W|$)|[%$]?\{{\{{?[^{{}}]{{0,60}}\}}?\}}|\$\w+"
)
# -Wall only after a blank: German "numeric"-Werten is no option.
_OPTION = re.compile(
    r"(?:(?<![A-Za-z0-9_-])(?:--[A-Za-z][\w-]*|-[A-Za-z](?![\w-]))|(?<![^\s(\[])-[A-Za-z][\w-]*)"
    r"(?:=[^\s,;:.()\"'\u2018-\u201f]+)?",
    re.ASCII,
)
_QUOTES = "\"'`\u00ab\u00bb\u2018-\u201f\u2039\u203a\u300a-\u300f"
_GAPS = re.compile(rf"{_GAP}(?:[\s.,:/*-]{{0,2}}{_GAP})+")
_EMPTY = re.compile(rf"[(\uff08]\s*{_GAP}\s*[)\uff09]|\[\s*{_GAP}\s*\]|[{_QUOTES}]\s*{_GAP}\s*[{_QUOTES}]")
_GAP_BEFORE_MARK = re.compile(
    rf"\s*{_GAP}(?=\s*[,.;:!?)\]\u3001\u3002\uff09\uff0c\uff0e\uff1a\uff1b\uff01\uff1f])"
)
_ENDS = re.compile(
    r"^[\s,.;:!?)\]/*\u2013\u2014\u2022\u3001\u3002\uff0c\uff1a-]+|[\s,;:(\[/*\u2013\u2014\uff0c\uff1a-]+$"
)

# --- What is prose ---------------------------------------------------------------------------
_ENGLISH_WORD = re.compile(r"[A-Za-z]+(?:['\u2019-][A-Za-z]+)*")
_CODE = re.compile(r"[\\{}<>|=#^~@$%_`*]|::|\(\)|://|\w[/.]\w")
_LIST = re.compile(r"^\s*(?:-|--?\w|usage:)|\n[ \t]{2,}\S|\n\s*\n|\n\s*[-*]", re.IGNORECASE)
_NOT_A_LETTER = re.compile(r"[\W\d_]+")


def clean_message(message: str) -> tuple[str, int]:
    """Return a message without placeholders, shortcuts and markup, and the number of placeholders."""
    text = _INVISIBLE.sub("", unicodedata.normalize("NFC", message))
    if "&" in text or "<" in text:
        text = _TAG.sub(" ", _ENTITY.sub(lambda entity: html.unescape(entity[0]), text))
        text = re.sub(r"<([^<>]*)>", r"\1", text)  # git's <file>: a word for what the user writes there
    if "&" in text or "_" in text:
        text = _ACCELERATOR.sub("", _ACCELERATOR_AFTER.sub("", text))
    n_placeholders = 0
    if "%" in text or "{" in text or "$" in text:
        text, n_placeholders = _PLACEHOLDER.subn(_GAP, text.replace("%%", "\ue001"))
        text = text.replace("\ue001", "%")
    if "-" in text:
        text, n_options = _OPTION.subn(_GAP, text)
        n_placeholders += n_options
    if _GAP in text:
        text = _EMPTY.sub(_GAP, _GAPS.sub(_GAP, text))
        text = _GAP_BEFORE_MARK.sub("", text).replace(_GAP, " ")
    return _ENDS.sub("", " ".join(text.split())), n_placeholders


def _is_prose(text: str, min_words: int) -> bool:
    """Return whether cleaned English has enough words, and mostly words."""
    tokens = text.split()
    if not min_words <= len(tokens) <= MAX_WORDS or _CODE.search(text):
        return False
    words = [word for word in _ENGLISH_WORD.findall(text)]
    return len(words) >= max(min_words, 0.8 * len(tokens)) and any(word.islower() for word in words)


def _is_translated(english: str, translation: str) -> bool:
    """Return whether most words of a translation are not those of the English."""
    words = set(_NOT_A_LETTER.sub(" ", english).casefold().split())
    translated = _NOT_A_LETTER.sub(" ", translation).casefold().split()
    return bool(translated) and 2 * sum(word in words for word in translated) <= len(translated)


def _sentences(catalogue: Catalogue, languages: Sequence[str], min_words: int) -> list[tuple[str, ...]]:
    """Return the cleaned English sentences of a catalogue, each with its translations."""
    files = {}
    for language in languages:
        name = resolve_language(language, catalogue.files)
        if name is None:
            return []
        files[language] = catalogue.files[name]
    translated = []
    for language in languages:
        translated.append(read_catalogue(files[language]))
        if not translated[-1]:
            return []
    sentences = []
    for message in translated[0]:
        if any(message not in messages for messages in translated):
            continue
        original = message.rpartition("\4")[2].strip()
        if _LIST.search(original):
            continue
        english, n_placeholders = clean_message(original)
        allowed = min(_MAX_PLACEHOLDERS, len(english.split()) // _MIN_WORDS_PER_PLACEHOLDER)
        if n_placeholders > allowed or not _is_prose(english, min_words):
            continue
        cleaned = [clean_message(messages[message]) for messages in translated]
        if all(n == n_placeholders and _is_translated(english, text) for text, n in cleaned):
            sentences.append((english, *(text for text, _ in cleaned)))
    return sentences


def _unique(sentences: Iterable[tuple[str, ...]]) -> list[int]:
    """Return the numbers of the sentences whose English, without case and marks, is in none before."""
    first: dict[str, int] = {}
    for number, sentence in enumerate(sentences):
        first.setdefault(_NOT_A_LETTER.sub(" ", sentence[0]).casefold().strip(), number)
    return list(first.values())


def _has_usual_lengths(sentences: Sequence[tuple[str, ...]]) -> np.ndarray:
    """Return whether no translation of a sentence is far longer or shorter than is usual in its language."""
    # Bytes, because a character of Chinese says as much as three letters, and has three bytes.
    sizes = np.array([[len(text.encode()) for text in sentence] for sentence in sentences], dtype=float)
    logarithms = np.log(sizes[:, 1:] / sizes[:, :1])
    excess = np.abs(logarithms - np.median(logarithms, axis=0))
    return np.asarray((excess <= math.log(_MAX_LENGTH_FACTOR)).all(axis=1))


def load_translations(
    languages: Iterable[str] = ("de", "fr"),
    *,
    max_sentences: int | None = None,
    random_state: int | np.random.RandomState | None = None,
    packages: Iterable[str] | None = None,
    folders: Iterable[str | os.PathLike[str]] | None = None,
    min_words: int = 5,
    verbose: bool = False,
) -> Translations:
    """Load aligned sentences in English and other languages from the catalogues of installed packages.

    Messages of programs and their translations, from the ``.mo`` files of gettext that are on this machine:
    tens of thousands of sentences on most Linux systems, without a download. A sentence is returned if one
    catalogue has it in all languages.

    Parameters
    ----------
    languages : iterable of str, default=("de", "fr")
        Languages besides English, such as ``"de"``, ``"zh"`` or ``"pt_BR"``. In each catalogue the first of
        these is used that it has: the name itself (``zh-Hans`` and ``zh_Hans`` are equal); other names of the
        same language and script (``zh``, ``zh_CN`` and ``zh_Hans``; ``zh_TW`` and ``zh_Hant``); the name
        without the territory (``de`` for ``de_DE``); the name with a territory (``pt_PT``, then ``pt_BR``,
        for ``pt``).
    max_sentences : int >= 1, default=None
        Maximum number of sentences; None for all.
    random_state : int or RandomState instance, default=None
        Shuffles the sentences, so that `max_sentences` are a random sample; an int makes it reproducible.
        None keeps the order (folders, catalogues by path, position in the catalogue) and takes
        `max_sentences` spread evenly over all.
    packages : iterable of str, default=None
        Names of packages to use, as in the result; None for all. One that has no catalogue is skipped with
        a warning in the log.
    folders : iterable of path-like, default=None
        Folders to search for files ``<language>/LC_MESSAGES/<name>.mo``, at any depth. None means the
        installed Python packages, ``share/locale`` of this Python environment, and those of the system.
    min_words : int >= 1, default=5
        Minimum number of words of the English sentence.
    verbose : bool, default=False
        Whether to show a progress bar on standard error after two seconds.

    Returns
    -------
    Translations
        ``texts``, a dict of language to sentences, row-aligned, and ``packages``, the package of each
        sentence. The result depends on the catalogues and the arguments only.

    Raises
    ------
    ValueError
        If an argument is not allowed, a language has no catalogue, or no sentence is left; the message has
        the commands that install catalogues.

    See Also
    --------
    load_docstrings : English sentences only, which need no catalogues.

    Notes
    -----
    *Cleaning.* Placeholders (``%s``, ``%(name)s``, ``{name}``, ``$name``), options (``--all``), tags,
    entities and marks of shortcuts (``_File``, ``&File``, ``(_F)``) are removed. A message is left out if it
    is a list, code, longer than 40 words, or loses more than two placeholders; if a translation has another
    number of placeholders, shares most words with the English, or has a length that differs from the usual
    by more than a factor of 2.5; and if its English is equal to that of a message before but for case,
    digits and marks. Of messages with singular and plural, the plural is used.

    *Similar sentences.* Packages copy messages from each other and repeat them with small changes.
    ``split_sentences`` keeps sentences with equal embeddings together, and therefore sentences with the same
    translation; with ``groups=packages`` it keeps packages together, to measure on unseen kinds of text.

    *Safety.* Catalogues are read as data: nothing in them is run, and files that are damaged or too large are
    skipped with a warning in the log.

    *Licences.* The texts are read from this machine, and remain under the licences of their packages, which
    matter if you pass them on.

    Examples
    --------
    The catalogues of this machine:

    >>> from flip_sklearn.datasets import load_translations
    >>> load_translations(["de", "fr"], max_sentences=1000, random_state=0)  # doctest: +SKIP
    Translations(1,000 sentences, en, de, fr, 60 packages)

    A catalogue of one message:

    >>> import struct, tempfile
    >>> from pathlib import Path
    >>> message, german = b"The file is too large.", b"Die Datei ist zu lang."
    >>> numbers = [0x950412DE, 0, 1, 28, 36, 0, 0, len(message), 44, len(german), 44 + len(message)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "de", "LC_MESSAGES", "editor.mo")
    ...     path.parent.mkdir(parents=True)
    ...     _ = path.write_bytes(struct.pack("<11I", *numbers) + message + german)
    ...     data = load_translations(["de"], folders=[folder])
    >>> data.texts, data.packages
    ({'en': ['The file is too large.'], 'de': ['Die Datei ist zu lang.']}, ['editor'])
    """
    if max_sentences is not None:
        max_sentences = check_integer("max_sentences", max_sentences, 1, or_else="None for all sentences")
    min_words = check_integer("min_words", min_words, 1, MAX_WORDS)
    names = _check_languages(languages)
    rng = None if random_state is None else check_random_state(random_state)
    catalogues = _select(find_catalogues(_check_folders(folders)), packages)
    for language in names:
        if not any(resolve_language(language, catalogue.files) for catalogue in catalogues):
            raise _too_few(f"languages={names!r}: {language!r} has no catalogue here", catalogues)
    sentences: list[tuple[str, ...]] = []
    of_package: list[str] = []
    for catalogue in show_progress(catalogues, disable=not verbose, desc="catalogues", unit="file"):
        found = _sentences(catalogue, names, min_words)
        sentences += found
        of_package += [catalogue.package] * len(found)
    rows = np.array(_unique(sentences), dtype=np.intp)
    if len(rows):
        rows = rows[_has_usual_lengths([sentences[row] for row in rows])]
    if not len(rows):
        raise _too_few(f"languages={names!r}: no catalogue has a sentence in all of them", catalogues)
    rows = rows[sample_rows(len(rows), max_sentences, rng)]
    texts = {language: [sentences[row][i] for row in rows] for i, language in enumerate((ENGLISH, *names))}
    return Translations(texts, [of_package[row] for row in rows])


def _listed(values: Any) -> list[Any]:
    """Return the elements of an argument, none if it is one string or no iterable."""
    is_list = isinstance(values, Iterable) and not isinstance(values, (str, bytes, os.PathLike))
    return list(values) if is_list else []


def _check_languages(languages: Iterable[str]) -> list[str]:
    """Check the languages, and return them without English."""
    names = _listed(languages)
    if not all(isinstance(name, str) and re.fullmatch(r"[A-Za-z]{2,3}([_@.-]\w+)*", name) for name in names):
        names = []
    names = [name for name in dict.fromkeys(names) if normalize_language(name) != ENGLISH]
    if not names:
        raise refusal("languages", languages, "a list of languages besides English, such as ['de', 'zh_CN']")
    return names


def _check_folders(folders: Iterable[str | os.PathLike[str]] | None) -> list[Path]:
    if folders is None:
        return default_folders()
    paths = [Path(f).expanduser() for f in _listed(folders) if isinstance(f, (str, os.PathLike))]
    missing = [str(path) for path in paths if not path.is_dir()]
    if missing or not paths:
        raise refusal("folders", missing or folders, "a list of folders that exist, or None")
    return [path.resolve() for path in paths]


def _select(catalogues: list[Catalogue], packages: Iterable[str] | None) -> list[Catalogue]:
    """Return the catalogues of the packages that a user named."""
    if packages is None:
        return catalogues
    names = _listed(packages)
    known = sorted({catalogue.package for catalogue in catalogues})
    missing = [name for name in names if name not in known]
    if len(missing) == len(names):
        allowed = f"a list of packages with catalogues, of {short_repr(known, 300)}, or None for all"
        raise refusal("packages", packages, allowed)
    for name in missing:
        logger.warning("%r has no catalogues installed and is skipped.", name)
    return [catalogue for catalogue in catalogues if catalogue.package in names]


def _too_few(reason: str, catalogues: list[Catalogue]) -> ValueError:
    """Return the error for too few catalogues, with the commands that install some."""
    known = ", ".join(f"{name} ({count})" for name, count in list(count_languages(catalogues).items())[:12])
    return ValueError(
        f"{reason}. Languages with the most catalogues: {known or 'none'}. Install packages with "
        f"translations: {INSTALL_COMMAND}; on Debian also {SYSTEM_COMMAND}."
    )
