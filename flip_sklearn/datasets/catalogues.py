"""Message catalogues (``.mo`` files of gettext) of installed packages: where they are, and what they say.

A catalogue is read as data. The plural rule in its header, which ``gettext.GNUTranslations`` compiles to a
function, is not looked at, and no string is read from outside the file or twice.
"""

from __future__ import annotations

import gettext
import logging
import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flip_sklearn.io import check_regular_file

logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 2**26
MAX_MESSAGE_BYTES = 4000  # longer messages are pages of help, not sentences

_MAGIC = {b"\xde\x12\x04\x95": "<u4", b"\x95\x04\x12\xde": ">u4"}  # the byte order of the numbers
_HEADER_BYTES = 20  # magic, revision, number of messages, offsets of the two tables
_CHARSET = re.compile(rb"charset=([\w.:-]+)", re.IGNORECASE)
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:[_-][A-Za-z0-9]+)*(?:\.[\w-]+)?(?:@\w+)?")
_SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", "test", "tests"})
# Names of folders that contain folders of languages, and are not the name of a package.
_FOLDERS_OF_LANGUAGES = frozenset(
    {"i18n", "lang", "locale", "locale-langpack", "locales", "share", "translations"}
)

# Names for one language in one script, the usual name first.
_SAME_LANGUAGE = (
    ("zh_cn", "zh_hans", "zh_hans_cn", "zh_sg", "zh"),
    ("zh_tw", "zh_hant", "zh_hant_tw", "zh_hk", "zh_hant_hk"),
    ("nb", "no", "nb_no"),
    ("he", "iw"),
    ("id", "in"),
)


@dataclass(frozen=True)
class Catalogue:
    """One catalogue in several languages.

    Attributes
    ----------
    package : str
        Name of the package, or of the catalogue if it is in a folder of several packages.
    files : dict of str to Path
        The file of each language, by the normalized name of the language.
    """

    package: str
    files: dict[str, Path] = field(default_factory=dict)


def normalize_language(name: str) -> str:
    """Return ``zh-Hans``, ``zh_Hans.UTF-8`` and the like as ``zh_hans``; ``@latin`` stays."""
    base, _, modifier = name.partition("@")
    base = base.partition(".")[0].replace("-", "_").lower()
    return f"{base}@{modifier.lower()}" if modifier else base


def resolve_language(language: str, available: Iterable[str]) -> str | None:
    """Return which of the available normalized names is used for a language, or None.

    The first that is available of: the name itself; other names of the same language and script (``zh_CN``,
    ``zh_Hans``, ``zh``); without the territory (``de`` for ``de_DE``); with a territory (``de_DE`` for
    ``de``), where that of the same letters comes first, then by alphabet.
    """
    names = sorted(available)
    wanted = normalize_language(language)
    synonyms = next((group for group in _SAME_LANGUAGE if wanted in group), (wanted,))
    candidates = [wanted, *synonyms]
    if len(synonyms) == 1:
        bare = wanted.partition("_")[0]
        candidates.append(bare)
        if wanted == bare:
            candidates += [f"{bare}_{bare}", *(n for n in names if re.fullmatch(rf"{bare}_[a-z]{{2}}", n))]
    return next((name for name in candidates if name in names), None)


def default_folders() -> list[Path]:
    """Return the folders of installed packages, then those of the system, that exist."""
    paths = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    paths += [site.getusersitepackages(), os.path.join(sys.prefix, "share", "locale")]
    paths += [gettext.bindtextdomain("messages"), "/usr/local/share/locale", "/usr/share/locale"]
    paths += ["/usr/share/locale-langpack", "/opt/homebrew/share/locale"]
    return list(dict.fromkeys(Path(path).resolve() for path in paths if path and os.path.isdir(path)))


def find_catalogues(folders: Iterable[Path]) -> list[Catalogue]:
    """Return all catalogues below folders: files ``<language>/LC_MESSAGES/<name>.mo``, in a fixed order."""
    found: dict[tuple[int, str], Catalogue] = {}
    seen: set[Path] = set()
    for number, root in enumerate(folders):
        for folder, subfolders, files in os.walk(root):
            subfolders[:] = sorted(f for f in subfolders if f not in _SKIPPED_FOLDERS and f[0] != ".")
            path = Path(folder)
            if path.name != "LC_MESSAGES" or not _LANGUAGE.fullmatch(path.parent.name) or path in seen:
                continue
            seen.add(path)  # one of the folders may contain another
            base = path.parent.parent
            above = base.relative_to(root).parts if base.is_relative_to(root) else ()
            for file in sorted(files):
                if file.endswith(".mo"):
                    package = file.removesuffix(".mo")
                    if above and above[0] not in _FOLDERS_OF_LANGUAGES:
                        package = above[0]
                    key = "/".join([*above, file])
                    catalogue = found.setdefault((number, key), Catalogue(package))
                    catalogue.files.setdefault(normalize_language(path.parent.name), path / file)
    return [found[key] for key in sorted(found)]


def read_catalogue(path: Path) -> dict[str, str]:
    """Return the translated messages of a file; none, with a warning in the log, if it is not a catalogue.

    The key is the message, after its context and ``"\\4"`` if it has one. Of messages with plural forms, the
    plural and its last form are returned: many languages have no singular form.
    """
    try:
        if check_regular_file(path) > MAX_FILE_BYTES:
            raise ValueError(f"it has more than {MAX_FILE_BYTES} bytes")
        return dict(_messages(path.read_bytes()))
    except (OSError, ValueError, LookupError) as error:
        logger.warning("Skipped the catalogue %s: %s.", path, error)
        return {}


def _messages(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield the messages of a file and their translations, in the order of the file."""
    originals, translations = _tables(data)
    charset = "utf-8"
    for (length, start), (translated, offset) in zip(originals, translations, strict=True):
        if length == 0 and (named := _CHARSET.search(data, offset, offset + translated)):
            charset = (
                named[1].decode("ascii").replace("CHARSET", "utf-8")
            )  # of a header that nobody filled in
            b"".decode(charset)
        elif 0 < length <= MAX_MESSAGE_BYTES and 0 < translated <= MAX_MESSAGE_BYTES:
            try:
                text = data[start : start + length].decode(charset)
                translation = data[offset : offset + translated].decode(charset)
            except UnicodeDecodeError:  # one message in another encoding than the header says
                continue
            if "\0" in text:
                context, separator, _ = text.rpartition("\4")
                text = context + separator + text.rpartition("\0")[2]
                translation = translation.rpartition("\0")[2]
            if translation:
                yield text, translation


def _tables(data: bytes) -> tuple[list[list[int]], list[list[int]]]:
    """Return (length, offset) of all messages and of their translations."""
    order = _MAGIC.get(data[:4])
    if order is None or len(data) < _HEADER_BYTES:
        raise ValueError("it is not a message catalogue")
    revision, n, *starts = np.frombuffer(data, order, 4, offset=4).tolist()
    if revision >> 16 not in (0, 1):
        raise ValueError(f"its format has the major revision {revision >> 16}; 0 and 1 are known")
    if max(starts) + 8 * n > len(data):
        raise ValueError("it is truncated")
    tables = [
        np.frombuffer(data, order, 2 * n, offset=start).reshape(n, 2).astype(np.int64) for start in starts
    ]
    for table in tables:
        if (table.sum(axis=1) > len(data)).any():
            raise ValueError("it is truncated")
        if table[:, 0].sum() > len(data):  # of a small file that would be gigabytes
            raise ValueError("its messages overlap")
    return tables[0].tolist(), tables[1].tolist()


def count_languages(catalogues: Iterable[Catalogue]) -> Mapping[str, int]:
    """Return the number of catalogues of each language, the most frequent first."""
    counts: dict[str, int] = {}
    for catalogue in catalogues:
        for language in catalogue.files:
            counts[language] = counts.get(language, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
