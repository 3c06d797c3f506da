"""load_docstrings: cleaning, sources that are never run, reproducible order, and the cache."""

from __future__ import annotations

import doctest
import gzip
import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flip_sklearn.datasets import docstrings as datasets
from flip_sklearn.datasets import load_docstrings

MakePackage = Callable[[dict[str, str]], str]

# The module without the other data sets, and with a stub for scikit-learn, which would load SciPy: the
# subprocess starts quickly, and sys.modules shows what load_docstrings itself loads.
LOAD_MODULE = f"""
import importlib.util, json, sys, types
import numpy
sys.modules["sklearn"] = types.ModuleType("sklearn")
sys.modules["sklearn.utils"] = types.ModuleType("sklearn.utils")
sys.modules["sklearn.utils"].check_random_state = numpy.random.RandomState
spec = importlib.util.spec_from_file_location("datasets_alone", {datasets.__file__!r})
datasets = importlib.util.module_from_spec(spec)
spec.loader.exec_module(datasets)
"""

MANY = {
    f"part_{i}/{name}.py": f'"""The {name} module of part {i} is in its own place."""\n'
    for i in (10, 2, 1)
    for name in ("zebra", "Apple", "__init__")
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tests never read or write the cache of the user."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("FLIP_SKLEARN_CACHE", str(folder))
    return folder


@pytest.fixture
def make_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakePackage]:
    """Write a package from {path: source} and put it on sys.path."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def make(files: dict[str, str], name: str = "flip_fake") -> str:
        for path, source in {"__init__.py": "", **files}.items():
            file = site / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(source, encoding="utf-8")
        importlib.invalidate_caches()
        return name

    yield make
    assert "flip_fake" not in sys.modules  # no test may import the package


def clean(doc: str) -> list[str]:
    return list(datasets._sentences(textwrap.dedent(doc)))


def run_python(code: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", LOAD_MODULE + textwrap.dedent(code)],
        env={**os.environ, **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


# --- Cleaning --------------------------------------------------------------------------------


def test_wrapped_lines_are_joined_within_paragraphs() -> None:
    doc = """Fit the model to
    the given data. This may take some
    time on long in-
    puts.

    This line has no end

    Another paragraph starts here.
    """
    assert clean(doc) == [
        "Fit the model to the given data.",
        "This may take some time on long in-puts.",
        "Another paragraph starts here.",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Use ``fit`` before the first call.", "Use fit before the first call."),
        ("Use `fit` before the first call.", "Use fit before the first call."),
        ("Call :func:`~a.b.fit` before this one.", "Call fit before this one."),
        ("Call :meth:`fit` before this one.", "Call fit before this one."),
        ("Call :py:meth:`fit` before this one.", "Call fit before this one."),
        ("Read :ref:`the guide <guide>` before this one.", "Read the guide before this one."),
        ("Read `the guide <https://a.org/b>`_ before this.", "Read the guide before this."),
        ("Read [the guide](https://a.org/b) before this.", "Read the guide before this."),
        ("This is *really* a **very** good idea.", "This is really a very good idea."),
        ("The test of Ward [1]_ is the default.", "The test of Ward is the default."),
        ("The test of Ward [1]_, [Smith2002]_.", None),  # a title has no verb
        ("The algorithm is described in [1]_ and its notes.", None),  # [1]_ was a noun
        ("This line ends here.  And this begins anew.", "And this begins anew."),
        ("Take `word' as it is written here.", "Take word as it is written here."),
    ],
)
def test_markup_is_stripped(text: str, expected: str | None) -> None:
    found = clean(text)
    assert (found[-1] if found else None) == expected


def test_abbreviations_do_not_end_a_sentence() -> None:
    doc = """Give a format, e.g. JSON or text, to the writer. It is ignored by some models,
    i.e. All of the linear ones. See Fig. 3 and Smith et al. for more details. It works well."""
    assert clean(doc) == [
        "Give a format, e.g. JSON or text, to the writer.",
        "It is ignored by some models, i.e. All of the linear ones.",
        "See Fig. 3 and Smith et al. for more details.",
    ]
    assert clean("This is matrix A. The other one is matrix B.") == [
        "This is matrix A.",
        "The other one is matrix B.",
    ]


def test_only_prose_of_numpydoc_sections_is_kept() -> None:
    doc = """Count the words of a text.

    Parameters
    ----------
    text : str or list of str, This looks like a sentence.
        The text must not be empty. Lists are joined
        before counting.
    n_words, n_chars : int, default=3
        Number of words.
    *args : tuple

    Returns
    -------
    ndarray of shape (n,)
        The counts are sorted from high to low.

    See Also
    --------
    other_counter : Count the letters of a text.

    Examples
    --------
    The next call is very slow.

    >>> count("One may well think this is a sentence.")
    This output has the form of a sentence.
    >>> for word in count("a"):
    ...     print("And this is one more.")

    Prose after the example is kept.

    References
    ----------
    .. [1] This is the title of a great book.
       It was published by the author.
    Another book is on the same list.
    """
    assert clean(doc) == [
        "Count the words of a text.",
        "The text must not be empty.",
        "Lists are joined before counting.",
        "The counts are sorted from high to low.",
        "Count the letters of a text.",
        "The next call is very slow.",
        "Prose after the example is kept.",
    ]


def test_descriptions_in_google_style_and_field_lists_are_kept() -> None:
    doc = """Apply the layer to its input.

    Args:
        input (Tensor of shape (N, C), optional): The tensor must be dense and
            have two dimensions. It is not changed.
        out (Tensor): See the notes of the layer.

    Returns:
        The result has the same shape.

    :param x: This one is described in a field.
    :type x: int
    angle -- This one is described after dashes.
    """
    assert clean(doc) == [
        "Apply the layer to its input.",
        "The tensor must be dense and have two dimensions.",
        "It is not changed.",
        "See the notes of the layer.",
        "The result has the same shape.",
        "This one is described in a field.",
        "This one is described after dashes.",
    ]


def test_blocks_other_than_prose_are_dropped() -> None:
    doc = """Every block below, if it is indented, is code::

        This line is in a literal block.

        So is this one after a blank.

    Prose goes on after the block.

    .. code-block:: python

        This line is in a code block.

    .. math:: This is what a formula does.
    .. note:: This note is kept as prose.
    .. versionchanged:: 1.2
       The default is now a tuple.

    This is prose before a fence.
    ```
    This line is in a fenced block.

    So is this one after a blank.
    ```

    ======  =========================
    name    This is in a table row.
    ======  =========================
    | This is a row as well. |

    - The first bullet is kept
      as one sentence.
    * The second one is kept too.
    1. The third one has a number.
    """
    assert clean(doc) == [
        "Prose goes on after the block.",
        "This note is kept as prose.",
        "The default is now a tuple.",
        "This is prose before a fence.",
        "The first bullet is kept as one sentence.",
        "The second one is kept too.",
        "The third one has a number.",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Too short.",
        "this one starts with a small letter.",
        "This one has no end",
        "This one is " + "very " * 40 + "long.",
        "Number of samples in the data.",
        "Whether to copy the data first.",
        "The shape of the output array.",
        "Smith J., Doe J., Journal of Tests, Vol. 3.",
        "Set x = 3 and call it again.",
        "The value of \\alpha is not used.",
        "This has naïve letters in it.",
        "Call self.fit_it on the x_train and the y_train, then use os.path.",
        "This (has one open bracket.",
        "See https://example.org for more of it.",
    ],
)
def test_text_that_is_not_a_sentence_is_dropped(text: str) -> None:
    assert clean(text) == []


def is_sentence(text: str) -> bool:
    """Whether text fits the public docstring, written independently of the code."""
    words = text.split()
    return (
        re.fullmatch(r"[A-Z][ -~]*[.!?]", text) is not None
        and 4 <= len(words) <= 40
        and text == " ".join(words)
        and not re.search(r"[`\\{}<>=|*]|\.\.|::|//", text)
        and sum(word.strip("\"'(),.;:!?").replace("-", "").isalpha() for word in words) >= len(words) / 2
    )


DOC_PARTS = st.sampled_from(
    [">>> f(x)", "...", "\n", "\n\n", "    ", "::", "```", ".. note::", ".. math::", "----", "* ",
     "Args:", "x : int", "x (int): ", "``", "`", ":class:`~a.B`", "[1]_", "e.g.", "\t", "\x0c",
     "The value is used here.", "It works for all", "of them.", "Return it.", "(", ")", '"', "- "]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.text(), st.lists(st.one_of(DOC_PARTS, st.text(max_size=9))).map(" ".join)))
@example("")
@example("```")
@example("The value is used here.\n    The value is used here.")
def test_any_text_is_cleaned_to_sentences_only(doc: str) -> None:
    assert [s for s in datasets._sentences(doc) if not is_sentence(s)] == []


# --- Sources ---------------------------------------------------------------------------------


def test_docstrings_of_all_kinds_in_source_order(make_package: MakePackage) -> None:
    source = '''
    """The module is the first one."""
    from numpy import add_newdoc
    if True:
        class A:
            """The class is the second one."""
            async def f(self):
                """The coroutine is the third one."""
                """This second string is no docstring."""
    try:
        def g():
            r"""The function is the fourth one."""
    except ImportError:
        def g():
            """The handler is the fifth one."""
    add_newdoc("numpy", "x", ("y",
        """
        The added one is the sixth one.
        """))
    h = torch._C._add_docstr(h, r"""
    The assigned one is the seventh one.
    """)
    print("""
    This string is not a docstring.
    """)
    '''
    name = make_package({"kinds.py": textwrap.dedent(source)})
    numbers = [re.sub(r".* the (\w+) one\.", r"\1", s) for s in load_docstrings(packages=[name])]
    assert numbers == ["first", "second", "third", "fourth", "fifth", "sixth", "seventh"]


def test_sources_are_not_imported_or_run(make_package: MakePackage, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    run_me = f'"""The {{}} is read but never run."""\nopen({str(trace)!r}, "w").close()\n1 / 0\n'
    name = make_package({f"{m}.py": run_me.format(m) for m in ("__init__", "module", "__main__")})
    assert len(load_docstrings(packages=[name])) == 3
    assert not trace.exists()


def test_modules_of_the_packages_are_not_loaded(cache: Path) -> None:
    code = """
    sources = datasets._sources
    datasets._sources = lambda package: sources(package)[:25]  # a few, to be quick
    counts = [len(datasets.load_docstrings(packages=[p])) for p in ("torch", "scipy", "joblib")]
    print(json.dumps([counts, sorted(sys.modules)]))
    """
    counts, modules = json.loads(run_python(code))
    assert min(counts) > 20
    assert {m.split(".")[0] for m in modules} & {"torch", "scipy", "joblib"} == set()


def test_test_suites_and_folders_that_are_not_packages_are_skipped(make_package: MakePackage) -> None:
    doc = '"""The {} file is read here."""'
    files = ("tests/a", "test/b", "__pycache__/c", "site-packages/d", "test_e", "conftest", "f/g")
    name = make_package({f"{file}.py": doc.format(file.replace("/", "-")) for file in files})
    assert load_docstrings(packages=[name]) == ["The f-g file is read here."]


def test_standard_library_excludes_site_packages_and_optional_parts() -> None:
    names = [name for name, _ in datasets._sources("stdlib")]
    assert {"argparse.py", "json/decoder.py", "unittest/case.py"} <= set(names)
    folders = {name.split("/")[0] for name in names}
    assert not folders & {"site-packages", "test", "idlelib", "lib2to3", "tkinter", "turtledemo"}


@pytest.mark.parametrize(
    "broken", [b'"""Not closed.\n', b'"""a"""\nprint "x"\n', b'"""a\0b"""', b'"""\xff\xfe"""']
)
def test_broken_source_is_skipped(
    make_package: MakePackage, tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: bytes
) -> None:
    name = make_package({"good.py": '"""The good file is read all the same."""'})
    (tmp_path / "site" / name / "bad.py").write_bytes(broken)
    with caplog.at_level(logging.DEBUG, logger="flip_sklearn.datasets.docstrings"):
        assert load_docstrings(packages=[name]) == ["The good file is read all the same."]
    assert [r.levelname for r in caplog.records if "bad.py" in r.getMessage()] == ["DEBUG"]


def test_package_of_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flip_single.py").write_text('"""The single file is read too."""')
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_docstrings(packages=["flip_single"]) == ["The single file is read too."]


def test_docstrings_of_compiled_functions() -> None:
    def read(package: str, name: str) -> list[str]:
        return datasets._parse(dict(datasets._sources(package))[name])

    torch_docs = read("torch", "_torch_docs.py")
    assert len(torch_docs) > 300
    assert "Computes the absolute value of each element in input." in torch_docs
    folder = "_core" if hasattr(np, "_core") else "core"  # the name before NumPy 2
    assert len(read("numpy", f"{folder}/_add_newdocs.py")) > 300


# --- Order and selection ---------------------------------------------------------------------


def test_order_is_independent_of_the_file_system(
    make_package: MakePackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = make_package(MANY)
    expected = load_docstrings(packages=[name], cache_dir=tmp_path / "a")
    assert [re.findall(r"The (\w+) module of part (\d+)", s)[0] for s in expected] == [
        (module, part) for part in ("1", "10", "2") for module in ("Apple", "__init__", "zebra")
    ]
    walk = os.walk

    def reversed_walk(top: str) -> Iterator[tuple[str, list[str], list[str]]]:
        for folder, folders, files in walk(top):
            folders.sort(reverse=True)
            yield folder, folders, sorted(files, reverse=True)
            folders.sort(reverse=True)

    monkeypatch.setattr(os, "walk", reversed_walk)
    assert load_docstrings(packages=[name], cache_dir=tmp_path / "b") == expected


def test_order_is_independent_of_the_hash_seed(make_package: MakePackage, tmp_path: Path) -> None:
    code = f"""
    sys.path.insert(0, {str(tmp_path / "site")!r})
    found = datasets.load_docstrings(packages=[{make_package(MANY)!r}, "joblib"])
    sample = datasets.load_docstrings(packages=["joblib"], random_state=3, max_sentences=9)
    print(json.dumps([hash("a"), found, sample]))
    """
    caches = [str(tmp_path / seed) for seed in "12"]
    (hash_1, *first), (hash_2, *second) = (
        json.loads(run_python(code, PYTHONHASHSEED=folder[-1], FLIP_SKLEARN_CACHE=folder))
        for folder in caches
    )
    assert hash_1 != hash_2
    assert first == second
    assert len(first[0]) > 100


def test_selection_without_random_state_is_spread_evenly(make_package: MakePackage) -> None:
    words = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    name = make_package({"a.py": '"""' + "\n\n".join(f"This is number {w}." for w in words) + '"""'})
    all_sentences = load_docstrings(packages=[name])
    assert len(all_sentences) == 10
    assert load_docstrings(packages=[name], max_sentences=5) == all_sentences[::2]
    assert load_docstrings(packages=[name], max_sentences=1) == all_sentences[:1]
    assert load_docstrings(packages=[name], max_sentences=np.int64(10)) == all_sentences  # type: ignore[arg-type]
    assert load_docstrings(packages=[name], max_sentences=99) == all_sentences


def test_random_state() -> None:
    all_sentences = load_docstrings(packages=["joblib"])
    shuffled = load_docstrings(packages=["joblib"], random_state=0)
    assert shuffled != all_sentences
    assert sorted(shuffled) == sorted(all_sentences)
    sample = load_docstrings(packages=["joblib"], random_state=0, max_sentences=50)
    assert sample == shuffled[:50]
    assert sample != load_docstrings(packages=["joblib"], random_state=1, max_sentences=50)
    state = np.random.RandomState(0)
    assert sample == load_docstrings(packages=["joblib"], random_state=state, max_sentences=50)
    assert sample != load_docstrings(packages=["joblib"], random_state=state, max_sentences=50)


def test_bad_random_state_is_refused_before_sources_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "_collect", lambda *args: pytest.fail("sources were read"))
    with pytest.raises(ValueError, match=r"random_state=.* is not allowed"):
        load_docstrings(random_state="zero")  # type: ignore[arg-type]


def test_repeats_are_dropped_regardless_of_case(make_package: MakePackage) -> None:
    doc = '"""This is said once. THIS is said once. That is said too."""'
    found = load_docstrings(packages=[make_package({"a.py": doc, "b.py": doc})])
    assert [s.lower() for s in found] == ["this is said once.", "that is said too."]


@pytest.mark.parametrize("value", [0, -1, True, False, 2.5, "10", np.nan])
def test_bad_max_sentences(value: object) -> None:
    with pytest.raises(
        ValueError, match=r"max_sentences=.*use an integer >= 1 or None for all sentences"
    ) as e:
        load_docstrings(max_sentences=value)  # type: ignore[arg-type]
    assert repr(value) in str(e.value)


@pytest.mark.parametrize("value", ["sklearn", (), ("scikit-learn",), ("sklearn.svm",), (3,)])
def test_bad_packages(value: object) -> None:
    with pytest.raises(ValueError, match=r"packages=.*use a list of top-level names.*'sklearn',") as e:
        load_docstrings(packages=value)  # type: ignore[arg-type]
    assert repr(value) in str(e.value)


def test_missing_packages_are_warned_of_and_only_missing_packages_refused(
    make_package: MakePackage, caplog: pytest.LogCaptureFixture
) -> None:
    name = make_package({"a.py": '"""The one that is there is read."""'})
    found = load_docstrings(packages=["flip_not_there", name])
    assert found == ["The one that is there is read."]
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "'flip_not_there'" in record.getMessage()
    with pytest.raises(
        ValueError, match=r"packages=.*flip_not_there.*have no sentences; use packages that are installed"
    ):
        load_docstrings(packages=["flip_not_there", "sys"])


def test_progress_is_shown_on_stderr_only_if_verbose(
    make_package: MakePackage,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flip_sklearn.io.PROGRESS_DELAY", 0.0)
    name = make_package(MANY)
    load_docstrings(packages=[name], cache_dir=tmp_path / "a")
    assert capsys.readouterr() == ("", "")
    load_docstrings(packages=[name], cache_dir=tmp_path / "b", verbose=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "10/10" in err
    load_docstrings(packages=[name], cache_dir=tmp_path / "b", verbose=True)
    assert capsys.readouterr() == ("", "")


# --- Cache -----------------------------------------------------------------------------------


def test_second_call_reads_the_cache(
    make_package: MakePackage, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = make_package(MANY)
    first = load_docstrings(packages=[name])
    assert [file.suffixes for file in cache.iterdir()] == [[".json", ".gz"]]

    def refuse(path: str) -> list[str]:
        raise RuntimeError(f"{path} was parsed again")

    monkeypatch.setattr(datasets, "_parse", refuse)
    assert load_docstrings(packages=[name]) == first
    with pytest.raises(RuntimeError, match="parsed again"):
        load_docstrings(packages=[name], cache_dir=cache / "another")


def test_edited_source_is_read_again(make_package: MakePackage, tmp_path: Path, cache: Path) -> None:
    name = make_package({"a.py": '"""This is the old text."""'})
    assert load_docstrings(packages=[name]) == ["This is the old text."]
    make_package({"a.py": '"""This is the new text."""'})  # as long as the old one ...
    os.utime(tmp_path / "site" / name / "a.py", (1, 1))  # ... but of another time
    assert load_docstrings(packages=[name]) == ["This is the new text."]
    assert len(list(cache.iterdir())) == 2


def flip_a_bit(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: b"no gzip at all",
        lambda data: data + b"garbage",
        flip_a_bit,
        lambda data: gzip.compress(b'["An unclosed list of sentences.'),
        lambda data: gzip.compress(b'{"An object": "is no list."}'),
        lambda data: gzip.compress(b"[1, 2]"),
    ],
)
def test_damaged_cache_is_replaced(
    make_package: MakePackage, cache: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[bytes], bytes]
) -> None:
    name = make_package(MANY)
    expected = load_docstrings(packages=[name])
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert load_docstrings(packages=[name]) == expected
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert file.read_bytes() == whole
    assert list(cache.iterdir()) == [file]


def test_cache_folder_that_is_not_writable(
    make_package: MakePackage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = make_package(MANY)
    (tmp_path / "file").write_text("")
    found = load_docstrings(packages=[name], cache_dir=tmp_path / "file" / "folder")
    assert len(found) == 9
    assert {r.levelname for r in caplog.records} == {"WARNING"}
    assert "Set cache_dir to a writable folder" in caplog.records[-1].getMessage()


def test_failed_write_leaves_nothing_behind(
    make_package: MakePackage, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: object, target: object) -> None:
        raise PermissionError("not permitted")

    monkeypatch.setattr(os, "replace", fail)
    assert len(load_docstrings(packages=[make_package(MANY)])) == 9
    assert list(cache.iterdir()) == []


def test_location_of_the_cache(
    make_package: MakePackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = make_package(MANY)
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.delenv("FLIP_SKLEARN_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    load_docstrings(packages=[name])
    assert len(list((home / ".cache" / "flip-sklearn").iterdir())) == 1
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    load_docstrings(packages=[name])
    assert len(list((tmp_path / "xdg" / "flip-sklearn").iterdir())) == 1


def test_two_processes_write_the_same_cache_file(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "docstrings-x.json.gz"
    write = """
    sentences = [f"This is sentence {i} of process %s." for i in range(2000)]
    for _ in range(50):
        datasets._write_cache(datasets.Path(%r), sentences)
    """
    writers = [
        subprocess.Popen([sys.executable, "-c", LOAD_MODULE + textwrap.dedent(write % (w, str(path)))])
        for w in "AB"
    ]
    seen: set[str] = set()
    try:
        while any(writer.poll() is None for writer in writers):
            sentences = datasets._read_cache(path)
            if sentences is None:
                assert not seen  # once a complete file exists, there always is one
                time.sleep(0.02)
                continue
            assert len(sentences) == 2000
            (writer_name,) = {sentence[-2] for sentence in sentences}
            seen.add(writer_name)
            time.sleep(0.002)  # leaves the processors to the writers
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen
    assert seen <= {"A", "B"}
    assert list(path.parent.iterdir()) == [path]


# --- The whole corpus ------------------------------------------------------------------------


def test_example_in_the_docstring() -> None:
    results = doctest.testmod(datasets)
    assert results.attempted >= 2
    assert results.failed == 0


def test_corpus_is_large_unique_and_cached() -> None:
    # Without torch, the largest package, which takes half of the time.
    packages = [name for name in datasets.DEFAULT_PACKAGES if name != "torch"]
    sentences = load_docstrings(packages=packages)
    assert len(sentences) >= 30_000
    assert len({sentence.lower() for sentence in sentences}) == len(sentences)
    assert [s for s in sentences if not is_sentence(s)] == []
    # In English prose, the share of "the" lies in this range.
    words = " ".join(sentences).lower().split()
    assert 0.05 < words.count("the") / len(words) < 0.15
    start = time.perf_counter()
    assert load_docstrings(packages=packages) == sentences
    assert time.perf_counter() - start < 5
