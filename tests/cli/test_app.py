"""The command line: exit codes, messages, help, completion, and what is imported for them."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from flip_sklearn import FLiPExtractor
from flip_sklearn.cli import commands, main
from flip_sklearn.cli.options import ENCODER_SETTINGS, OTHER_ENCODER_OPTIONS
from flip_sklearn.cli.output import is_user_error
from flip_sklearn.encoders import EncodingError, SentenceEncoder
from flip_sklearn.estimation.validation import MAX_AUTO_RANK
from tests.helpers.command_line import Corpus, error_line, run, start
from tests.helpers.paths import ROOT
from tests.helpers.processes import in_process

COMMANDS = ("fit", "keywords", "evaluate", "report")  # those that encode texts
USAGE_ERRORS = [
    ["nonsense"],
    ["keywords", "-m", "x"],
    ["keywords", "-m", "x", "-t", "a", "--embeddings", "b"],
    ["keywords", "-m", "x", "-t", "a", "-k", "0"],
    ["keywords", "-m", "x", "-t", "a", "-E", "novalue"],
    ["fit", "-t", "a"],
    ["fit", "-t", "a", "-o", "b", "--rank", "zero"],
    ["fit", "-t", "a", "-o", "b", "--rank", "²"],
    ["fit", "-t", "a", "-o", "b", "--words", "(a+)+b"],
    ["fit", "-t", "a", "-o", "b", "--embeddings", "c", "-e", "d"],
    ["fit", "-t", "-", "-o", "b", "--embeddings", "-"],
    ["evaluate", "-m", "x", "-t", "-", "--embeddings", "-"],
    ["find", "-m", "x", "dog"],
    ["find", "-m", "x", "--embeddings", "a"],
    ["find", "-m", "x", "--embeddings", "a", "--", "-dog"],
    ["find", "-m", "x", "--embeddings", "-", "-t", "-", "dog"],
    ["find", "-m", "x", "--embeddings", "a", "--column", "text", "dog"],
    ["compare", "-m", "x"],
    ["compare", "-m", "x", "--embeddings", "-", "-"],
]


# --- Usage errors ----------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", USAGE_ERRORS, ids=" ".join)
def test_usage_errors_exit_with_2(arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert "Usage: flip-sklearn" in err


@pytest.mark.parametrize("options", [("-e", "LaBSE"), ("-E", "normalize=true"), ("--cache", "c")])
@pytest.mark.parametrize("command", COMMANDS)
def test_embeddings_exclude_encoder_options(command: str, options: tuple[str, str]) -> None:
    arguments = {
        "fit": ["-t", "a", "-o", "b"],
        "keywords": ["-m", "x"],
        "evaluate": ["-m", "x", "-t", "a"],
        "report": ["-t", "a", "-o", "b.html"],
    }
    code, out, err = run(command, *arguments[command], "--embeddings", "c.npy", *options)
    assert (code, out) == (2, "")
    assert "--embeddings cannot be combined with" in err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("model=null", "use --encoder"),
        ("model=LaBSE", "use --encoder"),
        ("device=cpu", "use --device"),
        ("cache_dir=/tmp", "use --cache"),
        ("verbose=1", "use --quiet"),
        ("batch=3", "'batch' is not known; use one of .*prompt_name"),
        ("backend=openai", "backend='openai'"),
        ("truncate_dim=many", "truncate_dim='many'"),
        ("truncate_dim=--3", "truncate_dim='--3'"),
        ("normalize=1", "normalize=1 "),
        ("normalize=null", "normalize=None"),
        ("revision=7", "revision=7 "),
        ("language=deu_Latn", "language='deu_Latn' is not used"),
        ("api_key_env=null", "api_key_env must be"),
    ],
)
@pytest.mark.parametrize("command", COMMANDS)
def test_encoder_options_are_checked_before_any_work(
    command: str, option: str, message: str, corpus: Corpus, tmp_path: Path
) -> None:
    """The text does not exist: it would be the first error of a command that reads it."""
    arguments = {
        "fit": ["-o", tmp_path / "m"],
        "keywords": ["-m", corpus.model],
        "evaluate": ["-m", corpus.model],
        "report": ["-o", tmp_path / "page.html"],
    }
    encoder = ["-e", "some/model", "-E", option]
    err = error_line(*run(command, "-t", tmp_path / "none.txt", *arguments[command], *encoder))
    assert re.search(message, err)
    assert not list(tmp_path.iterdir())


def test_encoder_options_are_the_parameters_of_the_encoder() -> None:
    assert {*ENCODER_SETTINGS, *OTHER_ENCODER_OPTIONS} == set(SentenceEncoder().get_params())


# --- Errors and warnings ---------------------------------------------------------------------

USER_ERRORS = [
    ValueError("pass another file"),
    FileNotFoundError("no such file"),
    ImportError("a report needs jinja2: pip install ..."),
    MemoryError("too large"),
    FloatingPointError("diverged"),
    EncodingError("the service failed"),
    torch.OutOfMemoryError("CUDA out of memory"),
]
BUGS = [
    TypeError("unsupported operand"),
    RuntimeError("no pass was made"),
    KeyError("word"),
    AttributeError("no attribute"),
    AssertionError(""),
    ZeroDivisionError("division by zero"),
    ImportError("cannot import name 'a' from 'b'", name="b"),
]


@pytest.mark.parametrize("error", USER_ERRORS, ids=repr)
def test_user_errors_are_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_user_error(error)
    monkeypatch.setattr(commands, "open_model", lambda *_, **__: _raise(error))
    assert str(error) in error_line(*run("evaluate", "-m", "x", "-t", "a"))


@pytest.mark.parametrize("error", BUGS, ids=repr)
def test_bugs_print_their_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_user_error(error)
    monkeypatch.setattr(commands, "open_model", lambda *_, **__: _raise(error))
    code, out, err = run("evaluate", "-m", "x", "-t", "a")
    assert (code, out) == (1, "")
    assert "Traceback (most recent call last)" in err
    assert "in _raise" in err
    assert err.splitlines()[-1].startswith("flip-sklearn: error: ")


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("fails", [False, True])
def test_warnings_are_printed_when_they_are_raised(
    fails: bool, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = FLiPExtractor.fit

    def warning_fit(self: FLiPExtractor, *arguments: Any, **options: Any) -> FLiPExtractor:
        warnings.warn("it was interrupted, or so it seems", ConvergenceWarning, stacklevel=2)
        sys.stderr.write("after the warning\n")
        if fails:
            raise ValueError("the fit failed")
        return fit(self, *arguments, **options)

    monkeypatch.setattr(FLiPExtractor, "fit", warning_fit)
    code, _, err = run(
        *("fit", "-t", corpus.text, "--embeddings", corpus.embeddings, "-o", tmp_path / "m"),
        *("-q", "--max-iter", 50),
    )
    # The text of a warning does not decide whether training was interrupted (code 130).
    assert code == int(fails)
    lines = err.splitlines()
    assert lines[:2] == ["flip-sklearn: warning: it was interrupted, or so it seems", "after the warning"]
    assert ("flip-sklearn: error: the fit failed" in lines) == fails


def without_stream(name: str, arguments: list[str]) -> tuple[object, str]:
    """Exit code and standard error of a command without a standard stream, which is None in Python then."""
    os.close(("stdin", "stdout").index(name))
    sys.stderr = io.StringIO()
    setattr(sys, name, None)
    try:
        main(arguments)
    except SystemExit as end:
        return end.code, sys.stderr.getvalue()


def test_closed_streams_are_one_line(corpus: Corpus) -> None:
    command = ["keywords", "-q", "-m", str(corpus.model)]
    for name, rest, message in (
        ("stdout", ["--embeddings", str(corpus.embeddings)], "standard output is closed"),
        ("stdin", ["-t", "-", "-e", str(corpus.encoder)], "standard input is closed"),
    ):
        code, err = in_process(without_stream, name, command + rest)
        assert code == 1
        assert message in err
        assert err.count("\n") == 1, err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_behind_standard_output_is_one_line(corpus: Corpus) -> None:
    """Also after the end, when Python writes what is left."""
    command = (
        f"{sys.executable} -m flip_sklearn keywords -q -m {corpus.model} --embeddings {corpus.embeddings}"
    )
    done = subprocess.run(
        ["bash", "-c", f"{command} > /dev/full"], capture_output=True, cwd=ROOT, timeout=300
    )
    assert done.returncode == 1
    assert "No space left" in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1, done.stderr.decode()


@pytest.mark.parametrize(
    "arguments", ["--help", "fit --help", "--version", "--show-completion bash", "nonsense 2>&1"]
)
def test_closed_pipe_exits_with_141(arguments: str) -> None:
    """Also where typer prints, not the commands."""
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m flip_sklearn {arguments} | true; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        cwd=ROOT,
        timeout=300,
    )
    assert (done.stdout, done.stderr) == (b"141\n", b"")


# Sends Ctrl-C when a module is imported.
INTERRUPT = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPT_AT"]:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000): pass
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize(
    "module", ["flip_sklearn.cli.app", "typer", "flip_sklearn.cli.commands", "numpy", "scipy.sparse", "torch"]
)
def test_ctrl_c_during_imports(module: str, corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT)
    environment = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    arguments = ("keywords", "-m", corpus.model, "--embeddings", corpus.embeddings)
    with start(*arguments, env={**environment, "INTERRUPT_AT": module}, restore_signals=True) as process:
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, b"")
    assert err in (b"", b"flip-sklearn: interrupted\n")


def on_full_disk(commands: list[tuple[int, list[str]]]) -> list[tuple[int, str]]:
    """Exit codes and last lines of commands whose files may have some kilobytes, as on a full disk."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ends = []
    for kilobytes, arguments in commands:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * kilobytes, hard))
        code, _, err = run(*arguments)
        assert "Traceback" not in err
        ends.append((code, err.splitlines()[-1]))
    return ends


def test_full_disk_is_named(corpus: Corpus, tmp_path: Path) -> None:
    text = ["-q", "-t", str(corpus.text)]
    given = [*text, "--embeddings", str(corpus.embeddings)]
    cache = ["-m", str(corpus.model), "-e", str(corpus.encoder), "--cache", str(tmp_path / "cache")]
    commands = [
        (8, ["report", *given, "--no-ranks", "-o", str(tmp_path / "page.html")]),
        (8, ["evaluate", *text, *cache]),
        (1, ["fit", *given, "--max-iter", "50", "-o", str(tmp_path / "my_model")]),
    ]
    ends = in_process(on_full_disk, commands)
    for (code, message), named in zip(ends, ("page.html", "cache", "my_model"), strict=True):
        assert code == 1
        assert named in message


def test_debug_prints_the_traceback(corpus: Corpus, tmp_path: Path) -> None:
    code, _, err = run("--debug", "keywords", "-m", tmp_path / "none", "-t", "-")
    assert code == 1
    assert "Traceback" in err
    assert "no folder" in err


# --- Start without torch ---------------------------------------------------------------------

HEAVY = {"torch", "sklearn", "numpy", "scipy", "pandas"}
WITHOUT_WORK = [
    ["--help"],
    ["--version"],
    *([command, "--help"] for command in COMMANDS),
    *([command] for command in COMMANDS),
    *USAGE_ERRORS,
    ["keywords", "-m", "x", "--embeddings", "c", "-e", "d"],
    ["keywords", "-m", "x", "-t", "a", "-E", "batch=3"],
]


def loaded_modules(*commands: list[str], **environment: str) -> tuple[set[str], str]:
    """Run commands in a new process; return the modules that it has loaded at the end, and its output."""
    code = (
        "import json, sys\n"
        "from flip_sklearn.cli import main\n"
        "for arguments in json.loads(sys.argv.pop()):\n"
        "    try: main(arguments)\n"
        "    except SystemExit: pass\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands)],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return set(json.loads(result.stderr.splitlines()[-1])), result.stdout


def test_help_and_usage_errors_load_no_torch() -> None:
    modules, _ = loaded_modules(*WITHOUT_WORK)
    assert "flip_sklearn.cli.app" in modules
    assert not HEAVY & modules


def test_completion_script_calls_the_command() -> None:
    modules, out = loaded_modules([], _FLIP_SKLEARN_COMPLETE="source_bash")
    assert "_FLIP_SKLEARN_COMPLETE=complete_bash" in out
    assert not HEAVY & modules


def test_commands_load_torch() -> None:
    """Negative control: the modules of a command that runs are seen."""
    modules, _ = loaded_modules(["keywords", "-m", "none", "--embeddings", "none.npy"])
    assert {"torch", "sklearn"} <= modules


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flip-sklearn ", {*COMMANDS, "find", "compare", "explore"}),
        ("flip-sklearn k", {"keywords"}),
        ("flip-sklearn --v", {"--version"}),
        ("flip-sklearn fit --enc", {"--encoder", "--encoder-option"}),
        ("flip-sklearn keywords --no", {"--no-bias"}),
        ("flip-sklearn fit --col", {"--column"}),
        ("flip-sklearn report --ra", {"--ranks"}),
    ],
)
def test_shell_completion(line: str, expected: set[str]) -> None:
    modules, out = loaded_modules(
        [], _FLIP_SKLEARN_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(line.count(" "))
    )
    assert set(out.split()) == expected
    assert not HEAVY & modules


# --- Help ------------------------------------------------------------------------------------


def test_help_has_examples() -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert "--install-completion" in out
    for command in COMMANDS:
        assert command in out
        code, help_text, _ = run(command, "--help")
        assert code == 0
        assert f"flip-sklearn {command} -" in help_text  # an example
        assert "\b" not in help_text
        without_arguments, _, _ = run(command)
        assert without_arguments == 2


def test_help_has_no_types_and_no_ellipses() -> None:
    _, out, _ = run("--help")
    assert "..." not in out.partition("Commands:")[2]
    for command in COMMANDS:
        assert not re.findall(r"<[a-z ]+>", run(command, "--help")[1])


def test_help_states_the_automatic_rank() -> None:
    _, out, _ = run("fit", "--help")
    assert f"auto is min({MAX_AUTO_RANK}, d)" in " ".join(out.split())


def test_documented_options_exist() -> None:
    """Every command in help and docs names options that exist."""
    from typer.main import get_command

    from flip_sklearn.cli.app import app

    options = {
        name: {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help", "-h"}
        for name, command in get_command(app).commands.items()
    }
    documents = "\n".join(
        [
            (ROOT / "docs" / "cli.md").read_text(),
            *(command.help or "" for command in get_command(app).commands.values()),
        ]
    )
    commands = "fit|keywords|find|compare|evaluate|report"
    examples = re.findall(rf"flip-sklearn ({commands})\b((?:[^\n|`]|\\\n)*)", documents)
    assert len(examples) > 10
    for command, rest in examples:
        unquoted = re.sub(r"'[^']*'|\"[^\"]*\"", "", rest)
        for option in re.findall(r"(?<=\s)(--?[a-zA-Z][\w-]*)", unquoted):
            assert option in options[command], (command, option)


def test_version_and_entry_points() -> None:
    from flip_sklearn import __version__

    assert run("--version") == (0, f"flip-sklearn {__version__}\n", "")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"flip-sklearn": "flip_sklearn.cli:main"}
    assert any(need.startswith("typer") for need in project["dependencies"])
    with start("--version") as process:
        out, _ = process.communicate(timeout=120)
    assert (process.returncode, out.decode()) == (0, f"flip-sklearn {__version__}\n")
