"""English sentences from the docstrings of installed packages.

Sources are parsed with ``ast``, never imported or run. Docstrings are split into paragraphs, stripped of
markup and split into sentences. The sentences of each package are cached, so only the first call parses.
"""

from __future__ import annotations

import ast
import gc
import gzip
import hashlib
import importlib.util
import inspect
import itertools
import json
import logging
import os
import re
import sys
import sysconfig
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from flip_sklearn.io import show_progress, write_atomic
from flip_sklearn.parameters import check_integer, check_random_state, refusal

DEFAULT_PACKAGES = ("stdlib", "numpy", "scipy", "sklearn", "torch", "joblib")

logger = logging.getLogger(__name__)

_CacheDir = str | os.PathLike[str] | None
_CLEANER_VERSION = 1  # increase it when the cleaning changes, so that cached sentences are not used

# --- Paragraphs of prose ---------------------------------------------------------------------
_UNDERLINE = re.compile(r"([-=~^\"'#*+.])\1{2,}")
_COLUMNS = re.compile(r"[^.!?:\s\"')]\s{2,}\S")  # table row; in prose two blanks follow a stop
_NOT_PROSE = re.compile(  # no letters; {placeholder}; | table |; Returns:
    r"[^A-Za-z]*|[{%(<]+\w+[)>}]+s?|\|.*|\+[-=+].*|[A-Z*][\w /*()]{0,40}:{1,2}"
)
_DIRECTIVE = re.compile(  # group 1 is the text of a directive that contains prose
    r"\.\.(?=\s|$)(?:\s+(?:attention|caution|danger|deprecated|hint|important|note|tip|warning|"
    r"version\w+)::\s*(?:v?\d\S*\s*)?(.*))?"
)
_NUMPYDOC_HEADER = re.compile(r"[\w.*\\`\"'{}\[\](), |-]{1,80} :(?: |$)")
_LIST_ITEM = re.compile(
    r"(?:[-*+\u2022]|#\.|\(?(?:\d{1,2}|[a-z])[.)])\s+(?=\S)"  # - bullet, 1. number, (a) letter
    r"|:[\w*. ]+:(?:\s+|$)"  # :param x: description
    r"|[\w*.,'\" ]{1,30}\s--?\s+(?=\S)"  # x -- description
)
# `x (int): description` at the start of a paragraph; elsewhere it is prose with a colon.
_ARGUMENT = re.compile(r"[`'\"*]*[A-Za-z_][\w.*`'\"]*(?:\s*\((?:[^()]|\([^()]*\))*\))?:\s+(?=\S)")


class _ParagraphParser:
    """Collects the lines of the prose paragraphs of a docstring, without list markers."""

    def __init__(self) -> None:
        self.paragraphs: list[list[str]] = []
        # Of the last paragraph: whether it may continue, whether it is a list item, its indentation.
        self.is_open, self.is_item, self.indent = False, False, 0
        # Indentation of a literal block, whose deeper lines are skipped.
        self.block: int | None = None
        self.in_doctest, self.in_fence, self.section = False, False, ""

    def add_line(self, line: str, following: str) -> None:
        text, indent = line.strip(), len(line) - len(line.lstrip())
        if not text:
            self.in_doctest = self.is_open = False
            return
        if self.block is not None and indent <= self.block:
            self.block = None
        if text.startswith("```") and text.count("```") % 2:
            self.in_fence, self.is_open = not self.in_fence, False
        elif self.in_fence or self.in_doctest or self.block is not None:
            return
        elif text.startswith((">>>", "In [")):
            self.in_doctest, self.is_open = True, False
        elif _UNDERLINE.fullmatch(following.strip()) and not _NOT_PROSE.fullmatch(text):
            self.section, self.is_open = text.lower(), False
        elif self.section != "references":
            self._add_text(text, indent)

    def _add_text(self, text: str, indent: int) -> None:
        marker = None
        if directive := _DIRECTIVE.match(text):
            self.is_open = False
            if directive[1] is None:
                self.block = indent
            text = directive[1] or ""
        elif _NOT_PROSE.fullmatch(text) or ("  " in text and _COLUMNS.search(text)):
            if text.endswith("::"):
                self.block = indent
            text = ""
        elif " :" in text and (header := _NUMPYDOC_HEADER.match(text)):
            # `name : Description.` in "See Also" has a sentence, in other sections a type.
            text, marker = (text, header) if self.section == "see also" else ("", None)
        else:
            marker = _LIST_ITEM.match(text)
        if not text:
            self.is_open = False
            return
        is_indented = indent > self.indent if self.is_item else indent == self.indent
        if not (self.is_open and is_indented and marker is None):  # a new paragraph
            marker = marker or _ARGUMENT.match(text)
            self.paragraphs.append([])
            self.is_open, self.is_item = True, bool(marker or directive)
            self.indent = indent
        self.paragraphs[-1].append(text[marker.end() :] if marker else text)
        if text.endswith("::"):
            self.block, self.is_open = self.indent, False


# --- Sentences -------------------------------------------------------------------------------
# Footnotes and citations, unless one replaces a noun: "as shown in [1]_".
_CITATION = r"(?<!\bin|\bof|\bby|\bto|\bon)(?<!see|and)(?<!from|with)(?<!\s)(?:,?\s*\[[^][\s]+\]_)+"
_MARKUP = [
    (re.compile(r"\\ "), ""),
    (re.compile(_CITATION), ""),
    (re.compile(r"!?\[([^][]+)\]\([^()\s]+\)"), r"\1"),  # [Markdown](link)
    (re.compile(r"(?<![`\w])(?::[\w+-]+)*:?`~(?:[\w.]*\.)?(\w+)(\(\))?`"), r"\1\2"),
    (re.compile(r"(?<![`\w])(?::[\w+-]+)+:(?=`)"), ""),
    (re.compile(r"`(\w+)'"), r"\1"),  # `old quotes'
    (re.compile(r"``(.+?)``"), r"\1"),
    (re.compile(r"`!?([^`<>]+?)(?:\s*<[^`<>]*>)?`_{0,2}"), r"\1"),
    (re.compile(r"(?<![\w*])(\*\*?)(?=[^\s*])([^*]+)(?<=[^\s*])\1(?![\w*])"), r"\2"),
]

_BOUNDARY = re.compile(r"(?<=[.!?])\s+|(?<=[.!?][\")'])\s+")
_ABBREVIATION = re.compile(
    r"(?i)(?:^|[\s(\"'])(?:(?:[a-z]\.)+[a-z]|al|approx|ca|cf|chap|dr|eg|eqn?s?|esp|figs?|ie|incl|mr|pp|prof|"
    r"refs?|resp|secs?|thm|viz|vol|vs|\.\.)\.$"
)
_FORBIDDEN = re.compile(
    r"[^ -~]|[\\{}<>=|#@$^~`*&]|::|:[a-z]+[A-Z]|//|\.\.|--.*--|\[\]|\]_|\s[-+/_:]\s|\(s?\)|\s[.,;:!?](?:\s|$)"
)
_FRAME = re.compile(r"(?!Whether )[A-Z][A-Za-z'-]*[,:]? .*[.!?]")
_WORD = re.compile(r"[\"'(]*(?:[A-Z]?[a-z]+|[A-Z]+s?)(?:['/-][A-Za-z]+)*[\"')]*[.,;:!?]*[\"')]*")
# "Number of samples." is not a sentence: text that starts like a noun phrase needs a finite verb.
_NOUN_PHRASE = re.compile(
    r"(?:An?|The|Any|All|Each|Same|Names?|Values?|Arrays?|Ax[ie]s|List|Base|M[aei]\w+um|Helper|Data|Wrapper|"
    r"Class|Input|Output|Indices|Shape|Matrix|Size|Used|String|Extra|Linear|Upper|Lower|Only|Object|Tensor|"
    r"Sample|Context|Mask|Path|Type|Private|Abstract|Relative|Inverse|Mixin|Keyword|Default|Decorator|Which|"
    r"Parameters?|Method|Callable|Constant|Equivalent|\w+(?:[ts]ions?|it(?:y|ies)|[nm]en(?:ts?|cy)|ance|"
    r"[aeiou]l|ary|ed)|\w+-\w+) |\S+ (?:of|used|with) "
)
_FINITE = re.compile(
    r"\b(?:is|are|was|were|be|has|have|had|do|does|did|can|cannot|could|may|might|must|shall|should|will|"
    r"would|we|you|they|it|\w+n't|allows|applies|becomes|calls|computes|contains|controls|converts|"
    r"corresponds|creates|defaults|defines|depends|describes|determines|ensures|expects|gives|holds|"
    r"implements|includes|indicates|keeps|makes|means|needs|performs|provides|raises|refers|represents|"
    r"requires|returns|runs|specifies|stores|supports|takes|uses|works|yields)\b"
)


def _is_sentence(text: str) -> bool:
    """Return whether plain text reads as one English sentence."""
    if not _FRAME.fullmatch(text) or _FORBIDDEN.search(text):
        return False
    words = text.split(" ")
    plain = [word for word in words if _WORD.fullmatch(word)]
    return (
        4 <= len(words) <= 40
        and len(plain) >= 0.8 * len(words)  # not numbers or code
        and sum(map(str.islower, plain)) >= 0.5 * len(words)  # not a title or a reference
        and text.count("(") == text.count(")")
        and text.count('"') % 2 == 0
        and (_NOUN_PHRASE.match(text) is None or _FINITE.search(text) is not None)
    )


def _sentences(doc: str) -> Iterator[str]:
    """Yield the sentences of one docstring in source order, repeats included."""
    parser = _ParagraphParser()
    for line, following in itertools.pairwise([*inspect.cleandoc(doc).splitlines(), ""]):
        parser.add_line(line, following)
    for paragraph in parser.paragraphs:
        text = re.sub(r"(?<=[a-z]-) (?=[a-z])", "", " ".join(paragraph))  # words hyphenated at line ends
        if any(mark in text for mark in "`*]\\"):
            for pattern, replacement in _MARKUP:
                text = pattern.sub(replacement, text)
        sentence = ""
        for piece in _BOUNDARY.split(" ".join(text.split())):
            sentence = f"{sentence} {piece}".lstrip()
            if not _ABBREVIATION.search(sentence.rstrip("\"')")):
                if _is_sentence(sentence):
                    yield sentence
                sentence = ""


def _unique(sentences: Iterable[str]) -> list[str]:
    """Keep the last of the sentences that differ in case only, at the position of the first."""
    return list({sentence.lower(): sentence for sentence in sentences}.values())


# --- Sources ---------------------------------------------------------------------------------
_SKIPPED_PREFIXES = (".", "test_", "conftest.")
_SKIPPED_FOLDERS = frozenset({"__pycache__", "test", "tests"})
# Parts of the standard library that some distributions lack: without them, a Python version has the
# same sentences everywhere.
_OPTIONAL = frozenset({"distutils", "ensurepip", "idlelib", "lib2to3", "tkinter", "turtledemo"})


def _sources(package: str) -> list[tuple[str, str]]:
    """Return (name, path) of the sources of a package, in the same order on every machine."""
    roots: list[str] = [sysconfig.get_path("stdlib")]
    if package != "stdlib":
        try:
            spec = importlib.util.find_spec(package)  # does not import a top-level name
        except (ImportError, ValueError):
            spec = None
        roots = list((spec.submodule_search_locations or [spec.origin or ""]) if spec else ())
    sources = []
    for root in roots:
        if root.endswith(".py"):  # a package of one file
            sources.append((os.path.basename(root), root))
        for folder, folders, files in os.walk(root):
            skipped = _SKIPPED_FOLDERS
            if package == "stdlib" and folder == root:
                skipped = skipped | _OPTIONAL
            # Folders such as site-packages and lib-dynload are not packages: no identifiers.
            folders[:] = [f for f in folders if f.isidentifier() and f not in skipped]
            for file in files:
                path = os.path.join(folder, file)
                is_source = file.endswith(".py") and not file.startswith(_SKIPPED_PREFIXES)
                if is_source and os.path.isfile(path):
                    sources.append((os.path.relpath(path, root).replace(os.sep, "/"), path))
    return sorted(sources, key=lambda source: source[0].split("/"))


def _docstrings(tree: ast.Module) -> Iterator[str]:
    """Yield the docstrings of a source file, including those it adds to compiled functions."""
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if doc := ast.get_docstring(node, clean=False):
                yield doc
        elif isinstance(node, ast.Expr | ast.Assign) and isinstance(node.value, ast.Call):
            # add_newdoc("module", "name", "doc") of numpy and scipy, add_docstr(f, "doc") of torch
            function = node.value.func
            called = getattr(function, "id", getattr(function, "attr", "")).lstrip("_")
            if called.startswith(("add_newdoc", "add_docstr")):
                for part in ast.walk(node.value):
                    if isinstance(part, ast.Constant) and "\n" in str(part.value):
                        yield str(part.value)
        for field in ("cases", "finalbody", "orelse", "handlers", "body"):
            if children := getattr(node, field, None):
                stack.extend(reversed(children))


def _parse(path: str) -> list[str]:
    """Return the sentences of one source file; none if it cannot be parsed."""
    gc_was_enabled = gc.isenabled()
    gc.disable()  # syntax trees have no cycles, and garbage collection would take as long as parsing
    try:
        code = Path(path).read_bytes()
        if b'"""' not in code and b"'''" not in code:
            return []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in the sources of others
            docstrings = list(_docstrings(ast.parse(code)))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        logger.debug("Skipped %s: %s", path, error)
        return []
    finally:
        if gc_was_enabled:
            gc.enable()
    return [sentence for doc in docstrings for sentence in _sentences(doc)]


def _cache_path(cache_dir: _CacheDir, package: str, sources: Sequence[tuple[str, str]]) -> Path:
    """Return the path of the cache file, whose name has a hash of everything its content depends on."""
    if cache_dir is None:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
        cache_dir = os.environ.get("FLIP_SKLEARN_CACHE") or os.path.join(home, "flip-sklearn")
    # Sizes and times of the sources instead of a version, so that edited sources are parsed again.
    status = [(name, os.stat(path)) for name, path in sources]
    files = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in status]
    key = repr((_CLEANER_VERSION, sys.implementation.name, sys.version_info[:3], package, files))
    name = f"docstrings-{package}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json.gz"
    return Path(os.path.expanduser(cache_dir), name)


def _read_cache(path: Path) -> list[str] | None:
    """Return the cached sentences, or None if there is no cache file or it is damaged."""
    try:
        sentences = json.loads(gzip.decompress(path.read_bytes()))  # checks length and checksum
        if isinstance(sentences, list) and all(isinstance(s, str) for s in sentences):
            return sentences
        raise ValueError("it does not contain a list of sentences")
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        logger.warning("The cache file %s is damaged and is replaced: %s", path, error)
        return None


def _write_cache(path: Path, sentences: Sequence[str]) -> None:
    try:
        write_atomic(path, gzip.compress(json.dumps(sentences).encode(), mtime=0))
    except OSError as error:
        logger.warning("Not cached: %s. Set cache_dir to a writable folder.", error)


def _collect(packages: Iterable[str], cache_dir: _CacheDir, verbose: bool) -> list[str]:
    """Return the sentences of all packages, parsing the packages that are not cached."""
    sentences: dict[str, list[str]] = {}
    to_write: dict[str, Path] = {}
    to_parse: list[tuple[str, str]] = []
    for package in dict.fromkeys(packages):
        sources = _sources(package)
        if not sources:
            logger.warning("%r has no Python sources installed and is skipped.", package)
            continue
        path = _cache_path(cache_dir, package, sources)
        cached = _read_cache(path)
        sentences[package] = cached or []
        if cached is None:
            to_write[package] = path
            to_parse += [(package, source) for _, source in sources]
    for package, source in show_progress(to_parse, disable=not verbose or not to_parse, unit="file"):
        sentences[package] += _parse(source)
    for package, path in to_write.items():
        _write_cache(path, _unique(sentences[package]))
    return _unique(itertools.chain.from_iterable(sentences.values()))


def sample_rows(n: int, max_rows: int | None, rng: np.random.RandomState | None) -> list[int]:
    """Return the rows of a sample: shuffled by a generator, or in order and spread evenly over all."""
    size = n if max_rows is None else min(max_rows, n)
    if rng is None:
        return [i * n // size for i in range(size)]
    return list(rng.permutation(n)[:size])


def load_docstrings(
    *,
    max_sentences: int | None = None,
    random_state: int | np.random.RandomState | None = None,
    packages: Iterable[str] = DEFAULT_PACKAGES,
    cache_dir: _CacheDir = None,
    verbose: bool = False,
) -> list[str]:
    """Load English sentences from the docstrings of installed packages.

    Tens of thousands of sentences of technical English without a download, the same on every machine with the
    same package versions. Sources are parsed with ``ast``, never imported or run.

    Parameters
    ----------
    max_sentences : int >= 1, default=None
        Maximum number of sentences; None for all.
    random_state : int or RandomState instance, default=None
        Shuffles the sentences, so that `max_sentences` are a random sample; an int makes it reproducible.
        None keeps the order (packages as passed, files by path, position in the file) and takes
        `max_sentences` spread evenly over all.
    packages : iterable of str, default=("stdlib", "numpy", "scipy", "sklearn", "torch", "joblib")
        Top-level import names; ``"stdlib"`` is the standard library. One that is not installed is skipped
        with a warning in the log.
    cache_dir : path-like, default=None
        Folder for the parsed sentences, one compressed JSON file a package, replaced when sources change or
        it is damaged. None means ``$FLIP_SKLEARN_CACHE``, else ``$XDG_CACHE_HOME/flip-sklearn``, else
        ``~/.cache/flip-sklearn``.
    verbose : bool, default=False
        Whether to show a progress bar on standard error while sources are parsed (some 20 s, only once).

    Returns
    -------
    list of str
        ASCII sentences of 4 to 40 words that begin with a capital letter and end with ``.``, ``!`` or ``?``.
        No two differ in case only.

    Raises
    ------
    ValueError
        If `max_sentences` or `packages` is not valid, or no package has any sentence.

    Notes
    -----
    Docstrings that numpy, scipy and torch add to compiled functions are included. Left out are test suites,
    parts of the standard library that some distributions lack (such as ``tkinter``), doctests, code,
    mathematics, tables, titles, references and "Number of samples." fragments.

    Examples
    --------
    >>> from flip_sklearn.datasets import load_docstrings
    >>> len(load_docstrings(packages=["joblib"], max_sentences=3, random_state=0))
    3
    """
    if max_sentences is not None:
        max_sentences = check_integer("max_sentences", max_sentences, 1, or_else="None for all sentences")
    names = () if isinstance(packages, str) else tuple(packages)
    if not names or not all(str(name).isidentifier() for name in names):
        raise refusal("packages", packages, "a list of top-level names as in import, such as ('sklearn',)")
    rng = None if random_state is None else check_random_state(random_state)
    sentences = _collect(names, cache_dir, verbose)
    if not sentences:
        raise ValueError(
            f"packages={names!r} have no sentences; use packages that are installed with .py sources."
        )
    return [sentences[i] for i in sample_rows(len(sentences), max_sentences, rng)]
